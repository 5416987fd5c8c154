"""Hole punching: how two peers that talk over a relay agree to dial each other at one moment.

Whoever *received* the relayed connection invites: it sends CONNECT with its addresses, gets CONNECT
with the other's, and takes the time between as the round trip. It sends SYNC, and dials when half a
round trip has passed; the other dials when SYNC comes. So both first packets are under way at the
same time, and each opens its NAT for the other. On what comes of it, the one that was invited is
the client of every later negotiation, whoever connected (libp2p DCUtR specification).

Each attempt is one stream with one `Inviter` and one `Invited`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from itertools import islice
from typing import Final

from google.protobuf.message import DecodeError
from multiaddr import Multiaddr

from .addresses import (
    Scope,
    addrs_within,
    is_relayed,
    multiaddr_or_none,
    scope_of,
    without_peer,
)
from .errors import Misuse, PeerFault
from .immutable import immutable
from .proto import shoal_dcutr_pb2 as pb

PROTOCOL: Final = "/libp2p/dcutr"

MAX_MESSAGE: Final = 4096
"""Longest message in bytes (specification)."""

MAX_ADDRS: Final = 16
"""Addresses told and kept: each one kept is dialled."""

MAX_ADDRS_READ: Final = 64
"""Addresses looked at in one message."""

ATTEMPTS: Final = 3
"""Attempts after which a pair of NATs counts as one that cannot be passed (specification)."""

MAX_ROUND_TRIP: Final = 10.0
"""Seconds; a peer that takes longer to answer cannot make us wait for half of it."""


class PunchType(IntEnum):
    """Kinds of messages."""

    CONNECT = 100
    SYNC = 300


@immutable
class PunchMessage:
    """One message; SYNC has no addresses."""

    type: PunchType
    addrs: tuple[Multiaddr, ...] = ()

    def encode(self) -> bytes:
        """Return the message, with at most 16 addresses, and no more than fit."""
        addrs = addrs_within(self.addrs, MAX_ADDRS, MAX_MESSAGE - 8)
        return bytes(pb.HolePunch(type=self.type, ObsAddrs=addrs).SerializeToString())

    @classmethod
    def decode(cls, data: bytes, *, scope: Scope = Scope.GLOBAL) -> PunchMessage:
        """Read a message.

        Args:
            data: Its bytes.
            scope: Addresses of a narrower scope are left out: a peer at the other end of a relay
                must not make us dial into our own network.

        Raises:
            PeerFault: It is over 4 KiB, malformed, or of another kind.
        """
        if len(data) > MAX_MESSAGE:
            raise PeerFault("punch", "too long")
        message = pb.HolePunch()
        try:
            message.ParseFromString(bytes(data))
        except DecodeError as error:
            raise PeerFault("punch", str(error)[:200]) from error
        try:
            kind = PunchType(message.type)
        except ValueError as error:
            raise PeerFault("punch", f"a message of type {message.type}") from error
        return cls(kind, _addrs(message.ObsAddrs, scope))


@immutable
class Dial:
    """Dial these addresses of the other, from the port that we listen on."""

    addrs: tuple[Multiaddr, ...]
    at: float
    """When to begin, by the clock that `now` came from."""
    as_client: bool
    """Whether we are the client of what comes of it, whoever connected."""


class Inviter:
    """The side that received the relayed connection.

    Args:
        addrs: Our addresses as others see them; relayed ones and those of a narrower scope are
            not told.
        scope: Which addresses are told and taken.
    """

    def __init__(self, addrs: Iterable[Multiaddr], scope: Scope = Scope.GLOBAL) -> None:
        self._addrs = punchable(addrs, scope)
        self._scope = scope
        self._sent_at: float | None = None
        self._over = False

    def start(self, now: float) -> bytes:
        """Return the first message; `now` is when it is sent, in seconds."""
        if self._sent_at is not None:
            raise Misuse("an attempt starts once")
        self._sent_at = now
        return PunchMessage(PunchType.CONNECT, self._addrs).encode()

    def receive(self, data: bytes, now: float) -> tuple[bytes, Dial]:
        """Take the answer; return what to send at once, and what to dial.

        Raises:
            PeerFault: It is no CONNECT, comes when nothing is awaited, or too late.
        """
        if self._sent_at is None or self._over:
            raise PeerFault("punch-order", "nothing was asked")
        self._over = True
        message = PunchMessage.decode(data, scope=self._scope)
        if message.type is not PunchType.CONNECT:
            raise PeerFault("punch-order", "SYNC instead of CONNECT")
        round_trip = now - self._sent_at
        if round_trip > MAX_ROUND_TRIP:
            raise PeerFault("punch-late", f"after {round_trip:.0f} s")
        dial = Dial(message.addrs, now + max(0.0, round_trip) / 2, as_client=False)
        return PunchMessage(PunchType.SYNC).encode(), dial


class Invited:
    """The side that dialled the relayed connection (arguments as for `Inviter`)."""

    def __init__(self, addrs: Iterable[Multiaddr], scope: Scope = Scope.GLOBAL) -> None:
        self._addrs = punchable(addrs, scope)
        self._scope = scope
        self._theirs: tuple[Multiaddr, ...] | None = None
        self._over = False

    @property
    def addrs(self) -> tuple[Multiaddr, ...]:
        """The other's addresses, once they have come."""
        return self._theirs or ()

    def receive(self, data: bytes, now: float) -> bytes | Dial:
        """Take a message; return what to send, or at last what to dial at once.

        Raises:
            PeerFault: Messages in another order than CONNECT, SYNC.
        """
        over, self._over = self._over, True  # whatever else happens, a fault ends the attempt
        message = PunchMessage.decode(data, scope=self._scope)
        wanted = PunchType.CONNECT if self._theirs is None else PunchType.SYNC
        if over or message.type is not wanted:
            raise PeerFault("punch-order", f"{message.type.name} out of turn")
        if self._theirs is None:
            self._theirs = message.addrs
            self._over = False
            return PunchMessage(PunchType.CONNECT, self._addrs).encode()
        return Dial(self._theirs, now, as_client=True)


def punchable(addrs: Iterable[Multiaddr], scope: Scope = Scope.GLOBAL) -> tuple[Multiaddr, ...]:
    """Return the addresses that may be told to be dialled: none relayed, none of narrower scope."""
    plain = (without_peer(addr) for addr in addrs if not is_relayed(addr))
    fitting = (addr for addr in plain if (its := scope_of(addr)) is not None and its >= scope)
    return tuple(dict.fromkeys(fitting))[:MAX_ADDRS]


def _addrs(items: Iterable[bytes], scope: Scope) -> tuple[Multiaddr, ...]:
    found = map(multiaddr_or_none, islice(items, MAX_ADDRS_READ))
    return punchable((addr for addr in found if addr is not None), scope)
