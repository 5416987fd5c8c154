from __future__ import annotations

import ipaddress
import struct
from collections import Counter
from collections.abc import Callable

import pytest
import trio

from shoal.node.nat.portmap.door import (
    Datagrams,
    Igd,
    IgdEntry,
    IgdError,
    IgdMissing,
    Route,
)
from shoal.wire.scopes import IpAddress

OURS = ipaddress.ip_address("192.168.1.2")
GATEWAY = ipaddress.ip_address("192.168.1.1")


class FakeSocket:
    """One socket of ours, beside a router that answers at once."""

    def __init__(self, take: Callable[[bytes], list[tuple[bytes, IpAddress]]] | None) -> None:
        self.take = take
        self.closed = False
        self.say, self._heard = trio.open_memory_channel[tuple[bytes, tuple[IpAddress, int]]](9999)

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        assert self.take is not None
        for reply, source in self.take(data):
            self.say.send_nowait((reply, (source, 5351)))

    async def receive(self) -> tuple[bytes, tuple[IpAddress, int]]:
        return await self._heard.receive()

    def close(self) -> None:
        self.closed = True


class FakeRouter:
    """A router with a table, of which every manner can be changed."""

    def __init__(self) -> None:
        self.way: dict[int, Route | None] = {4: Route(OURS, GATEWAY), 6: None}
        self.pcp = self.nat_pmp = True
        self.upnp: FakeIgd | None = None
        self.upnp_missing = False
        self.external_ip = "5.6.7.8"
        self.life = 7200
        self.result = 0
        self.error_life = 60
        self.lie: Callable[[bytes], bytes] = lambda reply: reply
        self.source: IpAddress = GATEWAY
        self.flood = 0
        """Copies of each reply beyond the first."""
        self.born = trio.current_time() - 5000
        self.table: dict[int, tuple[int, float]] = {}
        """{external port: (internal port, until)}"""
        self.asked: Counter[str] = Counter()
        self.sockets: list[FakeSocket] = []
        self.ears: list[FakeSocket] = []

    @property
    def epoch(self) -> int:
        return int(trio.current_time() - self.born)

    def restart(self) -> None:
        self.born = trio.current_time()
        self.table.clear()

    def announce(self, data: bytes, source: IpAddress = GATEWAY) -> None:
        for ear in self.ears:
            ear.say.send_nowait((data, (source, 5351)))

    # The door

    def route(self, version: int) -> Route | None:
        return self.way[version]

    async def open(self, route: Route) -> Datagrams:
        await trio.lowlevel.checkpoint()
        self.sockets.append(FakeSocket(self._take))
        return self.sockets[-1]

    async def announcements(self, version: int) -> Datagrams:
        await trio.lowlevel.checkpoint()
        self.ears.append(FakeSocket(None))
        return self.ears[-1]

    async def find_igd(self, source: IpAddress) -> Igd:
        await trio.sleep(2)
        if self.upnp_missing:
            raise IgdMissing("UPnP is not built in: install shoal[upnp]")
        if self.upnp is None:
            raise IgdError("no device answered")
        return self.upnp

    # The protocols

    def _take(self, data: bytes) -> list[tuple[bytes, IpAddress]]:
        if data[0] == 2:
            self.asked["pcp"] += 1
            reply = self._pcp(data) if self.pcp else None
        else:
            self.asked["nat-pmp"] += 1
            reply = self._nat_pmp(data) if self.nat_pmp else None
        return [] if reply is None else [(self.lie(reply), self.source)] * (1 + self.flood)

    def _map(self, internal: int, external: int, life: int) -> tuple[int, int]:
        """Change the table; return (external port, life)."""
        if life == 0:
            self.asked["delete"] += 1
            self.table = {e: v for e, v in self.table.items() if v[0] != internal}
            return 0, 0
        self.asked["map"] += 1
        while self.table.get(external, (internal, 0))[0] != internal:
            external += 1
        life = min(life, self.life)
        self.table[external] = internal, trio.current_time() + life
        return external, life

    def _pcp(self, data: bytes) -> bytes:
        head = struct.pack(">BBBBII12x", 2, data[1] | 0x80, 0, 0, 0, self.epoch)
        if data[1] == 0:
            return head
        life, internal = int.from_bytes(data[4:8], "big"), int.from_bytes(data[40:42], "big")
        if self.result and life:
            refusal = struct.pack(
                ">BBBBII12x", 2, 0x81, 0, self.result, self.error_life, self.epoch
            )
            return refusal + data[24:]
        external, life = self._map(internal, int.from_bytes(data[42:44], "big"), life)
        head = struct.pack(">BBBBII12x", 2, 0x81, 0, 0, life, self.epoch)
        outside = ipaddress.ip_address(self.external_ip)
        ip = outside.packed if outside.version == 6 else bytes(10) + b"\xff\xff" + outside.packed
        return head + data[24:42] + external.to_bytes(2, "big") + ip

    def told(self) -> bytes:
        ip = ipaddress.ip_address(self.external_ip).packed
        return struct.pack(">BBHI", 0, 0x80, 0, self.epoch) + ip

    def _nat_pmp(self, data: bytes) -> bytes:
        if data[1] == 0:
            return self.told()
        internal, external, life = struct.unpack_from(">HHI", data, 4)
        if self.result and life:
            return struct.pack(">BBHI", 0, 0x82, self.result, self.epoch) + data[4:]
        external, life = self._map(internal, external, life)
        return struct.pack(">BBHIHHI", 0, 0x82, 0, self.epoch, internal, external, life)


class FakeIgd:
    """A router that speaks UPnP."""

    def __init__(self) -> None:
        self.host = str(GATEWAY)
        self.our_ip = str(OURS)
        self.outside = "5.6.7.8"
        self.table: dict[int, tuple[str, int, int]] = {}
        """{external port: (host, port, lease)}"""
        self.permanent_only = False
        self.hides = False
        """Refuse ports in use, but do not show what is there."""
        self.refuses = ""
        self.hangs = False
        self.calls = 0

    async def _called(self) -> None:
        self.calls += 1
        await trio.sleep(5 if self.hangs else 0.02)
        if self.hangs:
            raise IgdError("no answer in time")

    async def external_ip(self) -> str:
        await self._called()
        return self.outside

    async def entry(self, external_port: int) -> IgdEntry | None:
        await self._called()
        if self.hides or external_port not in self.table:
            raise IgdError("NoSuchEntryInArray")
        return IgdEntry(*self.table[external_port][:2])

    async def add(self, external_port: int, internal_port: int, lease: int) -> None:
        await self._called()
        if self.refuses:
            raise IgdError(self.refuses)
        if self.permanent_only and lease:
            raise IgdError("OnlyPermanentLeasesSupported")
        if self.table.get(external_port, (self.our_ip,))[0] != self.our_ip:
            raise IgdError("ConflictInMappingEntry")
        self.table[external_port] = self.our_ip, internal_port, lease

    async def remove(self, external_port: int) -> None:
        await self._called()
        del self.table[external_port]


@pytest.fixture
async def router(autojump_clock: object) -> FakeRouter:
    return FakeRouter()


@pytest.fixture
def igd() -> FakeIgd:
    return FakeIgd()
