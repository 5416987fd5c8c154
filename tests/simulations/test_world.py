"""The same seed gives the same world; faults do what they say and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from shoal.node.net.host import Host
from shoal.node.net.stream import Stream
from shoal.simulations import faults
from shoal.simulations.disk import MemoryDisk
from shoal.simulations.link import Link
from shoal.simulations.network import MemoryTransport
from shoal.simulations.randomness import SeededRandom
from shoal.simulations.stream import MemoryStream
from shoal.simulations.world import World, run
from shoal.wire.addresses import parse_multiaddr, tcp_addr
from shoal.wire.keys import PrivateKey

ECHO = "/test/echo"
HOSTS = 5


async def echo(stream: Stream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)
    await stream.send_eof()


async def crowd(world: World) -> str:
    """Hosts that all talk with all at once, over bad lines, while one of them dies."""
    hosts = []
    for number in range(HOSTS):
        environment = world.environment(f"host {number}")
        host = Host(environment, PrivateKey(environment.random.secret(32)))
        host.handle(ECHO, echo)
        await world.nursery.start(host.run, [parse_multiaddr("/ip4/0.0.0.0/tcp/4001")])
        hosts.append(host)

    async def talk(one: Host, other: Host) -> None:
        try:
            stream = await one.open_stream(other.peer_id, [ECHO], other.listen_addrs())
            for _ in range(5):
                await stream.send_all(bytes(3000))
                await stream.receive_some()
            await stream.aclose()
        except trio.BrokenResourceError:
            world.network.note("broken", one.peer_id, other.peer_id)

    async with trio.open_nursery() as nursery:
        for one in hosts:
            for other in hosts:
                if one is not other:
                    nursery.start_soon(talk, one, other)
        await trio.sleep(1.0)
        faults.reset(world.network, "host 0", "host 1")
    await trio.sleep(30)
    assert world.network.bytes > HOSTS * (HOSTS - 1) * 5 * 6000 * 0.9
    return world.trace.digest


LINK = Link(latency=0.04, jitter=0.02, rate=2e6)


def test_the_same_seed_gives_the_same_trace() -> None:
    assert run(crowd, 1, LINK) == run(crowd, 1, LINK)


def test_another_seed_gives_another_trace() -> None:
    assert run(crowd, 1, LINK) != run(crowd, 2, LINK)


def test_another_process_gives_the_same_trace() -> None:
    """Hashes of texts and places in memory are others there."""
    code = (
        "import importlib.util, sys;"
        f"spec = importlib.util.spec_from_file_location('crowd', {__file__!r});"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module);"
        "ballast = [object() for _ in range(12345)];"
        "print(module.run(module.crowd, 1, module.LINK))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "77"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert answer.stdout.strip() == run(crowd, 1, LINK)


def test_the_scheduler_is_left_as_it_was() -> None:
    from trio._core import _run

    before = _run._ALLOW_DETERMINISTIC_SCHEDULING

    async def nothing(world: World) -> None:
        assert _run._ALLOW_DETERMINISTIC_SCHEDULING

    run(nothing)
    assert before == _run._ALLOW_DETERMINISTIC_SCHEDULING


def test_randomness_depends_on_seed_owner_and_name() -> None:
    one, same, other = SeededRandom(1, "a"), SeededRandom(1, "a"), SeededRandom(1, "b")
    assert one.stream("x").random() == same.stream("x").random()
    assert one.stream("x").random() != one.stream("y").random()
    assert one.stream("x").random() != other.stream("x").random()
    first = one.secret(32)
    assert first == same.secret(32)
    assert len({first, one.secret(32), other.secret(32), SeededRandom(2, "a").secret(32)}) == 4


def test_a_machine_keeps_its_addresses_but_not_its_secrets() -> None:
    async def scenario(world: World) -> None:
        first, again = world.environment("a"), world.environment("a")
        assert isinstance(first.transport, MemoryTransport)
        assert isinstance(again.transport, MemoryTransport)
        assert first.transport.place is again.transport.place
        assert first.random.secret(32) != again.random.secret(32)
        assert world.environment("late", skew=5.0).clock.now() == first.clock.now() + 5.0

    run(scenario)


def test_a_slow_disk_takes_its_time() -> None:
    async def scenario(world: World) -> None:
        disk = MemoryDisk()
        environment = world.environment("a", disk=disk)
        disk.bytes_per_second = 1000.0
        file = disk.folder(Path("/"), create_mode=0o700).create("file")
        began = trio.current_time()
        with trio.move_on_after(1) as scope:
            await environment.run_blocking(file.pwrite, bytes(5000), 0)
        assert trio.current_time() - began == pytest.approx(5.0)
        assert not scope.cancelled_caught  # as a thread, it is not abandoned
        await environment.run_blocking(len, b"")
        assert trio.current_time() - began == pytest.approx(5.0)

    run(scenario)


# Faults


async def pair(world: World) -> tuple[MemoryStream, MemoryStream]:
    here = MemoryTransport(world.network.place("a"))
    there = MemoryTransport(world.network.place("b"))
    world.network.place("c")
    listener = await there.listen(tcp_addr("0.0.0.0", 1))
    stream = await here.dial(listener.addrs[0])
    return stream, await listener.accept()


async def test_a_cut_holds_bytes_back_and_loses_none(world: World, autojump_clock: object) -> None:
    stream, accepted = await pair(world)
    await stream.send_all(b"before ")
    faults.cut(world.network, "a", "b")
    await stream.send_all(b"during ")
    with trio.move_on_after(100) as scope:
        await accepted.receive_some()
    assert scope.cancelled_caught
    faults.heal(world.network, "a", "b")
    await stream.send_all(b"after ")
    await stream.send_eof()
    got = b""
    while data := await accepted.receive_some():
        got += data
    assert got == b"before during after "


async def test_silence_holds_dials_as_well(world: World, autojump_clock: object) -> None:
    stream, _ = await pair(world)
    faults.silence(world.network, "b")
    target = stream.remote
    with trio.move_on_after(10) as scope:
        await MemoryTransport(world.network.places["a"]).dial(target)
    assert scope.cancelled_caught
    faults.rejoin(world.network, "b")
    again = await MemoryTransport(world.network.places["a"]).dial(target)
    assert again.remote == target


async def test_a_reset_breaks_both_ends(world: World, autojump_clock: object) -> None:
    stream, accepted = await pair(world)
    await stream.send_all(b"lost")
    assert faults.reset(world.network, "a", "c") == 0
    assert faults.reset(world.network, "b", "a") == 1
    for end in stream, accepted:
        with pytest.raises(trio.BrokenResourceError):
            await end.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await end.send_all(b"x")
    assert not world.network.places["a"].streams
    assert not world.network.places["b"].streams


async def test_a_crashed_machine_listens_no_more(world: World, autojump_clock: object) -> None:
    stream, _ = await pair(world)
    faults.crash(world.network, "b")
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    with pytest.raises(ConnectionRefusedError):
        await MemoryTransport(world.network.places["a"]).dial(stream.remote)


async def test_lines_can_become_slow(world: World, autojump_clock: object) -> None:
    stream, accepted = await pair(world)
    faults.set_link(world.network, "a", "b", Link(latency=2.0))
    began = trio.current_time()
    await stream.send_all(b"x")
    await accepted.receive_some()
    assert trio.current_time() - began == pytest.approx(2.0)
    faults.set_access(world.network, "b", down=1000.0)
    await stream.send_all(bytes(5000))
    got = 0
    while got < 5000:
        got += len(await accepted.receive_some())
    assert trio.current_time() - began == pytest.approx(2.0 + 2.0 + 5.0)
