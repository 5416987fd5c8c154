"""The decoder of a stream of swarm frames: any split, any cut, any lie."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.wire import varint
from shoal.wire.errors import PeerFault
from shoal.wire.ids import Cid
from shoal.wire.swarm import (
    MAX_FEATURES,
    MAX_FRAME,
    MAX_HELLO,
    MAX_PIECES,
    MAX_RANGES,
    MAX_TRAILING,
    Body,
    Cancel,
    Choke,
    Have,
    Hello,
    IndexNode,
    Piece,
    PieceRun,
    Reject,
    RejectReason,
    Request,
    encode,
)
from shoal.wire.swarm_decoder import FrameDecoder

NODE = Cid(0x70, b"\x12\x20" + hashlib.sha256(b"node").digest())


def size_of(piece: Piece | PieceRun) -> int:
    return piece.length if isinstance(piece, Piece) else sum(piece.lengths)


@dataclass
class Log:
    """A receiver that writes down what it is told."""

    told: list[Any] = field(default_factory=list)
    arriving: bytearray = field(default_factory=bytearray)
    counted: int = 0
    passes: int = 0

    def frame(self, body: Body) -> None:
        self.told.append(body)

    def piece_begins(self, piece: Piece | PieceRun) -> memoryview:
        self.arriving = bytearray(size_of(piece))
        self.counted = 0
        return memoryview(self.arriving)

    def piece_bytes(self, piece: Piece | PieceRun, count: int) -> None:
        assert count > 0
        self.counted += count

    def piece_ends(self, piece: Piece | PieceRun) -> None:
        assert self.counted == size_of(piece)
        self.told.append((piece, bytes(self.arriving)))

    def node_begins(self, body: IndexNode) -> None:
        pass

    def node(self, body: IndexNode, block: bytes) -> None:
        self.told.append((body, block))

    def pass_done(self) -> None:
        self.passes += 1

    def ended(self, reason: str | None) -> None:
        self.told.append(("ended", reason))


UNKNOWN = varint.encode(14 << 3 | 2) + b"\x02hi"


def unknown_frame(trailing: bytes) -> bytes:
    body = UNKNOWN + (varint.encode(15 << 3) + varint.encode(len(trailing)) if trailing else b"")
    return varint.encode(len(body)) + body + trailing


def one(body: Body, trailing: bytes = b"") -> bytes:
    return encode(body, len(trailing)) + trailing


pieces = st.builds(
    lambda number, data: (
        one(Piece(number, 3, len(data)), data),
        (Piece(number, 3, len(data)), data),
    ),
    st.integers(0, 9),
    st.binary(min_size=1, max_size=300),
)
runs = st.builds(
    lambda number, some: (
        one(PieceRun(number, 5, tuple(map(len, some))), b"".join(some)),
        (PieceRun(number, 5, tuple(map(len, some))), b"".join(some)),
    ),
    st.integers(0, 9),
    st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=200),
)
nodes = st.binary(max_size=300).map(
    lambda block: (one(IndexNode(NODE), block), (IndexNode(NODE), block))
)
bodies: st.SearchStrategy[Body] = st.sampled_from(
    [Choke(), Have(((0, 5), (9, 1))), Request(3, 0, 7), Cancel(9), Reject(1, RejectReason.CHOKED)]
)
plain = bodies.map(lambda body: (one(body), body))
plain_with_trailing = st.binary(min_size=1, max_size=300).map(
    lambda data: (one(Have(((0, 5),)), data), Have(((0, 5),)))
)
unknown = st.binary(max_size=300).map(lambda data: (unknown_frame(data), None))
frames = st.lists(st.one_of(pieces, runs, nodes, plain, plain_with_trailing, unknown), max_size=12)


def feed(decoder: FrameDecoder, parts: Iterable[bytes]) -> None:
    for part in parts:
        # A view that is gone after the call, as in the receive pass: nothing of it may be kept.
        with memoryview(bytearray(part)) as view:
            assert decoder.feed(view) == len(part)


def split(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(frames, st.lists(st.integers(0, 2**16), max_size=20))
def test_frames_arrive_whole_however_the_stream_is_split(
    sent: list[tuple[bytes, object]], cuts: list[int]
) -> None:
    log = Log()
    decoder = FrameDecoder(log)

    feed(decoder, split(b"".join(data for data, _ in sent), cuts))
    decoder.ended(None)

    told = [told for _, told in sent if told is not None]
    assert log.told == [*told, ("ended", None)]


@given(frames)
def test_frames_arrive_whole_byte_by_byte(sent: list[tuple[bytes, object]]) -> None:
    log = Log()

    feed(FrameDecoder(log), (bytes([byte]) for data, _ in sent for byte in data))

    assert log.told == [told for _, told in sent if told is not None]


@given(st.one_of(pieces, runs, nodes, plain, plain_with_trailing, unknown), st.data())
def test_an_end_inside_a_frame_is_told_as_such(
    sent: tuple[bytes, object], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(1, len(sent[0]) - 1))
    log = Log()
    decoder = FrameDecoder(log)

    feed(decoder, [sent[0][:cut]])
    decoder.ended(None)

    assert log.told[-1] == ("ended", "the peer ended the stream inside a frame")
    assert not any(
        isinstance(told, tuple) and isinstance(told[0], Piece | PieceRun) for told in log.told
    )


def test_a_reason_for_the_end_is_handed_on() -> None:
    log = Log()
    decoder = FrameDecoder(log)

    feed(decoder, [one(Choke())[:1]])
    decoder.ended("the connection was lost")

    assert log.told == [("ended", "the connection was lost")]


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=5))
def test_garbage_is_a_fault_of_the_peer_or_harmless(data: bytes, cuts: list[int]) -> None:
    log = Log()
    with contextlib.suppress(PeerFault):
        feed(FrameDecoder(log), split(data, cuts))
    assert len(log.told) <= len(data)


@given(st.lists(st.integers(0, 400), max_size=5), st.binary(max_size=40), frames)
def test_garbage_between_frames_does_not_undo_what_came_before(
    cuts: list[int], garbage: bytes, sent: list[tuple[bytes, object]]
) -> None:
    log = Log()
    data = b"".join(data for data, _ in sent)
    with contextlib.suppress(PeerFault):
        feed(FrameDecoder(log), split(data + garbage, cuts))
    told = [told for _, told in sent if told is not None]
    assert log.told[: len(told)] == told


@pytest.mark.parametrize(
    "head",
    [
        varint.encode(0),
        varint.encode(MAX_FRAME + 1),
        varint.encode(2**63 - 1),
        b"\xff" * 9 + b"\x01",
        b"\xff\xff\xff\xff",
        b"\x80\x00",
        b"\x81\x00",
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_a_length_out_of_bounds_is_a_fault_before_anything_is_kept(
    head: bytes, whole: bool
) -> None:
    log = Log()

    with pytest.raises(PeerFault):
        feed(FrameDecoder(log), [head] if whole else (bytes([byte]) for byte in head))

    assert log.told == []


def test_the_longest_frame_is_taken() -> None:
    padding = varint.encode(1000 << 3 | 2)
    choke = one(Choke())[1:]
    size = MAX_FRAME - len(choke) - len(padding) - 3
    body = choke + padding + varint.encode(size) + bytes(size)
    assert len(body) == MAX_FRAME
    log = Log()

    feed(FrameDecoder(log), [varint.encode(len(body)), body])

    assert log.told == [Choke()]


def test_what_trails_an_unknown_frame_is_skipped_without_being_kept() -> None:
    log = Log()
    decoder = FrameDecoder(log)
    block = bytes(1 << 16)
    frame = unknown_frame(bytes(MAX_TRAILING))
    head = frame[: len(frame) - MAX_TRAILING]

    feed(decoder, [head, *[block] * (MAX_TRAILING >> 16), one(Choke())])

    assert log.told == [Choke()]


def test_a_fault_of_the_receiver_ends_the_feeding() -> None:
    class Refusing(Log):
        def piece_begins(self, piece: Piece | PieceRun) -> memoryview:
            raise PeerFault("swarm-unasked")

    with pytest.raises(PeerFault, match="swarm-unasked"):
        feed(FrameDecoder(Refusing()), [one(Piece(1, 1, 3), b"abc")])


def test_a_node_that_is_refused_is_not_kept() -> None:
    class Refusing(Log):
        def node_begins(self, body: IndexNode) -> None:
            raise PeerFault("swarm-unasked")

    head = encode(IndexNode(NODE), MAX_TRAILING)
    with pytest.raises(PeerFault, match="swarm-unasked"):
        feed(FrameDecoder(Refusing()), [head])


def test_the_first_frame_of_a_stranger_is_short() -> None:
    log = Log()
    decoder = FrameDecoder(log, MAX_HELLO)
    most = Hello(bytes(32), bytes(32), ("f" * 64,) * MAX_FEATURES, MAX_PIECES)
    long = one(Have(((0, 1),) * MAX_RANGES))
    assert len(long) > MAX_HELLO

    feed(decoder, [one(most), long])
    with pytest.raises(PeerFault, match="swarm-frame-length"):
        feed(FrameDecoder(log, MAX_HELLO), [long])

    assert log.told == [most, Have(((0, 1),) * MAX_RANGES)]


def test_passes_are_told() -> None:
    log = Log()
    decoder = FrameDecoder(log)

    decoder.pass_done()

    assert log.passes == 1
