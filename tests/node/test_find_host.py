"""The DHT over the real host: loopback sockets, Noise, yamux, identify."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import trio
from multiaddr import Multiaddr

from shoal.node.environment import real_environment
from shoal.node.find import Dht, DhtConfig
from shoal.node.find_memory import DhtMemory, ShortMemory
from shoal.node.find_walk import NothingFound
from shoal.node.net.host import Host
from shoal.node.net.stream import Stream
from shoal.wire.addresses import tcp_addr
from shoal.wire.keys import PrivateKey

KAD = "/shoal/kad/1.0.0"
CONTENT = b"\x12\x20" + bytes(32)
ANY = Multiaddr("/ip4/127.0.0.1/tcp/0")
DEADLINE = 30.0


@asynccontextmanager
async def a_node(
    number: int, mode: Literal["server", "client"] = "server", memory: DhtMemory | None = None
) -> AsyncIterator[tuple[Host, Dht]]:
    environment = real_environment()
    host = Host(environment, PrivateKey(number.to_bytes(32, "big")))
    dht = Dht(environment, host, DhtConfig(mode=mode), memory)
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            await nursery.start(host.run, [ANY])
            await nursery.start(dht.run)
            yield host, dht
            nursery.cancel_scope.cancel()


async def test_three_servers_and_a_client_find_each_other() -> None:
    async with (
        a_node(1) as (first, one),
        a_node(2) as (second, two),
        a_node(3) as (third, three),
        a_node(4, "client") as (fourth, client),
    ):
        for dht in (two, three, client):
            joined = await dht.bootstrap(first.listen_addrs())
            assert (joined.reached, joined.failures) == (1, ())
        assert await two.announce(CONTENT) == 2
        search = client.find_providers(CONTENT)
        found = {item.peer_id: item.addrs async for item in search}
        assert found == {second.peer_id: tuple(second.listen_addrs())}
        assert search.answered == 3
        assert await three.find_peer(fourth.peer_id) == fourth.listen_addrs()
        known = {row.peer_id for dht in (one, two, three) for row in dht.table()}
        assert known == {first.peer_id, second.peer_id, third.peer_id}
        assert KAD not in fourth.protocols
        assert not any(host.faults for host in (first, second, third, fourth))


async def test_a_server_that_turns_client_is_no_longer_asked() -> None:
    async with a_node(1) as (first, one), a_node(2) as (_, two):
        await two.bootstrap(first.listen_addrs())
        one.set_mode("client")
        search = two.find_providers(CONTENT)
        assert [item async for item in search] == []
        # It could be dialled, but does not speak the protocol; or it said so before we asked.
        assert search.nothing in (NothingFound.NONE_REACHABLE, NothingFound.NO_PEERS_KNOWN)


async def test_a_restart_joins_through_what_it_remembers() -> None:
    memory = ShortMemory()
    async with a_node(1) as (first, _):
        async with a_node(2, memory=memory) as (_, two):
            await two.bootstrap(first.listen_addrs())
        assert [row.peer for row in memory.peers(KAD)] == [first.peer_id.raw]
        async with a_node(2, memory=memory) as (_, again):
            await again.wait_joined()
            assert [row.peer_id for row in again.table()] == [first.peer_id]


async def test_a_closed_port_and_a_wrong_peer_are_told_apart() -> None:
    async with a_node(1) as (first, _), a_node(2) as (_, two):
        (addr,) = first.listen_addrs()
        other = PrivateKey(bytes(31) + b"\x09").peer_id
        someone = addr.encapsulate(Multiaddr(f"/p2p/{other}"))
        joined = await two.bootstrap([tcp_addr("127.0.0.1", 1), someone])
        assert joined.reached == 0
        assert len(joined.failures) == 2
        assert any("cannot be reached" in failure for failure in joined.failures)
        assert any(f"the peer there is {first.peer_id}" in why for why in joined.failures)


async def test_an_echo_of_an_announcement_is_no_answer_to_the_next_request() -> None:
    async def echo(stream: Stream) -> None:
        async for data in stream:
            await stream.send_all(data)  # FIND_NODE and GET_PROVIDERS: nobody known

    async with a_node(1) as (host, dht), trio.open_nursery() as nursery:
        other = Host(real_environment(), PrivateKey(bytes(31) + b"\x02"))
        other.handle(KAD, echo)
        await nursery.start(other.run, [ANY])
        assert (await dht.bootstrap(other.listen_addrs())).reached == 1
        for _ in range(3):
            assert await dht.announce(CONTENT) == 1
            search = dht.find_providers(CONTENT)
            assert [item async for item in search] == []
            assert search.answered == 1
        assert not host.faults
        nursery.cancel_scope.cancel()
