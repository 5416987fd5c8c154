"""QUIC over real UDP sockets on loopback, and the sockets themselves."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from multiaddr import Multiaddr

from shoal.node.environment import real_environment
from shoal.node.net.host import Host, HostConfig
from shoal.node.net.udp import MAX_BATCH, UdpDoor
from shoal.wire.addresses import with_peer

from ..conftest import ECHO, echo, key_of
from .conftest import read_all

DEADLINE = 30.0


@asynccontextmanager
async def running(name: str, *listen: str, quic: bool = True) -> AsyncIterator[Host]:
    host = Host(real_environment(), key_of(name), HostConfig(quic=quic))
    host.handle(ECHO, echo)
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            await nursery.start(host.run, [Multiaddr(addr) for addr in listen])
            yield host
            await host.aclose()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("address", ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip6/::1/udp/0/quic-v1"])
async def test_bytes_go_both_ways(address: str) -> None:
    data = os.urandom(3 << 20)
    async with running("alice", address) as alice, running("bob", address) as bob:
        connection = await alice.dial(with_peer(bob.listen_addrs()[0], bob.peer_id))
        stream = await connection.open_stream([ECHO])

        async def send() -> None:
            await stream.send_all(data)
            await stream.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            assert await read_all(stream) == data
        assert not alice.faults
        assert not bob.faults


async def test_without_quic_its_addresses_are_neither_listened_on_nor_dialled() -> None:
    async with running("alice", "/ip4/127.0.0.1/tcp/0", quic=False) as alice:
        assert alice.quic is None
        with pytest.raises(OSError, match=r"shoal\[quic\]"):
            await alice.listen(Multiaddr("/ip4/127.0.0.1/udp/0/quic-v1"))
        assert not alice.maker.can_dial(Multiaddr("/ip4/127.0.0.1/udp/9/quic-v1"))


async def test_a_port_in_use_is_an_error_and_a_free_one_is_named() -> None:
    first = await UdpDoor().bind("127.0.0.1", 0)
    try:
        assert first.name[1]
        with pytest.raises(OSError, match="in use"):
            await UdpDoor().bind("127.0.0.1", first.name[1])
    finally:
        first.close()


async def test_batches_arrive_as_they_were_sent() -> None:
    one, two = await UdpDoor().bind("127.0.0.1", 0), await UdpDoor().bind("127.0.0.1", 0)
    sizes = [1200] * 150 + [700] + [1452, 60, 60, 1200, 1] + [MAX_BATCH // 50] * 60
    sent = [bytes([n % 251]) * size for n, size in enumerate(sizes)]
    got: list[bytes] = []
    with trio.fail_after(DEADLINE):
        await one.send(sent, two.name)
        while len(got) < len(sent):
            await two.wait_readable()
            while (came := two.receive()) is not None:
                data, size, place = came
                assert place == one.name
                got += [data[at : at + size] for at in range(0, len(data), size)]
    assert got == sent
    one.close()
    two.close()


async def test_nobody_there_hurts_nobody() -> None:
    one, gone = await UdpDoor().bind("127.0.0.1", 0), await UdpDoor().bind("127.0.0.1", 0)
    place = gone.name
    gone.close()
    for _ in range(3):  # the system answers that nobody listens, and tells it with the next call
        await one.send([b"hello"] * 3, place)
        await trio.sleep(0.01)
        assert one.receive() is None
    one.send_now(bytes(70_000), place)  # no datagram is so large
    one.send_now(b"x", ("192.0.2.1", 9) if sys.platform != "linux" else ("255.255.255.255", 9))
    two = await UdpDoor().bind("127.0.0.1", 0)
    await one.send([b"still here"], two.name)
    with trio.fail_after(DEADLINE):
        await two.wait_readable()
    assert two.receive() == (b"still here", 10, one.name)
    one.close()
    two.close()


async def test_closing_wakes_who_waits() -> None:
    socket = await UdpDoor().bind("127.0.0.1", 0)
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await socket.wait_readable()

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            socket.close()
    socket.close()
    with pytest.raises(trio.ClosedResourceError):
        await socket.wait_readable()
    with pytest.raises(trio.ClosedResourceError):
        await socket.send([b"x"], ("127.0.0.1", 9))
