"""Reads a stream of swarm frames inside the receive pass, piece bytes copied once.

`FrameDecoder` is the sink of a swarm stream: frames are told to a `Receiver` as they become whole;
the bytes of a piece, or of several in one frame, go straight to the buffer that the receiver gives
out for them.
"""

from __future__ import annotations

from typing import Protocol

from . import varint
from .errors import PeerFault
from .swarm import MAX_FRAME, Body, IndexNode, Piece, PieceRun, decode


class Receiver(Protocol):
    """Who is told of frames; each method may raise a PeerFault, which ends the stream."""

    def frame(self, body: Body) -> None:
        """Take a frame without trailing bytes."""

    def piece_begins(self, piece: Piece | PieceRun) -> memoryview:
        """Return where the bytes of a piece, or of a run, go: exactly as many as it says."""

    def piece_bytes(self, piece: Piece | PieceRun, count: int) -> None:
        """Take note of `count` more bytes."""

    def piece_ends(self, piece: Piece | PieceRun) -> None:
        """Take note that all bytes are in the buffer."""

    def node_begins(self, body: IndexNode) -> None:
        """Take note of an index node whose block is still to come: refuse one not asked for."""

    def node(self, body: IndexNode, block: bytes) -> None:
        """Take an index node."""

    def pass_done(self) -> None:
        """Take note that the receive pass is over."""

    def ended(self, reason: str | None) -> None:
        """Take note that no more comes."""


class FrameDecoder:
    """The sink; see the top of the file.

    Args:
        receiver: Who is told.
        first: Longest protobuf part of the first frame.
    """

    def __init__(self, receiver: Receiver, first: int = MAX_FRAME) -> None:
        self._receiver = receiver
        self._longest = first
        self._head = bytearray()
        self._need = 0  # bytes of the frame's protobuf part, when its length is known
        self._body: Body | None = None
        self._left = 0  # trailing bytes still to come
        self._target: memoryview | None = None
        self._at = 0
        self._block: bytearray | None = None

    def feed(self, data: memoryview) -> int:
        """Take all of the data.

        Raises:
            PeerFault: A frame is malformed, over a bound, or refused by the receiver.
        """
        at, end = 0, len(data)
        while at < end:
            if self._left:
                take = min(self._left, end - at)
                self._trailing(data[at : at + take])
                at += take
            else:
                at = self._header(data, at, end)
        return end

    def pass_done(self) -> None:
        """Tell the receiver that the pass is over."""
        self._receiver.pass_done()

    def ended(self, reason: str | None) -> None:
        """Tell the receiver that no more comes; inside a frame that is a broken stream."""
        if reason is None and (self._left or self._head or self._need):
            reason = "the peer ended the stream inside a frame"
        self._receiver.ended(reason)

    def _header(self, data: memoryview, at: int, end: int) -> int:
        """Collect the length and the protobuf part; return how far the data was used."""
        head = self._head
        if not self._need:
            # One byte at a time: a length has at most three, and stands once in a mebibyte.
            while at < end:
                head.append(data[at])
                at += 1
                found = varint.decode_prefix(head)
                if found is not None:
                    if not 0 < found[0] <= self._longest:
                        raise PeerFault("swarm-frame-length", str(found[0]))
                    self._need = found[0]
                    head.clear()
                    break
                if len(head) > 3:
                    raise PeerFault("swarm-frame-length")
            if not self._need:
                return at
        take = min(self._need - len(head), end - at)
        head += data[at : at + take]
        if len(head) == self._need:
            self._begin(head)
            head.clear()
            self._need = 0
        return at + take

    def _begin(self, head: bytearray) -> None:
        body, trailing = decode(head)
        self._longest = MAX_FRAME
        self._body, self._left, self._at = body, trailing, 0
        match body:
            case Piece() | PieceRun():
                self._target = self._receiver.piece_begins(body)
                return
            case IndexNode() if trailing:
                self._receiver.node_begins(body)
                self._block = bytearray()
                return
            case IndexNode():
                self._receiver.node(body, b"")
            case None:
                pass
            case _ if trailing:
                self._body = None  # of no known meaning: skipped
                self._receiver.frame(body)
            case _:
                self._receiver.frame(body)
        if not trailing:
            self._body = None

    def _trailing(self, data: memoryview) -> None:
        size = len(data)
        self._left -= size
        body = self._body
        match body:
            case Piece() | PieceRun():
                assert self._target is not None
                self._target[self._at : self._at + size] = data
                self._at += size
                self._receiver.piece_bytes(body, size)
                if not self._left:
                    self._target = None
                    self._body = None
                    self._receiver.piece_ends(body)
            case IndexNode():
                assert self._block is not None
                self._block += data
                if not self._left:
                    block, self._block = bytes(self._block), None
                    self._body = None
                    self._receiver.node(body, block)
            case _:
                pass
