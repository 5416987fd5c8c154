"""Being tested by others, testing others, and those who would have us dial strangers."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, cast

import pytest
import trio
from multiaddr import Multiaddr

from shoal.node.nat.autonat import MAX_REQUESTS, MAX_REQUESTS_PER_PEER, AutoNatClient
from shoal.node.nat.circuit import read_message, send_message
from shoal.node.nat.observed import REPORT_SECONDS
from shoal.node.nat.relay_client import RelayClient
from shoal.node.nat.relay_server import RelayPolicy
from shoal.node.net.connection import Connection
from shoal.node.net.dialer import MAX_FAILURES_PER_IP
from shoal.node.net.host import Host
from shoal.node.net.stream import Stream
from shoal.simulations.world import World
from shoal.wire.addresses import host_port, relayed_addr, tcp_addr, with_peer
from shoal.wire.autonat import (
    DIAL_BACK,
    DIAL_REQUEST,
    LEAST_PRICE,
    MAX_DATA,
    MAX_MESSAGE,
    MOST_PRICE,
    PROTOCOL_V1,
    AnswerV1,
    DataPart,
    DataRequest,
    DialRequest,
    DialResponse,
    DialStatus,
    DialV1,
    ResponseStatus,
    StatusV1,
    decode_v1,
    decode_v2,
    encode_back,
    encode_v1,
    encode_v2,
)

from .conftest import PORT, MakeHost, MakePeer, Peer, join, key_of, publics, until


async def ask(connection: Connection, addrs: list[Multiaddr], *, pay: int = 0) -> Any:
    """Ask to be dialled; pay so many bytes if asked to; return the last answer."""
    stream = await connection.open_stream([DIAL_REQUEST])
    await send_message(stream, encode_v2(DialRequest(tuple(addrs), 7)))
    answer = decode_v2(await read_message(stream, MAX_MESSAGE))
    if isinstance(answer, DataRequest) and pay:
        left = pay
        while left > 0:
            await send_message(stream, encode_v2(DataPart(min(left, MAX_DATA))))
            left -= MAX_DATA
        answer = decode_v2(await read_message(stream, MAX_MESSAGE))
    return answer


def knocked(world: World, name: str, ip: str, port: int = PORT) -> list[float]:
    """Add a place; return the list of times at which somebody dials it."""
    times: list[float] = []

    class Bell:
        @property
        def full(self) -> bool:
            times.append(trio.current_time())
            return True

    world.network.place(name, [ip]).listeners[ip, port] = cast(Any, Bell())
    return times


def refusals(server: Peer) -> dict[str, int]:
    assert server.nat.server is not None
    return dict(server.nat.server.refused)


async def test_nobody_else_is_dialled_unless_more_is_paid_than_a_dial_costs(
    autojump_clock: object, world: World, make_peer: MakePeer, make_host: MakeHost
) -> None:
    times = knocked(world, "victim", "31.1.0.1")
    server = await make_peer("server")
    connection = await (await make_host("eve")).dial(server.addr)
    victim = tcp_addr("31.1.0.1", PORT)
    price = await ask(connection, [victim])
    assert isinstance(price, DataRequest)
    assert LEAST_PRICE <= price.count <= MOST_PRICE
    await trio.sleep(60)  # it waits for the bytes, and no longer
    assert not times
    sent = connection.bytes_out
    answer = await ask(connection, [victim], pay=MOST_PRICE)
    assert answer == DialResponse(ResponseStatus.OK, 0, DialStatus.E_DIAL_ERROR)
    assert len(times) == 1
    assert connection.bytes_out - sent >= LEAST_PRICE


async def test_one_that_pays_less_is_not_served(
    autojump_clock: object, world: World, make_peer: MakePeer, make_host: MakeHost
) -> None:
    times = knocked(world, "victim", "31.1.0.1")
    server = await make_peer("server")
    connection = await (await make_host("eve")).dial(server.addr)
    with pytest.raises(trio.BrokenResourceError):
        await ask(connection, [tcp_addr("31.1.0.1", PORT)], pay=LEAST_PRICE - MAX_DATA)
    assert not times


async def test_only_the_first_address_of_all_the_world_is_dialled(
    autojump_clock: object, world: World, make_peer: MakePeer, make_host: MakeHost
) -> None:
    server = await make_peer("server")
    inner = knocked(world, "printer", "192.168.1.9")
    own = with_peer(server.host.listen_addrs()[0], server.id)
    local = [tcp_addr(ip, PORT) for ip in ("192.168.1.9", "127.0.0.1", "169.254.1.1")]
    host = await make_host("eve")
    connection = await host.dial(server.addr)
    answer = await ask(connection, [*local, relayed_addr(own), server.host.listen_addrs()[0]])
    assert answer.status == ResponseStatus.E_DIAL_REFUSED
    assert refusals(server) == {"address": 1}
    assert not inner
    # One's own address is dialled for nothing.
    answer = await ask(connection, [*local, host.listen_addrs()[0], tcp_addr("31.1.0.1", 80)])
    assert (answer.status, answer.index) == (ResponseStatus.OK, 3)
    assert answer.dial_status == DialStatus.E_DIAL_BACK_ERROR  # nobody there takes the number


async def test_requests_are_bounded_for_each_and_for_all(
    autojump_clock: object, make_peer: MakePeer, make_host: MakeHost
) -> None:
    server = await make_peer("server")
    host = await make_host("eager")
    connection = await host.dial(server.addr)
    own = [tcp_addr(host_port(host.listen_addrs()[0])[0], 9)]  # type: ignore[index]
    statuses = [(await ask(connection, own)).status for _ in range(MAX_REQUESTS_PER_PEER + 3)]
    refused = ResponseStatus.E_REQUEST_REJECTED
    assert statuses[MAX_REQUESTS_PER_PEER:] == [refused] * 3
    assert refusals(server)["too-many-of-peer"] == 3
    count = MAX_REQUESTS_PER_PEER
    for number in range(8):
        other = await make_host(f"eager {number}")
        at = await other.dial(server.addr)
        for _ in range(8):
            answer = await ask(at, [tcp_addr("127.0.0.1", 9)])
            count += answer.status != refused
    assert count == MAX_REQUESTS
    assert refusals(server)["too-many"] > 0
    await trio.sleep(61)
    assert (await ask(connection, own)).status != refused


async def test_dials_for_one_peer_do_not_run_side_by_side(
    autojump_clock: object, world: World, make_peer: MakePeer, make_host: MakeHost
) -> None:
    server = await make_peer("server")
    connection = await (await make_host("eve")).dial(server.addr)
    answers: list[Any] = []
    async with trio.open_nursery() as nursery:

        async def once() -> None:
            answers.append(await ask(connection, [tcp_addr("31.1.0.1", PORT)]))

        nursery.start_soon(once)
        nursery.start_soon(once)
    kinds = sorted(type(answer).__name__ for answer in answers)
    assert kinds == ["DataRequest", "DialResponse"]
    assert refusals(server) == {"at-once": 1}


async def test_many_peers_cannot_have_one_ip_dialled_again_and_again(
    autojump_clock: object, world: World, make_peer: MakePeer, make_host: MakeHost
) -> None:
    times = knocked(world, "victim", "31.1.0.1")
    server = await make_peer("server")
    statuses = []
    for number in range(4):
        connection = await (await make_host(f"eve {number}")).dial(server.addr)
        for _ in range(4):
            answer = await ask(connection, [tcp_addr("31.1.0.1", PORT)], pay=MOST_PRICE)
            statuses.append(answer.status)
    assert trio.current_time() < 60
    assert len(times) == MAX_FAILURES_PER_IP
    assert statuses[MAX_FAILURES_PER_IP:] == [ResponseStatus.E_DIAL_REFUSED] * 6
    assert refusals(server)["dials-to-ip"] == 6


async def test_nothing_is_tested_over_a_relay(
    autojump_clock: object, make_peer: MakePeer, make_host: MakeHost
) -> None:
    server = await make_peer("relay", relay="own", own=RelayPolicy(limit=None))
    bob = await make_peer("bob", reachable=False, relays=(server.addr,))
    await until(lambda: len(bob.nat.keeper.places()) == 1)
    alice = await make_host("alice")
    cast(Any, alice.environment.transport).place.reachable = False
    RelayClient(alice)
    connection = await alice.connect(bob.id, [relayed_addr(server.addr)])
    answer = await ask(connection, [tcp_addr("31.1.0.1", PORT)])
    assert answer.status == ResponseStatus.E_REQUEST_REJECTED
    assert refusals(bob) == {"over-a-relay": 1}


async def test_messages_without_end_end_their_stream(
    autojump_clock: object, make_peer: MakePeer, make_host: MakeHost
) -> None:
    server = await make_peer("server")
    connection = await (await make_host("eve")).dial(server.addr)
    for said in (b"\xff\xff\x7f", b"\x05\xff\xff\xff\xff\xff"):
        stream = await connection.open_stream([DIAL_REQUEST])
        await stream.send_all(said)
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
    assert server.host.faults["frame-too-long"] == 1
    # One that pays in crumbs is not listened to for ever.
    stream = await connection.open_stream([DIAL_REQUEST])
    await send_message(stream, encode_v2(DialRequest((tcp_addr("31.1.0.1", PORT),), 7)))
    await read_message(stream, MAX_MESSAGE)
    started = trio.current_time()
    await pay_in_crumbs(stream)
    assert trio.current_time() - started < 32


async def pay_in_crumbs(stream: Stream) -> None:
    with suppress(trio.BrokenResourceError):
        while True:
            await send_message(stream, encode_v2(DataPart(1)))
            await trio.sleep(1)


# Version 1


async def ask_v1(connection: Connection, addrs: list[Multiaddr], name: str) -> AnswerV1:
    stream = await connection.open_stream([PROTOCOL_V1])
    await send_message(stream, encode_v1(DialV1(key_of(name).peer_id, tuple(addrs))))
    answer = decode_v1(await read_message(stream, MAX_MESSAGE))
    assert isinstance(answer, AnswerV1)
    return answer


async def test_version_1_dials_the_ip_that_asks_and_no_other(
    autojump_clock: object, world: World, make_peer: MakePeer, make_host: MakeHost
) -> None:
    times = knocked(world, "victim", "31.1.0.1")
    server = await make_peer("server")
    host = await make_host("eve")
    connection = await host.dial(server.addr)
    victim = tcp_addr("31.1.0.1", PORT)
    assert (await ask_v1(connection, [victim], "eve")).status == StatusV1.E_DIAL_REFUSED
    answer = await ask_v1(connection, [victim, host.listen_addrs()[0]], "eve")
    assert answer.status == StatusV1.OK
    assert answer.addr == host.listen_addrs()[0]
    assert not times
    # Nor does one ask for another.
    with pytest.raises(trio.BrokenResourceError):
        await ask_v1(connection, [victim], "bob")


class OldServer:
    """A peer that speaks version 1 only, and answers as it was told."""

    def __init__(self, host: Host, status: StatusV1) -> None:
        self.addr = with_peer(host.listen_addrs()[0], host.peer_id)
        self._status = status
        host.handle(PROTOCOL_V1, self._answer)

    async def _answer(self, stream: Stream) -> None:
        await read_message(stream, MAX_MESSAGE)
        await send_message(stream, encode_v1(AnswerV1(self._status)))


@pytest.mark.parametrize(
    ("liars", "state"), [(0, "private"), (1, "private"), (4, "unknown")], ids=str
)
async def test_version_1_decides_by_more_than_three_if_there_is_no_other(
    autojump_clock: object, make_peer: MakePeer, make_host: MakeHost, liars: int, state: str
) -> None:
    bob = await make_peer("bob", reachable=False)
    for number in range(5):
        status = StatusV1.OK if number < liars else StatusV1.E_DIAL_ERROR
        await bob.host.dial(OldServer(await make_host(f"old{number}"), status).addr)
    await trio.sleep(200)
    assert bob.nat.reachability == state  # who says that it reached us without a dial is not heard


# Our side


class Liar:
    """A server of version 2 that says what it was told, and dials nobody."""

    def __init__(self, host: Host, status: DialStatus) -> None:
        self.addr = with_peer(host.listen_addrs()[0], host.peer_id)
        self.asked = 0
        self._status = status
        host.handle(DIAL_REQUEST, self._answer)

    async def _answer(self, stream: Stream) -> None:
        self.asked += 1
        await read_message(stream, MAX_MESSAGE)
        await send_message(stream, encode_v2(DialResponse(ResponseStatus.OK, 0, self._status)))


async def test_a_server_that_did_not_dial_convinces_nobody(
    autojump_clock: object, make_peer: MakePeer, make_host: MakeHost
) -> None:
    bob = await make_peer("bob", reachable=False)
    for number in range(4):
        await bob.host.dial(Liar(await make_host(f"liar{number}"), DialStatus.OK).addr)
    await trio.sleep(600)
    assert bob.nat.reachability == "unknown"


async def test_one_liar_does_not_hide_us(
    autojump_clock: object, make_peer: MakePeer, make_host: MakeHost
) -> None:
    peers = await publics(make_peer)
    bob = await make_peer("bob")
    liar = Liar(await make_host("liar"), DialStatus.E_DIAL_ERROR)
    await bob.host.dial(liar.addr)
    await until(lambda: liar.asked)
    await join(bob, peers)
    await until(lambda: bob.nat.reachability == "public")
    await trio.sleep(300)
    assert bob.nat.reachability == "public"


async def test_numbers_that_we_did_not_give_are_counted(
    autojump_clock: object, make_peer: MakePeer, make_host: MakeHost
) -> None:
    bob = await make_peer("bob")
    connection = await (await make_host("eve")).dial(bob.addr)
    for nonce in range(3):
        stream = await connection.open_stream([DIAL_BACK])
        await send_message(stream, encode_back(nonce))
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
    assert bob.nat.client.forged == 3
    assert bob.host.faults["autonat-unasked"] == 3


async def test_our_own_questions_are_bounded(
    autojump_clock: object, make_peer: MakePeer, make_host: MakeHost
) -> None:
    """A server that never answers holds a few of them for half a minute, and no more."""
    silent, bob = await make_host("silent"), await make_host("bob")

    async def never(stream: Stream) -> None:
        await trio.sleep_forever()

    silent.handle(DIAL_REQUEST, never)
    connection = await bob.dial(with_peer(silent.listen_addrs()[0], silent.peer_id))
    client = AutoNatClient(bob, bob.environment.random.stream("test"))
    addr = bob.listen_addrs()[0]
    results: list[object] = []
    async with trio.open_nursery() as nursery:

        async def once() -> None:
            results.append(await client.test(connection, [addr]))

        for _ in range(20):
            nursery.start_soon(once)
    assert results == [None] * 20
    assert trio.current_time() < 40


# What follows


async def test_a_port_that_was_forwarded_by_hand_is_found_and_stays_known(
    autojump_clock: object, world: World, make_peer: MakePeer
) -> None:
    """Nobody listens at the address that the world sees: all that is known comes from peers."""
    peers = await publics(make_peer, 4)
    box = world.network.box("router")
    bob = await make_peer("bob", behind=box)
    place = world.network.places["bob"]
    box.forward(PORT, place, (place.ips[0], PORT))
    await join(bob, peers)
    await until(lambda: bob.nat.reachability == "public")
    assert tcp_addr(box.ip, PORT) in bob.host.told_addrs()
    assert bob.nat.mapping == "endpoint-independent"
    await trio.sleep(REPORT_SECONDS + 60)  # all were told at the beginning
    assert bob.nat.reachability == "public"
    assert tcp_addr(box.ip, PORT) in bob.host.told_addrs()


async def test_a_verdict_follows_what_becomes_of_us(
    autojump_clock: object, world: World, make_peer: MakePeer
) -> None:
    peers = await publics(make_peer, 3)
    bob = await make_peer("bob")
    await join(bob, peers)
    await until(lambda: bob.nat.relay is not None)
    world.network.places["bob"].reachable = False
    await until(lambda: bob.nat.reachability == "private", 3600)
    await until(lambda: len(bob.nat.keeper.places()) == 2)
    assert bob.nat.relay is None
    world.network.places["bob"].reachable = True
    await until(lambda: bob.nat.reachability == "public", 3600)
    await until(lambda: not bob.nat.keeper.places())
    states = [state for state, _ in bob.changes]
    assert states.index("public") < states.index("private")
    assert states[-1] == "public"


async def test_all_addresses_are_tested_by_the_one_server_there_is(
    autojump_clock: object, make_peer: MakePeer
) -> None:
    server = await make_peer("server")
    ips = [f"31.{number}.0.1" for number in range(5)]
    bob = await make_peer("bob", ips=ips)
    await bob.host.dial(server.addr)
    await until(lambda: len(bob.nat.tests.reachable()) >= 5, 60)
