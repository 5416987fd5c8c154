"""Our side of relays: reserving a place, being reached through it, and reaching others."""

from __future__ import annotations

from collections.abc import Iterable

import trio
from multiaddr import Multiaddr

from ...wire.addresses import (
    Scope,
    acceptable,
    ip_of,
    is_relayed,
    peer_of,
    split_relayed,
    with_peer,
)
from ...wire.circuit import (
    HOP,
    MAX_MESSAGE,
    STOP,
    HopMessage,
    HopType,
    Reservation,
    Status,
    StopMessage,
    StopType,
    Voucher,
)
from ...wire.errors import PeerFault
from ...wire.ids import PeerId
from ..net.connection import Connection
from ..net.errors import NetError, StreamRefused
from ..net.host import Host
from ..net.paths import Path
from ..net.stream import Stream
from .circuit import CircuitStream, read_message, send_message

RESERVE_SECONDS = 10.0
"""For a relay's answer to a reservation."""

CIRCUIT_SECONDS = 30.0
"""For a circuit to be made: the relay has to ask the peer (go)."""

MAX_CIRCUITS_IN = 32
"""Circuits over one relay that others may have open to us."""

MAX_RELAY_ADDRS = 4
"""Addresses of one relay that we tell to others."""

LEAST_SECONDS = 60.0
"""A reservation for less than this is none."""

MOST_SECONDS = 24 * 3600.0
"""A relay cannot bind us for longer."""


class RelayRefused(NetError):
    """A relay does not do what we asked for; the text says why."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


WHY = {
    Status.RESERVATION_REFUSED: "it has no place free",
    Status.RESOURCE_LIMIT_EXCEEDED: "its circuits, or its bytes of the day, are used up",
    Status.PERMISSION_DENIED: "it does not serve us: its owner has to name this node a member",
    Status.CONNECTION_FAILED: "it could not reach the peer",
    Status.NO_RESERVATION: "the peer has no place there",
    Status.MALFORMED_MESSAGE: "it did not understand us",
    Status.UNEXPECTED_MESSAGE: "it expected something else",
}


class RelayClient:
    """Dials through relays (`net.making.Circuits`), and takes what comes through ours.

    Args:
        host: Whose connections these are.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self.places: dict[PeerId, Reservation] = {}
        """Relays at which we have a place; kept by `relay_keeper.py`, which bounds it."""
        host.maker.circuits = self
        host.handle(STOP, self._stop, max_inbound=MAX_CIRCUITS_IN)

    async def dial(self, addr: Multiaddr, target: PeerId) -> CircuitStream:
        """Reach a peer at a relayed address (see `net.making.Circuits.dial`)."""
        parts = split_relayed(addr)
        if parts is None or parts[2] not in (None, target):
            raise StreamRefused(f"{addr} does not lead to {target} over one relay")
        place, relay, _ = parts
        if relay == target:
            raise StreamRefused("a relay is not reached over itself")
        # Whatever leads to the relay, it must not be another relay: no chains, no loops.
        connection = await self._host.connect(relay, [place], better=Path.RELAYED)
        with trio.fail_after(CIRCUIT_SECONDS):
            stream = await connection.open_stream([HOP], lazy=True)
            try:
                asked = HopMessage(HopType.CONNECT, target)
                answer = await self._ask(stream, asked)
            except BaseException as error:
                stream.reset("no circuit")
                if isinstance(error, PeerFault):
                    connection.count(error)
                raise
        return CircuitStream(stream, limited=answer.limit is not None)

    async def reserve(self, connection: Connection) -> tuple[Reservation, bool]:
        """Ask a relay for a place, or for more time; return it, and whether it carries content.

        Raises:
            NetError, PeerFault, trio.TooSlowError: It gives none, or breaks a rule.
        """
        with trio.fail_after(RESERVE_SECONDS):
            async with await connection.open_stream([HOP], lazy=True) as stream:
                answer = await self._ask(stream, HopMessage(HopType.RESERVE))
        given = answer.reservation
        relay, now = connection.peer_id, self._host.environment.clock.now()
        if given is None or given.expires < now + LEAST_SECONDS:
            raise PeerFault("relay-reservation", "none, or too short")
        if given.voucher is not None:
            Voucher.open(given.voucher, relay=relay, peer=self._host.peer_id, now=now)
        expires = int(min(given.expires, now + MOST_SECONDS))
        kept = Reservation(expires, tuple(self._addrs(connection, given.addrs)), given.voucher)
        return kept, answer.limit is None

    def _addrs(self, connection: Connection, told: Iterable[Multiaddr]) -> list[Multiaddr]:
        """Return at most four addresses of the relay, ending in its id: the one we use first.

        All who want to reach us will dial them, so of a relay on the internet only the IP at which
        we found it counts, and that of the other family, which we cannot check.
        """
        relay, here = connection.peer_id, ip_of(connection.remote)
        addrs = [connection.remote] if connection.direction == "out" else []
        for addr in told:
            mine = peer_of(addr) in (None, relay) and not is_relayed(addr)
            if connection.scope is Scope.GLOBAL and here is not None:
                ip = ip_of(addr)
                mine = mine and ip is not None and (ip == here or ip.version != here.version)
            if mine and acceptable(addr, connection.scope):
                addrs.append(addr)
        return list(dict.fromkeys(with_peer(addr, relay) for addr in addrs))[:MAX_RELAY_ADDRS]

    async def _ask(self, stream: Stream, message: HopMessage) -> HopMessage:
        """Send a message; return the answer if it is OK."""
        try:
            await send_message(stream, message.encode())
            answer = HopMessage.decode(await read_message(stream, MAX_MESSAGE))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise StreamRefused(f"the relay broke off: {error}") from error
        if answer.type is not HopType.STATUS or answer.status is None:
            raise PeerFault("relay", "no answer but another request")
        if answer.status != Status.OK:
            relay = stream.connection.peer_id
            why = WHY.get(Status(answer.status)) if answer.status in list(Status) else None
            raise RelayRefused(f"relay {relay}: {why or f'status {answer.status}'}", answer.status)
        return answer

    async def _stop(self, stream: Stream) -> None:
        """Take a circuit that a relay offers, as long as it lives."""
        connection = stream.connection
        with trio.fail_after(RESERVE_SECONDS):
            message = StopMessage.decode(await read_message(stream, MAX_MESSAGE))
            if message.type is not StopType.CONNECT or message.peer is None:
                raise PeerFault("relay", "no CONNECT")
            if connection.peer_id not in self.places or connection.path is Path.RELAYED:
                # Counted, but no fault: a relay may not know yet that we have left our place.
                self._host.faults["relay-unasked"] += 1
                refusal = StopMessage(StopType.STATUS, status=Status.PERMISSION_DENIED)
                await send_message(stream, refusal.encode())
                return
            await send_message(stream, StopMessage(StopType.STATUS, status=Status.OK).encode())
        circuit = CircuitStream(stream, limited=message.limit is not None)
        try:
            made = await self._host.maker.admit(
                circuit, message.peer, initiator=False, limited=circuit.limited
            )
        # Cancelled, too, and it goes on outwards:
        except BaseException:
            stream.reset("no connection")  # not half of it only: the relay has few circuits
            raise
        await made.wait_closed()
