"""Circuit relay v2: what is said to a relay, by a relay, and of a place at one.

A peer that nobody can dial reserves a place at a relay (hop: RESERVE) and tells others the relayed
address `/<relay's address>/p2p/<relay>/p2p-circuit`. Who dials it asks the relay (hop: CONNECT),
which asks the peer (stop: CONNECT); after two OKs the two streams are one pipe, in which the ends
make a connection as over any other transport. Numbers are those of the specification.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from itertools import islice
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message
from multiaddr import Multiaddr

from .addresses import addrs_within, multiaddr_or_none
from .envelope import Envelope
from .errors import Misuse, PeerFault
from .ids import PeerId
from .immutable import immutable
from .keys import PrivateKey
from .proto import shoal_circuit_pb2 as pb

M = TypeVar("M", bound=Message)

HOP: Final = "/libp2p/circuit/relay/0.2.0/hop"
"""Spoken to a relay."""

STOP: Final = "/libp2p/circuit/relay/0.2.0/stop"
"""Spoken by a relay to the peer that reserved."""

MAX_MESSAGE: Final = 4096
"""Longest message in bytes (specification)."""

ROOM_FOR_THE_REST: Final = 256
"""Bytes of a message beside the addresses and the voucher: a peer id and some numbers."""

MAX_ADDRS: Final = 16
"""Addresses kept of one message; a relay has a few of its own."""

VOUCHER_DOMAIN: Final = b"libp2p-relay-rsvp"
VOUCHER_TYPE: Final = b"\x03\x02"

MAX_TIME: Final = (1 << 63) - 1
"""Latest Unix time in seconds that is taken for one."""


class HopType(IntEnum):
    """Kinds of hop messages."""

    RESERVE = 0
    CONNECT = 1
    STATUS = 2


class StopType(IntEnum):
    """Kinds of stop messages."""

    CONNECT = 0
    STATUS = 1


class Status(IntEnum):
    """What a relay or a peer answers."""

    UNUSED = 0
    OK = 100
    RESERVATION_REFUSED = 200
    RESOURCE_LIMIT_EXCEEDED = 201
    PERMISSION_DENIED = 202
    CONNECTION_FAILED = 203
    NO_RESERVATION = 204
    MALFORMED_MESSAGE = 400
    UNEXPECTED_MESSAGE = 401


K = TypeVar("K", HopType, StopType)


@immutable
class Limit:
    """What a relayed connection may carry; None = no end."""

    seconds: int | None = None
    bytes_each_way: int | None = None


@immutable
class Reservation:
    """A place at a relay."""

    expires: int
    """Unix time in seconds."""
    addrs: tuple[Multiaddr, ...] = ()
    """The relay's addresses, with its peer id, without `/p2p-circuit`."""
    voucher: bytes | None = None
    """A signed envelope (`Voucher`), unchecked."""


@immutable
class HopMessage:
    """One message on a stream to a relay; what its kind does not need is None."""

    type: HopType
    peer: PeerId | None = None
    """CONNECT: whom to reach."""
    reservation: Reservation | None = None
    limit: Limit | None = None
    """STATUS: None = the relay sets no limit."""
    status: int | None = None
    """STATUS: one of `Status`, or a number that we do not know."""

    def encode(self) -> bytes:
        """Return the message, with as many of a reservation's addresses as fit.

        Raises:
            Misuse: The voucher is too long.
        """
        message = pb.Hop(type=self.type)
        if self.peer is not None:
            message.peer.id = self.peer.raw
        if self.reservation is not None:
            message.reservation.expire = self.reservation.expires
            room = MAX_MESSAGE - ROOM_FOR_THE_REST - len(self.reservation.voucher or b"")
            message.reservation.addrs.extend(addrs_within(self.reservation.addrs, MAX_ADDRS, room))
            if self.reservation.voucher is not None:
                message.reservation.voucher = self.reservation.voucher
        _put_limit(message, self.limit)
        if self.status is not None:
            message.status = self.status
        data = bytes(message.SerializeToString())
        if len(data) > MAX_MESSAGE:
            raise Misuse(f"a relay message of {len(data)} bytes")
        return data

    @classmethod
    def decode(cls, data: bytes) -> HopMessage:
        """Read a message.

        Raises:
            PeerFault: It is over 4 KiB or malformed, of an unknown kind, or lacks what its kind
                needs.
        """
        message = _parsed(pb.Hop(), data)
        kind = _kind(HopType, message)
        peer = _peer(message)
        if kind is HopType.CONNECT and peer is None:
            raise PeerFault("relay", "CONNECT to nobody")
        if kind is HopType.STATUS and not message.HasField("status"):
            raise PeerFault("relay", "STATUS without one")
        reservation = None
        if message.HasField("reservation"):
            its = message.reservation
            reservation = Reservation(
                min(its.expire, MAX_TIME),
                _addrs(its.addrs),
                its.voucher if its.HasField("voucher") else None,
            )
        status = message.status if message.HasField("status") else None
        return cls(kind, peer, reservation, _limit(message), status)


@immutable
class StopMessage:
    """One message on a stream from a relay."""

    type: StopType
    peer: PeerId | None = None
    """CONNECT: who wants to reach us."""
    limit: Limit | None = None
    status: int | None = None

    def encode(self) -> bytes:
        """Return the message."""
        message = pb.Stop(type=self.type)
        if self.peer is not None:
            message.peer.id = self.peer.raw
        _put_limit(message, self.limit)
        if self.status is not None:
            message.status = self.status
        return bytes(message.SerializeToString())

    @classmethod
    def decode(cls, data: bytes) -> StopMessage:
        """Read a message.

        Raises:
            PeerFault: As for `HopMessage.decode`.
        """
        message = _parsed(pb.Stop(), data)
        kind = _kind(StopType, message)
        peer = _peer(message)
        if kind is StopType.CONNECT and peer is None:
            raise PeerFault("relay", "CONNECT from nobody")
        if kind is StopType.STATUS and not message.HasField("status"):
            raise PeerFault("relay", "STATUS without one")
        status = message.status if message.HasField("status") else None
        return cls(kind, peer, _limit(message), status)


@immutable
class Voucher:
    """A relay's word that a peer has a place with it, for others to check."""

    relay: PeerId
    peer: PeerId
    expires: int
    """Unix time in seconds."""

    def seal(self, key: PrivateKey) -> bytes:
        """Return the envelope, signed by the relay's key."""
        message = pb.Voucher(relay=self.relay.raw, peer=self.peer.raw, expiration=self.expires)
        payload = bytes(message.SerializeToString())
        return Envelope.seal(key, VOUCHER_DOMAIN, VOUCHER_TYPE, payload).encode()

    @classmethod
    def open(cls, data: bytes, *, relay: PeerId, peer: PeerId, now: float) -> Voucher:
        """Check an envelope and return what it says.

        Raises:
            PeerFault: It was not signed by this relay, is for another peer, or is over.
        """
        envelope = Envelope.decode(data)
        payload = envelope.open(VOUCHER_DOMAIN, VOUCHER_TYPE)
        message = _parsed(pb.Voucher(), payload)
        found = cls(
            PeerId.from_bytes(message.relay),
            PeerId.from_bytes(message.peer),
            min(message.expiration, MAX_TIME),
        )
        if envelope.public_key.peer_id != relay or found.relay != relay:
            raise PeerFault("relay-voucher", "of another relay")
        if found.peer != peer:
            raise PeerFault("relay-voucher", "for another peer")
        if found.expires <= now:
            raise PeerFault("relay-voucher", "it is over")
        return found


def _parsed(message: M, data: bytes) -> M:
    if len(data) > MAX_MESSAGE:
        raise PeerFault("relay", "too long")
    try:
        message.ParseFromString(bytes(data))
    except DecodeError as error:
        raise PeerFault("relay", str(error)[:200]) from error
    return message


def _kind(kinds: type[K], message: pb.Hop | pb.Stop) -> K:
    if not message.HasField("type"):
        raise PeerFault("relay", "a message without a type")
    try:
        return kinds(message.type)
    except ValueError as error:
        raise PeerFault("relay", f"a message of type {message.type}") from error


def _peer(message: pb.Hop | pb.Stop) -> PeerId | None:
    return PeerId.from_bytes(message.peer.id) if message.HasField("peer") else None


def _put_limit(message: pb.Hop | pb.Stop, limit: Limit | None) -> None:
    if limit is None:
        return
    message.limit.SetInParent()
    if limit.seconds is not None:
        message.limit.duration = limit.seconds
    if limit.bytes_each_way is not None:
        message.limit.data = limit.bytes_each_way


def _limit(message: pb.Hop | pb.Stop) -> Limit | None:
    """Return the limit; 0 stands for none, as in all implementations."""
    if not message.HasField("limit"):
        return None
    found = Limit(message.limit.duration or None, message.limit.data or None)
    return found if found != Limit() else None


def _addrs(items: Iterable[bytes]) -> tuple[Multiaddr, ...]:
    found = (multiaddr_or_none(data) for data in islice(items, 4 * MAX_ADDRS))
    return tuple(dict.fromkeys(addr for addr in found if addr is not None))[:MAX_ADDRS]
