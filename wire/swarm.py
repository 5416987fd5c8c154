"""Frames of the swarm protocol `/shoal/swarm/1.0.0`: what they are and how they are laid out.

A frame is an unsigned varint length, a protobuf `Frame`, and then `Frame.trailing` raw bytes. In
them pieces and index nodes carry their bytes; an unknown type is skipped, trailing bytes and all.
`swarm_decoder.py` reads a stream of them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

from google.protobuf.message import DecodeError

from . import varint
from .errors import Misuse, PeerFault
from .ids import Cid
from .immutable import immutable
from .proto import shoal_swarm_pb2 as pb

PROTOCOL: Final = "/shoal/swarm/1.0.0"

MAX_FRAME: Final = 64 * 1024
"""Longest protobuf part of a frame."""

MAX_HELLO: Final = 4 * 1024
"""Longest protobuf part of a stream's first frame: what a stranger may have us keep."""

MAX_TRAILING: Final = 2 << 20
"""Longest trailing part of a frame."""

MAX_PIECE: Final = 1 << 20
"""Longest piece."""

MAX_PIECES: Final = 1 << 40
"""Pieces of one content."""

CHUNK_BITS: Final = 1 << 16
"""Pieces in one chunk of a bitfield."""

MAX_RANGES: Final = 4096
"""Ranges in one Have or NotHave."""

MAX_CIDS: Final = 256
"""CIDs in one IndexRequest."""

MAX_RUN: Final = 1024
"""Pieces in one Request."""

MAX_FEATURES: Final = 32

BITFIELD_REQUEST: Final = "bitfield-request"
"""Feature: chunks of the bitfield are told again (`BitfieldRequest`)."""

PIECE_RUN: Final = "piece-run"
"""Feature: small pieces may come many in one frame (`PieceRun`)."""

_KEY_PREFIX: Final = b"shoal-provide/1"
_INITIATOR, _RESPONDER = b"\x00", b"\x01"


def content_key(root: Cid) -> bytes:
    """Return the 32 bytes under which a content is asked for and announced without naming it."""
    return hashlib.sha256(_KEY_PREFIX + root.multihash).digest()


def hash_proof(root: Cid, handshake_hash: bytes, initiator: bool) -> bytes:
    """Return the proof of knowing a content's hash, for one side of one connection.

    Args:
        root: The content.
        handshake_hash: Of the connection's Noise handshake: a proof is worth nothing elsewhere.
        initiator: Whether the one who proves dialled the connection; the two proofs differ, so
            that none can be sent back.
    """
    role = _INITIATOR if initiator else _RESPONDER
    return hmac.digest(root.multihash, handshake_hash + role, "sha256")


class RejectReason(IntEnum):
    """Why something is not answered with what was asked for."""

    UNKNOWN_CONTENT = 0
    """Request id 0: the content, or the proof, is not known here."""
    NOT_HELD = 1
    CHOKED = 2
    TOO_MANY = 3
    """More is asked for than one peer may have waiting."""
    CANCELLED = 4
    DISK = 5
    """The piece was to be had and cannot be read any more."""


@immutable
class Hello:
    """The first frame of each side."""

    key: bytes
    proof: bytes
    features: tuple[str, ...] = ()
    pieces: int = 0
    """How many pieces the content has, as far as the sender knows: a hint."""


class BitfieldKind(IntEnum):
    """How a bitfield frame says what is held."""

    NONE = 0
    ALL = 1
    RAW = 2
    RUNS = 3


@immutable
class Bitfield:
    """What the sender holds: all, nothing, or one chunk of 64 Ki pieces."""

    kind: BitfieldKind
    chunk: int = 0
    data: bytes = b""
    """RAW: bits, the first piece in the highest bit; RUNS: varint lengths of alternating runs of
    pieces not held and held."""
    more: bool = False
    """More chunks follow; one that is left out holds nothing."""


@immutable
class BitfieldRequest:
    """Asks for one chunk of the bitfield again; answered by a Bitfield in runs or raw.

    Only to a peer that named the feature `bitfield-request`.
    """

    chunk: int


Range = tuple[int, int]
"""First piece, number of pieces."""


@immutable
class Have:
    """Pieces that the sender holds now."""

    ranges: tuple[Range, ...]


@immutable
class NotHave:
    """Pieces that the sender does not hold any more."""

    ranges: tuple[Range, ...]


@immutable
class IndexRequest:
    """Asks for index nodes; each is answered by one IndexNode."""

    cids: tuple[Cid, ...]


@immutable
class IndexNode:
    """An index node (its block trails), or word that it is missing."""

    cid: Cid
    missing: bool = False


@immutable
class Request:
    """Asks for a run of pieces; each is answered by one Piece, or the rest by one Reject."""

    id: int
    first: int
    count: int


@immutable
class Piece:
    """One piece; its bytes trail."""

    id: int
    index: int
    length: int


@immutable
class PieceRun:
    """Several pieces that follow one another, answering one request; their bytes trail.

    Only to a peer that named the feature `piece-run`.
    """

    id: int
    first: int
    lengths: tuple[int, ...]
    """Of each piece; together at most `MAX_PIECE`."""


@immutable
class Cancel:
    """The rest of a request is not wanted any more; one late piece may still come."""

    id: int


@immutable
class Reject:
    """The rest of a request will not come."""

    id: int
    reason: RejectReason


@immutable
class Choke:
    """No request is answered until Unchoke."""


@immutable
class Unchoke:
    """Requests are answered."""


Body = (
    Hello
    | Bitfield
    | Have
    | NotHave
    | IndexRequest
    | IndexNode
    | Request
    | Piece
    | PieceRun
    | Cancel
    | Reject
    | Choke
    | Unchoke
    | BitfieldRequest
)


def encode(body: Body, trailing: int = 0) -> bytes:
    """Return the frame's length and protobuf part; the caller sends `trailing` bytes behind it."""
    frame = _to_proto(body)
    if trailing:
        frame.trailing = trailing
    data = frame.SerializeToString()
    if len(data) > MAX_FRAME or trailing > MAX_TRAILING:
        raise Misuse("the frame is too long")
    return varint.encode(len(data)) + bytes(data)


def decode(data: bytes | bytearray | memoryview) -> tuple[Body | None, int]:
    """Read the protobuf part of a frame: (body, None if unknown; bytes that trail).

    Raises:
        PeerFault: It is no protobuf, or over a bound.
    """
    frame = pb.Frame()
    try:
        frame.ParseFromString(bytes(data))
    except (DecodeError, ValueError) as error:
        raise PeerFault("swarm-frame", str(error)[:200]) from error
    if frame.trailing > MAX_TRAILING:
        raise PeerFault("swarm-trailing", f"{frame.trailing} bytes")
    body = _from_proto(frame)
    match body:
        case Piece() if body.length != frame.trailing or not 0 < body.length <= MAX_PIECE:
            raise PeerFault("swarm-piece-length", f"{body.length}")
        case PieceRun() if sum(body.lengths) != frame.trailing or frame.trailing > MAX_PIECE:
            raise PeerFault("swarm-piece-length", f"{frame.trailing} in all")
        case IndexNode() if body.missing and frame.trailing:
            raise PeerFault("swarm-index-node", "missing, and yet there")
    return body, frame.trailing


def _to_proto(body: Body) -> pb.Frame:
    frame = pb.Frame()
    match body:
        case Piece():
            piece = frame.piece
            piece.id, piece.index, piece.length = body.id, body.index, body.length
        case PieceRun():
            run = frame.piece_run
            run.id, run.first = body.id, body.first
            run.lengths.extend(body.lengths)
        case Request():
            frame.request.CopyFrom(pb.Request(id=body.id, first=body.first, count=body.count))
        case Have():
            frame.have.ranges.extend(pb.Range(first=f, count=c) for f, c in body.ranges)
        case NotHave():
            frame.not_have.ranges.extend(pb.Range(first=f, count=c) for f, c in body.ranges)
        case Hello():
            hello = pb.Hello(
                key=body.key, proof=body.proof, features=body.features, pieces=body.pieces
            )
            frame.hello.CopyFrom(hello)
        case Bitfield():
            kind = pb.Bitfield.Kind.Name(int(body.kind))
            frame.bitfield.CopyFrom(
                pb.Bitfield(kind=kind, chunk=body.chunk, data=body.data, more=body.more)
            )
        case IndexRequest():
            frame.index_request.cids.extend(bytes(cid) for cid in body.cids)
        case IndexNode():
            frame.index_node.cid = bytes(body.cid)
            frame.index_node.missing = body.missing
        case Cancel():
            frame.cancel.CopyFrom(pb.Cancel(id=body.id))
        case Reject():
            frame.reject.CopyFrom(pb.Reject(id=body.id, reason=int(body.reason)))
        case Choke():
            frame.choke.SetInParent()
        case Unchoke():
            frame.unchoke.SetInParent()
        case BitfieldRequest():
            frame.bitfield_request.CopyFrom(pb.BitfieldRequest(chunk=body.chunk))
    return frame


def _from_proto(frame: pb.Frame) -> Body | None:
    match frame.WhichOneof("body"):
        case "piece":
            piece = frame.piece
            return Piece(piece.id, _index(piece.index), piece.length)
        case "piece_run":
            run = frame.piece_run
            lengths = tuple(run.lengths)
            if not (0 < len(lengths) <= MAX_RUN and min(lengths)):
                raise PeerFault("swarm-piece-run", f"{len(lengths)} pieces")
            return PieceRun(run.id, _index(run.first), lengths)
        case "request":
            request = frame.request
            if not 0 < request.count <= MAX_RUN:
                raise PeerFault("swarm-request", f"{request.count} pieces")
            return Request(request.id, _index(request.first), request.count)
        case "have":
            return Have(_ranges(frame.have.ranges))
        case "not_have":
            return NotHave(_ranges(frame.not_have.ranges))
        case "hello":
            hello = frame.hello
            if len(hello.key) != 32 or len(hello.proof) != 32:
                raise PeerFault("swarm-hello", "key and proof have 32 bytes each")
            features = tuple(name[:64] for name in hello.features[:MAX_FEATURES])
            return Hello(hello.key, hello.proof, features, min(hello.pieces, MAX_PIECES))
        case "bitfield":
            return _bitfield(frame.bitfield)
        case "index_request":
            cids = frame.index_request.cids
            if not 0 < len(cids) <= MAX_CIDS:
                raise PeerFault("swarm-index-request", f"{len(cids)} nodes")
            return IndexRequest(tuple(Cid.from_bytes(cid) for cid in cids))
        case "index_node":
            return IndexNode(Cid.from_bytes(frame.index_node.cid), frame.index_node.missing)
        case "cancel":
            return Cancel(frame.cancel.id)
        case "reject":
            try:
                reason = RejectReason(frame.reject.reason)
            except ValueError:
                reason = RejectReason.NOT_HELD  # of a later version: it will not come, either way
            return Reject(frame.reject.id, reason)
        case "choke":
            return Choke()
        case "unchoke":
            return Unchoke()
        case "bitfield_request":
            if frame.bitfield_request.chunk >= MAX_PIECES // CHUNK_BITS:
                raise PeerFault("swarm-bitfield", f"chunk {frame.bitfield_request.chunk}")
            return BitfieldRequest(frame.bitfield_request.chunk)
        case _:
            return None


def _index(index: int) -> int:
    if index >= MAX_PIECES:
        raise PeerFault("swarm-piece-index", str(index))
    return index


def _ranges(ranges: Iterable[pb.Range]) -> tuple[Range, ...]:
    found: list[Range] = []
    for item in ranges:
        if len(found) >= MAX_RANGES:
            raise PeerFault("swarm-ranges", "too many")
        if not item.count or item.first + item.count > MAX_PIECES:
            raise PeerFault("swarm-ranges", f"{item.first} + {item.count}")
        found.append((item.first, item.count))
    return tuple(found)


def _bitfield(field: pb.Bitfield) -> Bitfield:
    try:
        kind = BitfieldKind(int(field.kind))
    except ValueError as error:
        raise PeerFault("swarm-bitfield", f"kind {field.kind}") from error
    if field.chunk >= MAX_PIECES // CHUNK_BITS:
        raise PeerFault("swarm-bitfield", f"chunk {field.chunk}")
    if kind is BitfieldKind.RAW and len(field.data) > CHUNK_BITS // 8:
        raise PeerFault("swarm-bitfield", f"{len(field.data)} bytes")
    return Bitfield(kind, field.chunk, field.data, field.more)
