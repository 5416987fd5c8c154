"""Ports are kept open through routers of all manners, in virtual time."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import pytest
import trio

from shoal.node.environment import Environment
from shoal.node.nat.portmap.door import Route
from shoal.node.nat.portmap.mapper import PortMapper
from shoal.node.nat.portmap.state import PortMapState
from shoal.simulations.home_router import HomeIgd, HomeRouter

PORT = 4071
GATEWAY = ipaddress.ip_address("192.168.1.1")
OURS = ipaddress.ip_address("192.168.1.2")
PUBLIC = f"/ip4/5.6.7.8/tcp/{PORT}"


@dataclass
class Chance:
    drawn: int = 0

    def stream(self, name: str) -> random.Random:
        return random.Random(name)

    def secret(self, count: int) -> bytes:
        self.drawn += 1
        return self.drawn.to_bytes(count, "big") if count else b""


class UnixClock:
    def now(self) -> float:
        return 1e9 + trio.current_time()


@dataclass
class Inner:
    """What stands in for an environment: port mapping uses two of its doors."""

    random: Chance = field(default_factory=Chance)
    clock: UnixClock = field(default_factory=UnixClock)


@dataclass
class Run:
    mapper: PortMapper
    states: list[PortMapState]
    cancel: trio.CancelScope

    @property
    def addrs(self) -> list[str]:
        return [str(addr) for addr in self.mapper.state.external_addrs]

    @property
    def verdicts(self) -> dict[str, str]:
        return {v.protocol: v.sentence for v in self.mapper.state.verdicts}

    @property
    def working(self) -> list[str]:
        return [v.protocol for v in self.mapper.state.verdicts if v.works]


@pytest.fixture
async def router(autojump_clock: object) -> HomeRouter:
    """A router; the test must ask for `autojump_clock` as well."""
    return HomeRouter()


@pytest.fixture
def igd() -> HomeIgd:
    return HomeIgd()


@asynccontextmanager
async def mapping(
    router: HomeRouter, *ports: int, pinholes: tuple[int, ...] = ()
) -> AsyncIterator[Run]:
    states: list[PortMapState] = []
    mapper = PortMapper(
        cast(Environment, Inner()),
        router,
        ports or (PORT,),
        pinholes=pinholes,
        on_change=states.append,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(mapper.run)
        yield Run(mapper, states, nursery.cancel_scope)
        started = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - started <= 3.01
    assert mapper.state.mappings == ()
    assert all(socket.closed for socket in router.sockets)
    assert all(ear.closed for ear in router.ears)


async def test_pcp_comes_first(autojump_clock: object, router: HomeRouter) -> None:
    async with mapping(router) as run:
        await trio.sleep(5)
        state = run.mapper.state
        assert (state.via, state.gateway, run.addrs) == ("PCP", "192.168.1.1", [PUBLIC])
        assert state.public_addrs == state.external_addrs
        assert not state.external_is_private
        assert state.expires == pytest.approx(1e9 + trio.current_time() + 7195, abs=2)
        assert run.working == ["PCP"]
        assert router.table[PORT][0] == PORT
        assert router.asked["map"] == 1
    assert router.table == {}
    assert router.asked["delete"] == 1
    assert run.states[-1].mappings == ()


async def test_nat_pmp_comes_next(autojump_clock: object, router: HomeRouter) -> None:
    router.pcp = False
    async with mapping(router, PORT, 4072) as run:
        await trio.sleep(5)
        assert run.addrs == [PUBLIC, "/ip4/5.6.7.8/tcp/4072"]
        assert run.working == ["NAT-PMP"]
    assert router.table == {}


async def test_upnp_comes_last(autojump_clock: object, router: HomeRouter, igd: HomeIgd) -> None:
    router.pcp = router.nat_pmp = False
    router.upnp = igd
    async with mapping(router) as run:
        await trio.sleep(5)
        assert run.addrs == [PUBLIC]
        assert run.working == ["UPnP"]
        assert igd.table == {PORT: (str(OURS), PORT, 3600)}
    assert igd.table == {}


async def test_nobody_answers(autojump_clock: object, router: HomeRouter) -> None:
    router.pcp = router.nat_pmp = False
    router.upnp_missing = True
    async with mapping(router) as run:
        await trio.sleep(5)
        assert run.mapper.state.mappings == ()
        assert run.verdicts == {
            "PCP": "The router did not answer.",
            "NAT-PMP": "The router did not answer.",
            "UPnP": "UPnP is not built in: install shoal[upnp].",
        }
        assert router.asked["pcp"] == 2
        assert router.asked["nat-pmp"] == 5
        router.pcp = True
        await trio.sleep(700)  # it is asked again now and then
        assert run.addrs == [PUBLIC]


async def test_what_refuses_leaves_room_for_the_next(
    autojump_clock: object, router: HomeRouter, igd: HomeIgd
) -> None:
    router.result = 2
    router.upnp = igd
    async with mapping(router) as run:
        await trio.sleep(8)
        assert run.verdicts["PCP"] == "The router refuses: it does not allow it."
        assert run.verdicts["NAT-PMP"] == "The router refuses: it does not allow it."
        assert run.working == ["UPnP"]


async def test_renewal_at_half_the_life(autojump_clock: object, router: HomeRouter) -> None:
    async with mapping(router) as run:
        await trio.sleep(3590)
        assert router.asked["map"] == 1
        await trio.sleep(920)
        assert router.asked["map"] == 2
        await trio.sleep(24 * 3600)
        assert run.addrs == [PUBLIC]
        assert 17 <= router.asked["map"] <= 28
        assert all(state.mappings for state in run.states[-20:])


async def test_short_lives(autojump_clock: object, router: HomeRouter) -> None:
    router.life = 60
    async with mapping(router) as run:
        await trio.sleep(600)
        assert run.addrs == [PUBLIC]
        assert 15 <= router.asked["map"] <= 21
    router.life = 5
    before = router.asked["map"]
    async with mapping(router) as run:
        await trio.sleep(300)
        assert run.addrs == []
        assert "for 5 seconds only" in run.verdicts["PCP"]
        assert router.asked["map"] - before <= 10  # five searches, ever more rarely


@pytest.mark.parametrize("pcp", [True, False])
@pytest.mark.parametrize("announced", [True, False])
async def test_a_restart_is_noticed(
    autojump_clock: object, router: HomeRouter, pcp: bool, announced: bool
) -> None:
    router.pcp = pcp
    async with mapping(router) as run:
        await trio.sleep(100)
        router.restart()
        router.external_ip = "5.6.7.9"
        if announced:
            word = bytes.fromhex("02800000000000000000000100") + bytes(11)
            router.announce(word if pcp else router.told())
        await trio.sleep(1 if announced else 61)
        assert PORT in router.table
        if not announced:
            await trio.sleep(1)
        assert run.addrs == [f"/ip4/5.6.7.9/tcp/{PORT}"]


async def test_announcements_of_others_count_for_nothing(
    autojump_clock: object, router: HomeRouter
) -> None:
    async with mapping(router) as run:
        await trio.sleep(10)
        asked = router.asked["pcp"]
        for _ in range(500):
            router.announce(bytes.fromhex("02800000") + bytes(20), ipaddress.ip_address("1.2.3.4"))
        await trio.sleep(30)
        assert run.addrs == [PUBLIC]
        assert router.asked["pcp"] == asked


async def test_a_flood_and_a_wild_epoch_stay_bounded(
    autojump_clock: object, router: HomeRouter
) -> None:
    wild = random.Random(1)
    router.lie = lambda reply: reply[:8] + wild.randbytes(4) + reply[12:]
    router.flood = 200
    async with mapping(router) as run:
        await trio.sleep(600)
        assert run.addrs == [PUBLIC]
        assert router.asked["map"] <= 61
        assert router.asked["pcp"] <= 150


@pytest.mark.parametrize(
    "lie",
    [
        lambda reply: reply[:24] + bytes(12) + reply[36:],  # another nonce
        lambda reply: reply[:40],
        lambda reply: b"",
        lambda reply: reply + b"x",
        lambda reply: reply[:1] + bytes([reply[1] & 0x7F]) + reply[2:],
        lambda reply: reply[:44] + bytes(10) + b"\xff\xff\x7f\0\0\1" if reply[60:] else reply[:42],
        lambda reply: reply[:42] + bytes(2) + reply[44:],  # external port 0
    ],
)
async def test_lies_grant_nothing(
    autojump_clock: object, router: HomeRouter, lie: Callable[[bytes], bytes]
) -> None:
    router.nat_pmp = False
    router.lie = lie
    async with mapping(router) as run:
        await trio.sleep(1300)
        assert run.addrs == []
        assert router.asked["pcp"] <= 50


async def test_a_router_that_was_not_heard_is_asked_again_soon(
    autojump_clock: object, router: HomeRouter
) -> None:
    router.pcp = router.nat_pmp = False
    async with mapping(router) as run:
        await trio.sleep(12)  # the first search is over
        router.nat_pmp = True
        await trio.sleep(40)
        assert run.working == ["NAT-PMP"]


async def test_replies_from_elsewhere_grant_nothing(
    autojump_clock: object, router: HomeRouter
) -> None:
    router.source = ipaddress.ip_address("192.168.1.66")
    async with mapping(router) as run:
        await trio.sleep(5)
        assert run.addrs == []
        assert run.verdicts["PCP"] == "The router did not answer."


@pytest.mark.parametrize("ip", ["100.64.1.1", "10.1.1.1", "192.168.7.7", "172.20.0.1"])
@pytest.mark.parametrize("pcp", [True, False])
async def test_a_second_nat_is_seen(
    autojump_clock: object, router: HomeRouter, ip: str, pcp: bool
) -> None:
    router.pcp = pcp
    router.external_ip = ip
    async with mapping(router) as run:
        await trio.sleep(5)
        assert run.addrs == [f"/ip4/{ip}/tcp/{PORT}"]
        assert run.mapper.state.external_is_private
        assert run.mapper.state.public_addrs == ()


async def test_a_router_that_falls_silent(autojump_clock: object, router: HomeRouter) -> None:
    router.life = 600
    async with mapping(router) as run:
        await trio.sleep(10)
        router.pcp = router.nat_pmp = False
        await trio.sleep(500)
        assert run.addrs == [PUBLIC]  # it lives as long as was granted
        await trio.sleep(200)
        assert run.addrs == []
        router.nat_pmp = True
        await trio.sleep(700)
        assert run.working == ["NAT-PMP"]
        router.nat_pmp = False  # and at the end nobody confirms
    assert router.table != {}


async def test_a_loss_on_the_way_is_made_good(autojump_clock: object, router: HomeRouter) -> None:
    lost = random.Random(2)
    router.nat_pmp = False
    router.lie = lambda reply: b"" if lost.random() < 0.4 else reply
    async with mapping(router) as run:
        await trio.sleep(24 * 3600)
        assert run.addrs == [PUBLIC]


async def test_another_network(autojump_clock: object, router: HomeRouter) -> None:
    router.way[4] = None
    async with mapping(router) as run:
        await trio.sleep(100)
        assert run.mapper.state == PortMapState()
        router.way[4] = Route(OURS, GATEWAY)
        await trio.sleep(35)
        assert run.addrs == [PUBLIC]
        router.way[4] = Route(ipaddress.ip_address("192.168.1.3"), GATEWAY)
        await trio.sleep(35)
        assert run.addrs == [PUBLIC]
        assert router.asked["map"] == 2
        router.way[4] = Route(OURS, None)
        await trio.sleep(40)
        assert run.verdicts["PCP"] == "Not asked: the default gateway is not known here."
        assert run.verdicts["UPnP"] == "No UPnP router was found: no device answered."
        router.way[4] = Route(ipaddress.ip_address("5.5.5.5"), GATEWAY)
        await trio.sleep(35)
        assert run.verdicts["UPnP"] == "Not asked: our own address 5.5.5.5 is public."


async def test_an_opening_in_an_ipv6_firewall(autojump_clock: object, router: HomeRouter) -> None:
    ours, gateway = (ipaddress.ip_address(ip) for ip in ("2a00::2", "192.168.1.1"))
    router.way = {4: None, 6: Route(ours, gateway, 3)}
    router.external_ip = "2a00::2"
    async with mapping(router, pinholes=(PORT,)) as run:
        await trio.sleep(5)
        assert run.addrs == [f"/ip6/2a00::2/tcp/{PORT}"]
        assert run.working == ["PCP (IPv6)"]
        assert list(run.verdicts) == ["PCP (IPv6)"]
    assert router.table == {}


# UPnP


@pytest.fixture
def upnp(router: HomeRouter, igd: HomeIgd) -> HomeIgd:
    router.pcp = router.nat_pmp = False
    router.upnp = igd
    return igd


@pytest.mark.parametrize("hides", [True, False])
async def test_a_port_in_use(
    autojump_clock: object, router: HomeRouter, upnp: HomeIgd, hides: bool
) -> None:
    upnp.hides = hides
    upnp.table[PORT] = ("192.168.1.9", 80, 0)
    async with mapping(router) as run:
        await trio.sleep(6)
        assert run.addrs != [PUBLIC]
        assert run.addrs[0].startswith("/ip4/5.6.7.8/tcp/")
        upnp.hides = False
    assert upnp.table == {PORT: ("192.168.1.9", 80, 0)}


async def test_permanent_leases(autojump_clock: object, router: HomeRouter, upnp: HomeIgd) -> None:
    upnp.permanent_only = True
    async with mapping(router) as run:
        await trio.sleep(6)
        assert run.addrs == [PUBLIC]
        assert run.mapper.state.expires is None
        assert upnp.table[PORT][2] == 0
        await trio.sleep(8000)
        assert run.addrs == [PUBLIC]
    assert upnp.table == {}


async def test_upnp_is_watched_and_renewed(
    autojump_clock: object, router: HomeRouter, upnp: HomeIgd
) -> None:
    async with mapping(router) as run:
        await trio.sleep(6)
        upnp.table.clear()  # it has restarted
        upnp.outside = "5.6.7.9"
        await trio.sleep(310)
        assert PORT in upnp.table
        assert run.addrs == [f"/ip4/5.6.7.9/tcp/{PORT}"]
        calls = upnp.calls
        await trio.sleep(3600)
        assert upnp.calls - calls < 40
        expires = run.mapper.state.expires
        assert expires is not None
        assert expires > 1e9 + trio.current_time() + 1000


@pytest.mark.parametrize(
    ("field_", "value", "sentence"),
    [
        ("refuses", "Action not authorized", "The router refuses: Action not authorized."),
        ("host", "192.168.1.66", "but it is not the gateway"),
        ("our_ip", "10.0.0.1", "but not on our way"),
        ("outside", "", "it names an address that cannot be its own"),
        ("outside", "127.0.0.1", "it names an address that cannot be its own"),
        ("hangs", True, "no answer in time"),
    ],
)
async def test_upnp_refusals(
    autojump_clock: object,
    router: HomeRouter,
    upnp: HomeIgd,
    field_: str,
    value: object,
    sentence: str,
) -> None:
    setattr(upnp, field_, value)
    async with mapping(router) as run:
        await trio.sleep(30)
        assert run.addrs == []
        assert sentence in run.verdicts["UPnP"]
    assert upnp.table == {}


async def test_a_router_that_hangs_does_not_hold_up_the_end(
    autojump_clock: object, router: HomeRouter, upnp: HomeIgd
) -> None:
    async with mapping(router) as run:
        await trio.sleep(6)
        assert run.addrs == [PUBLIC]
        upnp.hangs = True
