"""Routers in the simulated network: how they map ports, whom they let in, and what a hole is."""

from __future__ import annotations

import pytest
import trio

from shoal.simulations.link import Link
from shoal.simulations.nat_box import NatBox, Rule
from shoal.simulations.network import MemoryTransport, Network
from shoal.simulations.stream import MemoryStream
from shoal.simulations.world import World
from shoal.wire.addresses import host_port, parse_multiaddr, tcp_addr

PORT = 4001


def transport(world: World, name: str, behind: NatBox | None = None) -> MemoryTransport:
    return MemoryTransport(world.network.place(name, behind=behind))


def box(world: World, name: str, mapping: Rule, filtering: Rule) -> NatBox:
    world.network.default = Link(latency=0.05)
    return world.network.box(name, mapping=mapping, filtering=filtering)


async def seen_at(world: World, source: MemoryTransport, name: str) -> str:
    """Dial a new public place from the listening port; return the address that it sees."""
    there = transport(world, name)
    listener = await there.listen(parse_multiaddr(f"/ip4/0.0.0.0/tcp/{PORT}"))
    await source.dial(listener.addrs[0], source_port=PORT)
    return str((await listener.accept()).remote)


async def test_a_port_looks_the_same_to_everybody_or_anew_to_each(
    autojump_clock: object, world: World
) -> None:
    same = transport(world, "a", box(world, "n", "endpoint-independent", "endpoint-dependent"))
    seen = {await seen_at(world, same, f"public{number}") for number in range(3)}
    assert seen == {f"/ip4/{world.network.places['n'].ips[0]}/tcp/{PORT}"}
    anew = transport(world, "b", box(world, "m", "endpoint-dependent", "endpoint-dependent"))
    seen = {await seen_at(world, anew, f"other{number}") for number in range(3)}
    assert len(seen) == 3


async def test_two_places_with_one_inner_port_have_two_outer_ones(
    autojump_clock: object, world: World
) -> None:
    router = box(world, "n", "endpoint-independent", "endpoint-dependent")
    one, two = transport(world, "a", router), transport(world, "b", router)
    assert await seen_at(world, one, "p") != await seen_at(world, two, "q")
    # To one another they are neighbours.
    listener = await two.listen(parse_multiaddr(f"/ip4/0.0.0.0/tcp/{PORT}"))
    await one.dial(listener.addrs[0])
    remote = host_port((await listener.accept()).remote)
    assert remote is not None
    assert remote[0] == one.place.ips[0]


async def comes_in(world: World, filtering: Rule, *, forwarded: bool = False) -> bool:
    router = box(world, "n", "endpoint-independent", filtering)
    inner = transport(world, "a", router)
    await inner.listen(parse_multiaddr(f"/ip4/0.0.0.0/tcp/{PORT}"))
    if forwarded:
        router.forward(PORT, inner.place, (inner.place.ips[0], PORT))
    else:
        await seen_at(world, inner, "first")
    stranger = transport(world, "stranger")
    with trio.move_on_after(30):
        await stranger.dial(tcp_addr(router.ip, PORT))
        return True
    return False


async def test_strangers_are_let_in_by_some_filters_only(
    autojump_clock: object, world: World
) -> None:
    assert await comes_in(world, "endpoint-independent")


async def test_a_strict_filter_keeps_strangers_out(autojump_clock: object, world: World) -> None:
    assert not await comes_in(world, "endpoint-dependent")


async def test_a_forwarded_port_lets_everybody_in(autojump_clock: object, world: World) -> None:
    assert await comes_in(world, "endpoint-dependent", forwarded=True)


async def test_inner_addresses_lead_nowhere_from_outside(
    autojump_clock: object, world: World
) -> None:
    router = box(world, "n", "endpoint-independent", "endpoint-independent")
    inner = transport(world, "a", router)
    await inner.listen(parse_multiaddr(f"/ip4/0.0.0.0/tcp/{PORT}"))
    with pytest.raises(OSError, match="route to host"):
        await transport(world, "stranger").dial(tcp_addr(inner.place.ips[0], PORT))


async def punched(world: World, theirs: Rule) -> list[MemoryStream]:
    """Dial from both sides at one moment, each to where others see the other."""
    ends: list[tuple[MemoryTransport, str]] = []
    for name, mapping in ("a", "endpoint-independent"), ("b", theirs):
        router = box(world, f"router of {name}", mapping, "endpoint-dependent")  # type: ignore[arg-type]
        inner = transport(world, name, router)
        await inner.listen(parse_multiaddr(f"/ip4/0.0.0.0/tcp/{PORT}"))
        ends.append((inner, await seen_at(world, inner, f"observer of {name}")))
    streams: list[MemoryStream] = []

    async def dial(source: MemoryTransport, addr: str) -> None:
        streams.append(await source.dial(parse_multiaddr(addr), source_port=PORT))

    with trio.move_on_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dial, ends[0][0], ends[1][1])
            nursery.start_soon(dial, ends[1][0], ends[0][1])
    return streams


async def test_a_hole_is_one_stream_for_both(autojump_clock: object, world: World) -> None:
    one, other = await punched(world, "endpoint-independent")
    await one.send_all(b"hello")
    assert await other.receive_some() == b"hello"


async def test_no_hole_to_who_looks_different_to_each(autojump_clock: object, world: World) -> None:
    assert not await punched(world, "endpoint-dependent")


async def test_a_router_that_starts_again_breaks_what_ran_through_it(
    autojump_clock: object, world: World
) -> None:
    one, other = await punched(world, "endpoint-independent")
    network: Network = world.network
    router = network.places["a"].behind
    assert router is not None
    router.restart()
    with pytest.raises(trio.BrokenResourceError):
        await one.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await other.receive_some()
    assert router.receive(PORT, ("192.0.2.1", 1)) is None
