"""One swarm stream with one peer for one content: both directions of it.

The link is the receiver of its stream's frames, inside the receive pass. What it cannot answer at
once (requests, index nodes) waits in bounded queues for its serving task.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import trio

from ...swarm.dealing import have_frames
from ...swarm.greeting import REFUSAL, check_answer, hello
from ...swarm.source import Source
from ...swarm.uplink import Lane
from ...swarm.upload import Upload
from ...wire.errors import PeerFault
from ...wire.ids import Cid
from ...wire.swarm import (
    BITFIELD_REQUEST,
    MAX_HELLO,
    PIECE_RUN,
    Bitfield,
    BitfieldRequest,
    Body,
    Cancel,
    Choke,
    Have,
    Hello,
    IndexNode,
    IndexRequest,
    NotHave,
    Piece,
    PieceRun,
    Range,
    Reject,
    Request,
    Unchoke,
    encode,
)
from ...wire.swarm_decoder import FrameDecoder
from ..net.stream import FileRange, Stream

if TYPE_CHECKING:
    from .content import ContentSwarm

WINDOW_BYTES = 16 << 20
"""Receive window of a swarm stream on which we fetch (go's largest)."""

MAX_INDEX_WAITING = 1024
"""Index nodes that one peer may have asked for and not got."""

MAX_CHUNKS_WAITING = 64
"""Chunks of our bitfield that one peer may have asked for and not got."""

MAX_REMEMBERED = 1024
"""Requests remembered; pieces of cancelled ones may still be on their way."""

MAX_REFUSED = 64
"""Requests beyond what may wait that a peer may send between two pieces of ours: it does not read
our answers, and each waits to be sent."""

MAX_CHOKED = 512
"""The same of a choked peer: what it had asked for may still be on its way (256 of our own)."""


class Link:
    """See the top of the file.

    Attributes:
        greeted: Both proofs hold.
        refused: The peer does not know the content (or will not say so).
        source: The peer as a place to fetch from.
    """

    def __init__(self, stream: Stream, swarm: ContentSwarm | None) -> None:
        self.stream = stream
        self.connection = stream.connection
        self.peer = stream.connection.peer_id
        self.swarm = swarm
        self.source = Source(str(self.peer))
        self.greeted = False
        self.refused = False
        self.ended_reason: str | None = None
        self.closed = trio.Event()
        self.first = trio.Event()
        """Set when the peer's first frame, or the end, has come."""
        self.theirs: Hello | None = None
        self.upload: Upload | None = None
        self.work = trio.Event()
        self.index_waiting: deque[Cid] = deque()
        self.chunks_waiting: deque[int] = deque()
        self._asked: OrderedDict[int, set[int]] = OrderedDict()
        self._nodes_asked: Counter[Cid] = Counter()
        self._refused = 0
        self._takes_runs = False
        self.lane = Lane(lambda: stream.queued, self.wake, lambda: stream.held_up)
        self.choking = False
        """We answer none of its requests for now."""
        stream.install_sink(FrameDecoder(self, MAX_HELLO))

    # Sending

    def send(self, body: Body) -> None:
        """Queue a frame."""
        self.stream.queue(encode(body))

    def wake(self) -> None:
        """Let the serving task look again."""
        self.work.set()

    def greet(self, root: Cid, pieces: int | None) -> None:
        """Send our Hello."""
        connection = self.connection
        self.send(hello(root, connection.handshake_hash, connection.is_initiator, pieces))

    def tell_have(self, ranges: Iterable[Range], held: bool = True) -> None:
        """Send a Have, or a NotHave."""
        for frame in have_frames(ranges, held):
            self.send(frame)

    def request(self, request: Request) -> None:
        """Ask for a run; from now on the window may grow."""
        self.stream.grow_window(WINDOW_BYTES)
        self._asked[request.id] = set(range(request.first, request.first + request.count))
        while len(self._asked) > MAX_REMEMBERED:
            self._asked.popitem(last=False)
        self.send(request)

    def drop(self, request_id: int) -> None:
        """Cancel a request; what of it is on its way already is still legal."""
        self.send(Cancel(request_id))

    def may_come(self, run: PieceRun) -> bool:
        """Return whether pieces may come on this request: each once, cancelled or not."""
        asked = self._asked.get(run.id)
        pieces = range(run.first, run.first + len(run.lengths))
        if asked is None or not asked.issuperset(pieces):
            return False
        asked.difference_update(pieces)
        if not asked:
            del self._asked[run.id]
        return True

    def ask_chunk(self, chunk: int) -> None:
        """Ask for a chunk of the peer's bitfield again."""
        self.send(BitfieldRequest(chunk))

    def ask_nodes(self, cids: Sequence[Cid]) -> None:
        """Ask for index nodes."""
        self._nodes_asked.update(cids)
        self.send(IndexRequest(tuple(cids)))

    def refuse(self) -> None:
        """Answer as an unknown content is answered, and end."""
        self.send(REFUSAL)

    def send_piece(self, request_id: int, piece: int, part: FileRange) -> None:
        """Queue a piece: its header, and its bytes from the file."""
        header = encode(Piece(request_id, piece, part.length), part.length)
        self.stream.queue(header)
        self.stream.queue_file(part)
        self._refused = 0

    def send_pieces(self, request_id: int, first: int, pieces: Sequence[bytes]) -> None:
        """Queue the bytes of small pieces that follow one another; at most `MAX_PIECE` in all."""
        size = sum(map(len, pieces))
        if self._takes_runs:
            run = PieceRun(request_id, first, tuple(map(len, pieces)))
            self.stream.queue(b"".join((encode(run, size), *pieces)))
        else:
            parts: list[bytes] = []
            for piece, data in enumerate(pieces, first):
                parts += (encode(Piece(request_id, piece, len(data)), len(data)), data)
            self.stream.queue(b"".join(parts))
        self._refused = 0

    def send_node(self, cid: Cid, block: bytes | None) -> None:
        """Queue an index node, or word that it is missing."""
        if block is None:
            self.send(IndexNode(cid, missing=True))
        else:
            self.stream.queue(encode(IndexNode(cid), len(block)))
            self.stream.queue(block)

    def reset(self, reason: str) -> None:
        """End the stream at once."""
        self.stream.reset(reason)

    # Receiver

    def frame(self, body: Body) -> None:
        """Take a frame without trailing bytes."""
        if not self.greeted:
            self._greeting(body)
            return
        swarm = self.swarm
        assert swarm is not None
        match body:
            case Have():
                swarm.peer_have(self, body.ranges, held=True)
            case NotHave():
                swarm.peer_have(self, body.ranges, held=False)
            case Bitfield() if self.source.bits.told:
                swarm.peer_told_again(self, body)
            case Bitfield():
                self.source.bits.take(body)
                if self.source.bits.told:
                    swarm.peer_told(self)
            case Request():
                self._requested(body)
            case Cancel():
                if self.upload is not None:
                    self.upload.cancel(body)
            case Reject():
                swarm.peer_rejected(self, body.id)
            case Choke() | Unchoke():
                self.source.choked = isinstance(body, Choke)  # also for a fetch that begins later
                swarm.peer_choked(self, self.source.choked)
            case BitfieldRequest():
                if len(self.chunks_waiting) >= MAX_CHUNKS_WAITING:
                    raise PeerFault("swarm-bitfield-flood")
                self.chunks_waiting.append(body.chunk)
                self.work.set()
            case IndexRequest():
                if len(self.index_waiting) + len(body.cids) > MAX_INDEX_WAITING:
                    raise PeerFault("swarm-index-flood")
                self.index_waiting.extend(body.cids)
                self.work.set()
            case _:
                raise PeerFault("swarm-unexpected", type(body).__name__)

    def _greeting(self, body: Body) -> None:
        match body:
            case Hello() if self.theirs is None:
                self.theirs = body
                self.source.tells_again = BITFIELD_REQUEST in body.features
                self._takes_runs = PIECE_RUN in body.features
                if self.stream.direction == "out":
                    assert self.swarm is not None
                    check_answer(
                        body,
                        self.swarm.cid,
                        self.connection.handshake_hash,
                        not self.connection.is_initiator,
                    )
                    self.greeted = True
                    self.swarm.joined(self)
                self.first.set()
            case Reject() if self.stream.direction == "out" and self.theirs is None:
                self.refused = True
                self.first.set()
            case _:
                raise PeerFault("swarm-before-hello", type(body).__name__)

    def _requested(self, request: Request) -> None:
        assert self.swarm is not None
        if self.upload is None:
            pieces = self.swarm.pieces
            if pieces is None:
                raise PeerFault("swarm-request-range", "nothing is held")
            self.upload = Upload(pieces)
        if not self.swarm.dealer.asked(self, request, trio.current_time()):
            self._refuse_flood(MAX_CHOKED)
            return
        rejected = self.upload.ask(request)
        if rejected is not None:
            self._refuse_flood(MAX_REFUSED)
            self.send(rejected)
        else:
            self.work.set()

    def _refuse_flood(self, most: int) -> None:
        """Count a refused request: who does not read our answers must not fill our memory."""
        self._refused += 1
        if self._refused > most:
            raise PeerFault("swarm-request-flood")

    def piece_begins(self, piece: Piece | PieceRun) -> memoryview:
        """Return where the bytes of pieces go."""
        if not self.greeted or self.swarm is None:
            raise PeerFault("swarm-before-hello", "Piece")
        return self.swarm.pieces_begin(self, _as_run(piece))

    def piece_bytes(self, piece: Piece | PieceRun, count: int) -> None:
        """Count bytes of pieces."""
        assert self.swarm is not None
        self.swarm.piece_bytes(self, count)

    def piece_ends(self, piece: Piece | PieceRun) -> None:
        """Take whole pieces."""
        assert self.swarm is not None
        self.swarm.pieces_end(self, _as_run(piece))

    def node_begins(self, body: IndexNode) -> None:
        """Refuse an index node that was not asked for, before its bytes are kept."""
        if not self.greeted or self.swarm is None:
            raise PeerFault("swarm-before-hello", "IndexNode")
        if body.cid not in self._nodes_asked:
            raise PeerFault("swarm-unasked", f"node {body.cid}")

    def node(self, body: IndexNode, block: bytes) -> None:
        """Take an index node."""
        self.node_begins(body)
        assert self.swarm is not None
        self._nodes_asked[body.cid] -= 1  # asked again meanwhile, it may come again
        if not self._nodes_asked[body.cid]:
            del self._nodes_asked[body.cid]
        self.swarm.node_came(self, body, block)

    def pass_done(self) -> None:
        """Ask for more, now that all of the pass has been taken."""
        if self.greeted and self.swarm is not None:
            self.swarm.pass_done(self)

    def ended(self, reason: str | None) -> None:
        """Take note of the stream's end."""
        self.ended_reason = reason or "the peer ended the stream"
        self.first.set()
        self.closed.set()
        self.work.set()
        if self.swarm is not None:
            self.swarm.left(self)


def _as_run(piece: Piece | PieceRun) -> PieceRun:
    """Return a single piece as a run of one."""
    if isinstance(piece, PieceRun):
        return piece
    return PieceRun(piece.id, piece.index, (piece.length,))
