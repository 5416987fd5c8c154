"""AutoNAT: asking a peer to dial one of our addresses, to learn whether others can reach it.

Version 2 tests one address at a time: the server dials the first that it is willing to, from
another port than the one it listens on, and hands back a number that the client chose. If the
address is not the one that it sees the client at, the client pays first with 30 to 100 KB, so that
nobody is made to be dialled for free. Version 1 tests a peer as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from itertools import islice
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message
from multiaddr import Multiaddr

from .addresses import addrs_within, multiaddr_or_none
from .errors import Misuse, PeerFault
from .ids import PeerId
from .immutable import immutable
from .proto import shoal_autonat_pb2 as pb

M = TypeVar("M", bound=Message)

PROTOCOL_V1: Final = "/libp2p/autonat/1.0.0"
DIAL_REQUEST: Final = "/libp2p/autonat/2/dial-request"
DIAL_BACK: Final = "/libp2p/autonat/2/dial-back"

MAX_MESSAGE: Final = 8192
"""Longest message of either version in bytes (go)."""

MAX_BACK_MESSAGE: Final = 1024
"""Longest message on a dial-back stream (go)."""

MAX_ADDRS: Final = 50
"""Addresses read of one request (go); the index in an answer counts what was sent."""

MAX_ADDRS_V1: Final = 16
MAX_DATA: Final = 4096
"""Bytes in one message of paid data (specification)."""

LEAST_PRICE: Final = 30_000
MOST_PRICE: Final = 100_000
"""Bytes that a server asks for (specification); a client pays less, but not more."""

ROOM_FOR_THE_REST: Final = 128
"""Bytes of a request beside its addresses: a peer id or a nonce, tags and lengths."""

MAX_TEXT: Final = 128
"""Characters kept of a server's words."""


class ResponseStatus(IntEnum):
    """What a server of version 2 says to a request."""

    E_INTERNAL_ERROR = 0
    E_REQUEST_REJECTED = 100
    E_DIAL_REFUSED = 101
    OK = 200


class DialStatus(IntEnum):
    """What came of the dial."""

    UNUSED = 0
    E_DIAL_ERROR = 100
    E_DIAL_BACK_ERROR = 101
    OK = 200


class StatusV1(IntEnum):
    """What a server of version 1 says."""

    OK = 0
    E_DIAL_ERROR = 100
    E_DIAL_REFUSED = 101
    E_BAD_REQUEST = 200
    E_INTERNAL_ERROR = 300


# Version 2


@immutable
class DialRequest:
    """Please dial the first of these that you are willing to."""

    addrs: tuple[Multiaddr | None, ...]
    """In order of interest; as read, None stands for an address of a kind that we do not know."""
    nonce: int
    """64 bits that the dial has to bring back."""


@immutable
class DialResponse:
    """What the server did; numbers that are none of ours are kept."""

    status: int
    index: int = 0
    """Which address, if `status` is OK."""
    dial_status: int = DialStatus.UNUSED


@immutable
class DataRequest:
    """Send so many bytes before I dial the address at this index."""

    index: int
    count: int


@immutable
class DataPart:
    """A part of what was asked for; only its length counts."""

    length: int


MessageV2 = DialRequest | DialResponse | DataRequest | DataPart


def encode_v2(body: MessageV2) -> bytes:
    """Return a message of a dial-request stream."""
    message = pb.V2()
    match body:
        case DialRequest(addrs, nonce):
            message.dialRequest.nonce = nonce
            if None in addrs:
                raise Misuse("an unknown address cannot be asked for")
            known = (addr for addr in addrs if addr is not None)
            room = MAX_MESSAGE - ROOM_FOR_THE_REST
            message.dialRequest.addrs.extend(addrs_within(known, MAX_ADDRS, room))
        case DialResponse(status, index, dial_status):
            message.dialResponse.status = status
            message.dialResponse.addrIdx = index
            message.dialResponse.dialStatus = dial_status
        case DataRequest(index, count):
            message.dialDataRequest.addrIdx = index
            message.dialDataRequest.numBytes = count
        case DataPart(length):
            if length > MAX_DATA:
                raise Misuse(f"{length} bytes in one message")
            message.dialDataResponse.data = bytes(length)
    return bytes(message.SerializeToString())


def decode_v2(data: bytes) -> MessageV2:
    """Read a message of a dial-request stream.

    Raises:
        PeerFault: It is over 8 KiB, malformed, or none of the four kinds; it asks for nothing
            or more than 100 000 bytes, or brings more than 4096 at once.
    """
    message = _parsed(pb.V2(), data, MAX_MESSAGE)
    match message.WhichOneof("msg"):
        case "dialRequest":
            addrs = tuple(map(multiaddr_or_none, islice(message.dialRequest.addrs, MAX_ADDRS)))
            return DialRequest(addrs, message.dialRequest.nonce)
        case "dialResponse":
            its = message.dialResponse
            return DialResponse(its.status, its.addrIdx, its.dialStatus)
        case "dialDataRequest":
            count = message.dialDataRequest.numBytes
            if not 0 < count <= MOST_PRICE:
                raise PeerFault("autonat", f"it asks for {count} bytes")
            return DataRequest(message.dialDataRequest.addrIdx, count)
        case "dialDataResponse":
            length = len(message.dialDataResponse.data)
            if not 0 < length <= MAX_DATA:
                raise PeerFault("autonat", f"{length} bytes of data at once")
            return DataPart(length)
    raise PeerFault("autonat", "an empty message")


def encode_back(nonce: int) -> bytes:
    """Return what the server says on the connection that it dialled."""
    return bytes(pb.DialBack(nonce=nonce).SerializeToString())


def decode_back(data: bytes) -> int:
    """Return the nonce that a dialled-back connection brings.

    Raises:
        PeerFault: There is none.
    """
    message = _parsed(pb.DialBack(), data, MAX_BACK_MESSAGE)
    if not message.HasField("nonce"):
        raise PeerFault("autonat", "a dial-back without a nonce")
    return int(message.nonce)


def encode_back_answer() -> bytes:
    """Return the client's answer to a dial-back: the connection has arrived."""
    return bytes(pb.DialBackResponse(status=0).SerializeToString())


def decode_back_answer(data: bytes) -> bool:
    """Return whether the client took the nonce; PeerFault if that is no answer."""
    return int(_parsed(pb.DialBackResponse(), data, MAX_BACK_MESSAGE).status) == 0


# Version 1


@immutable
class DialV1:
    """Please dial me at one of these."""

    peer: PeerId
    addrs: tuple[Multiaddr, ...]


@immutable
class AnswerV1:
    """What came of it."""

    status: int
    text: str = ""
    addr: Multiaddr | None = None
    """The address at which the dial worked."""


def encode_v1(body: DialV1 | AnswerV1) -> bytes:
    """Return a message of version 1."""
    message = pb.V1()
    match body:
        case DialV1(peer, addrs):
            message.type = 0
            message.dial.peer.id = peer.raw
            room = MAX_MESSAGE - ROOM_FOR_THE_REST
            message.dial.peer.addrs.extend(addrs_within(addrs, MAX_ADDRS_V1, room))
        case AnswerV1(status, text, addr):
            message.type = 1
            message.dialResponse.status = status
            if text:
                message.dialResponse.statusText = text[:MAX_TEXT].encode()
            if addr is not None:
                message.dialResponse.addr = addr.to_bytes()
    return bytes(message.SerializeToString())


def decode_v1(data: bytes) -> DialV1 | AnswerV1:
    """Read a message of version 1.

    Raises:
        PeerFault: It is over 8 KiB, malformed, or lacks what its kind needs.
    """
    message = _parsed(pb.V1(), data, MAX_MESSAGE)
    if message.type == 0 and message.HasField("dial"):
        peer = PeerId.from_bytes(message.dial.peer.id)
        found = map(multiaddr_or_none, islice(message.dial.peer.addrs, MAX_ADDRS))
        return DialV1(peer, _known(found)[:MAX_ADDRS_V1])
    if message.type == 1 and message.HasField("dialResponse"):
        answer = message.dialResponse
        text = answer.statusText[: 4 * MAX_TEXT].decode(errors="replace")
        printable = "".join(c for c in text if c.isprintable())[:MAX_TEXT]
        return AnswerV1(answer.status, printable, multiaddr_or_none(answer.addr))
    raise PeerFault("autonat", f"a message of type {message.type}, or an empty one")


def _known(addrs: Iterable[Multiaddr | None]) -> tuple[Multiaddr, ...]:
    return tuple(dict.fromkeys(addr for addr in addrs if addr is not None))


def _parsed(message: M, data: bytes, limit: int) -> M:
    if len(data) > limit:
        raise PeerFault("autonat", "too long")
    try:
        message.ParseFromString(bytes(data))
    except DecodeError as error:
        raise PeerFault("autonat", str(error)[:200]) from error
    return message
