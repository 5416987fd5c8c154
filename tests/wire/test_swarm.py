"""Swarm frames: they come back as they were, and a hostile peer gets nothing but a PeerFault."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.wire import varint
from shoal.wire.errors import Misuse, PeerFault
from shoal.wire.ids import Cid
from shoal.wire.proto import shoal_swarm_pb2 as pb
from shoal.wire.swarm import (
    CHUNK_BITS,
    MAX_CIDS,
    MAX_FRAME,
    MAX_PIECE,
    MAX_PIECES,
    MAX_RANGES,
    MAX_RUN,
    MAX_TRAILING,
    Bitfield,
    BitfieldKind,
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
    Reject,
    RejectReason,
    Request,
    Unchoke,
    content_key,
    decode,
    encode,
    hash_proof,
)


def raw_cid(data: bytes) -> Cid:
    return Cid(0x55, b"\x12\x20" + hashlib.sha256(data).digest())


ROOT = raw_cid(b"root")

cids = st.binary(max_size=8).map(raw_cid)
ids = st.integers(0, 2**32 - 1)
indexes = st.integers(0, MAX_PIECES - 1)
ranges = st.lists(
    st.tuples(st.integers(0, MAX_PIECES - 2**20), st.integers(1, 2**20)), max_size=20
).map(tuple)
hellos = st.builds(
    Hello,
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=32, max_size=32),
    st.lists(st.text(max_size=64), max_size=32).map(tuple),
    st.integers(0, MAX_PIECES),
)
bitfields = st.builds(
    Bitfield,
    st.sampled_from(BitfieldKind),
    st.integers(0, MAX_PIECES // CHUNK_BITS - 1),
    st.binary(max_size=CHUNK_BITS // 8),
    st.booleans(),
)
bodies: st.SearchStrategy[Body] = st.one_of(
    hellos,
    bitfields,
    st.builds(Have, ranges),
    st.builds(NotHave, ranges),
    st.builds(IndexRequest, st.lists(cids, min_size=1, max_size=9).map(tuple)),
    st.builds(IndexNode, cids, st.booleans()),
    st.builds(Request, ids, indexes, st.integers(1, MAX_RUN)),
    st.builds(Piece, ids, indexes, st.integers(1, MAX_PIECE)),
    st.builds(
        PieceRun,
        ids,
        indexes,
        st.lists(st.integers(1, 1024), min_size=1, max_size=MAX_RUN).map(tuple),
    ),
    st.builds(Cancel, ids),
    st.builds(Reject, ids, st.sampled_from(RejectReason)),
    st.just(Choke()),
    st.builds(BitfieldRequest, st.integers(0, MAX_PIECES // CHUNK_BITS - 1)),
    st.just(Unchoke()),
)


def trailing_of(body: Body) -> int:
    match body:
        case Piece():
            return body.length
        case PieceRun():
            return sum(body.lengths)
        case _:
            return 0


def protobuf_of(frame: bytes) -> bytes:
    length, at = varint.decode(frame)
    assert length == len(frame) - at
    return frame[at:]


@given(bodies)
def test_a_frame_comes_back_as_it_was(body: Body) -> None:
    trailing = trailing_of(body)

    assert decode(protobuf_of(encode(body, trailing))) == (body, trailing)


@given(bodies, st.integers(1, 40))
def test_unknown_fields_are_ignored(body: Body, number: int) -> None:
    unknown = varint.encode((number + 1000) << 3) + b"\x07"
    data = protobuf_of(encode(body, trailing_of(body)))

    assert decode(data + unknown) == (body, trailing_of(body))


def test_a_frame_of_an_unknown_type_is_none_and_tells_what_trails() -> None:
    body_14 = varint.encode(14 << 3 | 2) + b"\x02hi"
    trailing = varint.encode(15 << 3) + varint.encode(MAX_TRAILING)

    assert decode(body_14 + trailing) == (None, MAX_TRAILING)


@given(st.binary(max_size=200))
def test_garbage_is_a_fault_of_the_peer_or_harmless(data: bytes) -> None:
    try:
        body, trailing = decode(data)
    except PeerFault:
        return
    assert 0 <= trailing <= MAX_TRAILING
    assert body is None or decode(protobuf_of(encode(body, trailing))) == (body, trailing)


@given(bodies, st.data())
def test_a_bent_frame_is_a_fault_of_the_peer_or_within_its_bounds(
    body: Body, data: st.DataObject
) -> None:
    bent = bytearray(protobuf_of(encode(body, trailing_of(body))))
    for _ in range(data.draw(st.integers(1, 3))):
        if bent:
            bent[data.draw(st.integers(0, len(bent) - 1))] = data.draw(st.integers(0, 255))
    try:
        found, trailing = decode(bytes(bent))
    except PeerFault:
        return
    match found:
        case Piece():
            assert 0 < found.length == trailing <= MAX_PIECE
            assert found.index < MAX_PIECES
        case PieceRun():
            assert 0 < len(found.lengths) <= MAX_RUN
            assert min(found.lengths) > 0
            assert sum(found.lengths) == trailing <= MAX_PIECE
        case Request():
            assert 0 < found.count <= MAX_RUN
            assert found.first < MAX_PIECES
        case Have() | NotHave():
            assert all(count and first + count <= MAX_PIECES for first, count in found.ranges)
        case Bitfield():
            assert found.chunk < MAX_PIECES // CHUNK_BITS


def frame(**fields: object) -> bytes:
    made = pb.Frame(**fields)  # type: ignore[arg-type]
    return made.SerializeToString()


HUGE = 2**63 - 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame(trailing=MAX_TRAILING + 1), "swarm-trailing"),
        (frame(trailing=2**32 - 1), "swarm-trailing"),
        (frame(piece=pb.Piece(id=1, index=0, length=5), trailing=4), "swarm-piece-length"),
        (frame(piece=pb.Piece(id=1, index=0, length=0)), "swarm-piece-length"),
        (
            frame(piece=pb.Piece(id=1, index=0, length=MAX_PIECE + 1), trailing=MAX_PIECE + 1),
            "swarm-piece-length",
        ),
        (frame(piece=pb.Piece(id=1, index=MAX_PIECES, length=1), trailing=1), "swarm-piece-index"),
        (frame(piece=pb.Piece(id=1, index=HUGE, length=1), trailing=1), "swarm-piece-index"),
        (frame(piece_run=pb.PieceRun(id=1, lengths=[2, 3]), trailing=4), "swarm-piece-length"),
        (
            frame(piece_run=pb.PieceRun(id=1, lengths=[MAX_PIECE, 1]), trailing=MAX_PIECE + 1),
            "swarm-piece-length",
        ),
        (frame(piece_run=pb.PieceRun(id=1, lengths=[2**32 - 1])), "swarm-piece-length"),
        (frame(piece_run=pb.PieceRun(id=1)), "swarm-piece-run"),
        (frame(piece_run=pb.PieceRun(id=1, lengths=[4, 0]), trailing=4), "swarm-piece-run"),
        (
            frame(piece_run=pb.PieceRun(id=1, lengths=[1] * (MAX_RUN + 1)), trailing=MAX_RUN + 1),
            "swarm-piece-run",
        ),
        (
            frame(piece_run=pb.PieceRun(id=1, first=MAX_PIECES, lengths=[1]), trailing=1),
            "swarm-piece-index",
        ),
        (frame(request=pb.Request(id=1, first=0, count=0)), "swarm-request"),
        (frame(request=pb.Request(id=1, first=0, count=MAX_RUN + 1)), "swarm-request"),
        (frame(request=pb.Request(id=1, first=HUGE, count=1)), "swarm-piece-index"),
        (frame(have=pb.Have(ranges=[pb.Range(first=0, count=0)])), "swarm-ranges"),
        (frame(have=pb.Have(ranges=[pb.Range(first=MAX_PIECES, count=1)])), "swarm-ranges"),
        (frame(have=pb.Have(ranges=[pb.Range(first=HUGE, count=HUGE)])), "swarm-ranges"),
        (
            frame(have=pb.Have(ranges=[pb.Range(first=0, count=1)] * (MAX_RANGES + 1))),
            "swarm-ranges",
        ),
        (frame(hello=pb.Hello(key=bytes(31), proof=bytes(32))), "swarm-hello"),
        (frame(hello=pb.Hello(key=bytes(32), proof=b"")), "swarm-hello"),
        (frame(bitfield=pb.Bitfield(chunk=MAX_PIECES // CHUNK_BITS)), "swarm-bitfield"),
        (
            frame(bitfield_request=pb.BitfieldRequest(chunk=MAX_PIECES // CHUNK_BITS)),
            "swarm-bitfield",
        ),
        (
            frame(bitfield=pb.Bitfield(kind=pb.Bitfield.RAW, data=bytes(CHUNK_BITS // 8 + 1))),
            "swarm-bitfield",
        ),
        (frame(index_request=pb.IndexRequest()), "swarm-index-request"),
        (
            frame(index_request=pb.IndexRequest(cids=[bytes(ROOT)] * (MAX_CIDS + 1))),
            "swarm-index-request",
        ),
        (
            frame(index_node=pb.IndexNode(cid=bytes(ROOT), missing=True), trailing=1),
            "swarm-index-node",
        ),
    ],
)
def test_what_breaks_a_bound_is_a_fault(data: bytes, reason: str) -> None:
    with pytest.raises(PeerFault) as caught:
        decode(data)

    assert caught.value.reason == reason


@pytest.mark.parametrize("cid", [b"", b"\x01", bytes(ROOT)[:-1], bytes(ROOT) + b"\x00", bytes(99)])
def test_a_cid_that_is_none_is_a_fault(cid: bytes) -> None:
    for data in (
        frame(index_request=pb.IndexRequest(cids=[cid])),
        frame(index_node=pb.IndexNode(cid=cid)),
    ):
        with pytest.raises(PeerFault):
            decode(data)


def test_an_unknown_bitfield_kind_is_a_fault() -> None:
    kind_9 = varint.encode(1 << 3) + b"\x09"
    number = pb.Frame.DESCRIPTOR.fields_by_name["bitfield"].number

    with pytest.raises(PeerFault):
        decode(varint.encode(number << 3 | 2) + varint.encode(len(kind_9)) + kind_9)


def test_a_reject_for_a_reason_of_a_later_version_is_a_reject() -> None:
    reason_77 = b"\x08\x05\x10\x4d"
    number = pb.Frame.DESCRIPTOR.fields_by_name["reject"].number

    body, _ = decode(varint.encode(number << 3 | 2) + b"\x04" + reason_77)

    assert body == Reject(5, RejectReason.NOT_HELD)


def test_features_and_the_hint_of_a_hello_are_cut_to_their_bounds() -> None:
    features = ["x" * 100] * 40
    data = frame(hello=pb.Hello(key=bytes(32), proof=bytes(32), features=features, pieces=HUGE))

    body, _ = decode(data)

    assert body == Hello(bytes(32), bytes(32), ("x" * 64,) * 32, MAX_PIECES)


@pytest.mark.parametrize(
    ("body", "trailing"),
    [
        (Bitfield(BitfieldKind.RAW, data=bytes(MAX_FRAME)), 0),
        (Piece(1, 1, 1), MAX_TRAILING + 1),
    ],
)
def test_we_send_no_frame_that_is_too_long(body: Body, trailing: int) -> None:
    with pytest.raises(Misuse):
        encode(body, trailing)


def test_the_most_of_everything_fits_one_frame() -> None:
    last = MAX_PIECES - 1
    encode(Have(((last, 1),) * MAX_RANGES))
    encode(IndexRequest((ROOT,) * MAX_CIDS))


# The hash is the capability


def test_key_and_proof_are_the_documented_hashes() -> None:
    handshake = bytes(range(32))

    assert content_key(ROOT) == hashlib.sha256(b"shoal-provide/1" + ROOT.multihash).digest()
    for initiator, role in ((True, b"\x00"), (False, b"\x01")):
        expected = hmac.new(ROOT.multihash, handshake + role, "sha256").digest()
        assert hash_proof(ROOT, handshake, initiator) == expected
