"""The simulated network keeps the promises of the real one."""

import pytest
import trio
import trio.testing
from multiaddr import Multiaddr

from shoal.node.net.tcp import TcpTransport
from shoal.simulations.link import Link
from shoal.simulations.network import MemoryTransport, global_addresses
from shoal.simulations.stream import MemoryStream
from shoal.simulations.world import World
from shoal.wire.addresses import ip_group, parse_multiaddr, tcp_addr


async def pair(world: World, latency: float = 0.01) -> tuple[MemoryStream, MemoryStream]:
    number = len(world.network.places)
    world.network.default = Link(latency)
    here = MemoryTransport(world.network.place(f"a{number}"))
    there = MemoryTransport(world.network.place(f"b{number}"))
    listener = await there.listen(tcp_addr(there.place.ips[0], 0))
    stream = await here.dial(listener.addrs[0])
    accepted = await listener.accept()
    await listener.aclose()
    return stream, accepted


async def clogged(world: World) -> tuple[MemoryStream, MemoryStream]:
    stream, accepted = await pair(world)
    for end in stream, accepted:
        with trio.move_on_after(1):
            while True:
                await end.send_all(bytes(1 << 16))
    return stream, accepted


async def test_streams_keep_the_contract_of_trio(world: World, autojump_clock: object) -> None:
    await trio.testing.check_half_closeable_stream(lambda: pair(world, 0.0), lambda: clogged(world))


async def test_tcp_streams_keep_the_contract_of_trio() -> None:
    transport = TcpTransport()

    async def tcp_pair() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
        listener = await transport.listen(tcp_addr("127.0.0.1", 0))
        stream = await transport.dial(listener.addrs[0])
        accepted = await listener.accept()
        await listener.aclose()
        assert stream.remote == accepted.local
        assert stream.local == accepted.remote
        return stream, accepted

    await trio.testing.check_half_closeable_stream(tcp_pair, None)


async def test_a_dial_takes_a_round_trip_and_bytes_half_of_one(
    world: World, autojump_clock: object
) -> None:
    began = trio.current_time()
    stream, accepted = await pair(world, 0.05)
    assert trio.current_time() - began == pytest.approx(0.1)
    await stream.send_all(b"x")
    buffer = memoryview(bytearray(4))
    assert await accepted.receive_into(buffer) == 1
    assert bytes(buffer) == b"x\0\0\0"
    assert trio.current_time() - began == pytest.approx(0.15)
    assert stream.remote == accepted.local
    assert stream.local == accepted.remote


async def test_a_rate_bounds_what_goes_through(world: World, autojump_clock: object) -> None:
    stream, accepted = await pair(world)
    world.network.places["a0"].up.rate = 1e6
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, bytes(3_000_000))
        got = 0
        while got < 3_000_000:
            got += len(await accepted.receive_some())
    assert trio.current_time() - began == pytest.approx(3.01, abs=0.01)


async def test_two_streams_share_an_uplink_evenly(world: World, autojump_clock: object) -> None:
    one, one_end = await pair(world)
    two = await MemoryTransport(world.network.places["a0"]).dial(
        (await MemoryTransport(world.network.places["b0"]).listen(_any())).addrs[0]
    )
    world.network.places["a0"].up.rate = 1e6
    async with trio.open_nursery() as nursery:

        async def push(stream: MemoryStream) -> None:
            with trio.move_on_after(0.8):
                await stream.send_all(bytes(10_000_000))

        nursery.start_soon(push, one)
        nursery.start_soon(push, two)
    assert one._out.unread == pytest.approx(two._out.unread, abs=1 << 16)
    assert one_end is not None


def _any() -> Multiaddr:
    return tcp_addr("0.0.0.0", 0)


async def test_a_reader_that_does_not_read_stops_the_sender(
    world: World, autojump_clock: object
) -> None:
    stream, accepted = await pair(world)
    with trio.move_on_after(100) as scope:
        await stream.send_all(bytes(5 << 20))
    assert scope.cancelled_caught
    got = 0
    with trio.move_on_after(1):
        while True:
            got += len(await accepted.receive_some())
    assert got == 1 << 20


async def test_dial_errors(world: World, autojump_clock: object) -> None:
    here = MemoryTransport(world.network.place("here"))
    there = MemoryTransport(world.network.place("there"))
    with pytest.raises(ConnectionRefusedError):
        await here.dial(tcp_addr(there.place.ips[0], 1))
    with pytest.raises(OSError, match="No route"):
        await here.dial(tcp_addr("8.8.8.8", 1))
    with pytest.raises(OSError, match="unreachable"):
        await here.dial(parse_multiaddr("/ip6/2a00::1/tcp/1"))
    listener = await there.listen(tcp_addr("0.0.0.0", 77))
    with pytest.raises(OSError, match="in use"):
        await there.listen(tcp_addr(there.place.ips[0], 77))
    with pytest.raises(OSError, match="assign"):
        await there.listen(tcp_addr("9.9.9.9", 77))
    with pytest.raises(ConnectionRefusedError):  # loopback is one's own
        await here.dial(tcp_addr("127.0.0.1", 77))
    there.place.reachable = False
    with trio.move_on_after(1000) as scope:
        await here.dial(listener.addrs[0])
    assert scope.cancelled_caught
    there.place.reachable = True
    await here.dial(listener.addrs[0])
    await listener.aclose()
    with pytest.raises(ConnectionRefusedError):
        await here.dial(listener.addrs[0])


async def test_who_gives_up_dialling_leaves_a_broken_stream(
    world: World, autojump_clock: object
) -> None:
    here = MemoryTransport(world.network.place("here"))
    there = MemoryTransport(world.network.place("there"))
    listener = await there.listen(tcp_addr(there.place.ips[0], 1))
    with trio.move_on_after(0.02):
        await here.dial(listener.addrs[0])
    accepted = await listener.accept()
    with pytest.raises(trio.BrokenResourceError):
        await accepted.receive_some()


async def test_names_stand_for_what_the_network_says(world: World, autojump_clock: object) -> None:
    here = MemoryTransport(world.network.place("here"))
    name = parse_multiaddr("/dns4/seed.example/tcp/4001")
    with pytest.raises(OSError, match="does not resolve"):
        await here.resolve(name)
    world.network.names[str(name)] = [tcp_addr("5.0.0.1", 4001)]
    assert await here.resolve(name) == [tcp_addr("5.0.0.1", 4001)]
    assert here.can_dial(name)


def test_places_have_addresses_of_different_networks() -> None:
    addresses = global_addresses()
    groups = {ip_group(tcp_addr(next(addresses), 1)) for _ in range(3000)}
    assert len(groups) == 3000
    assert None not in groups
