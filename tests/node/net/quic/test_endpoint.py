"""One socket for all connections: garbage, floods, unproved addresses, other versions."""

from __future__ import annotations

import random
from collections.abc import Callable

import trio

from shoal.node.environment import Place
from shoal.node.net.host import Host
from shoal.node.net.quic.endpoint import (
    GONE_SECONDS,
    MAX_GONE,
    MAX_HALF_OPEN,
    MAX_HALF_OPEN_PER_IP,
    RETRY_FROM,
    Endpoint,
)
from shoal.node.net.quic.library import Engine
from shoal.wire.tls_certificate import make_certificate

from ..conftest import ECHO, key_of
from .conftest import PORT, Air, Door, MakeQuic, MemorySocket, joined


def endpoint_of(host: Host) -> Endpoint:
    assert host.quic is not None
    return host.quic.endpoints[0]


def first_flight(host: Host) -> bytes:
    """Return the datagram with which somebody begins a connection."""
    certificate = make_certificate(key_of("mallory"), bytes(32), host.environment.clock.now())

    def anybody(certificate: bytes) -> None:
        pass

    engine = Engine(
        client=True, certificate=certificate, judge=anybody, window=1 << 16, datagram=1280
    )
    engine.connect(("198.51.100.1", PORT), trio.current_time())
    return engine.transmit(trio.current_time(), 1)[0]


async def still_serves(alice: Host, bob: Host) -> bool:
    ours, _ = await joined(alice, bob)
    stream = await ours.open_stream([ECHO])
    await stream.send_all(b"well?")
    return await stream.receive_some() == b"well?"


async def test_garbage_changes_nothing(autojump_clock: object, make_quic: MakeQuic) -> None:
    alice, bob = await make_quic("alice"), await make_quic("bob")
    ours, _ = await joined(alice, bob)
    endpoint = endpoint_of(bob)
    chance = random.Random(1)
    link = next(iter(endpoint._links.values()))
    known = next(iter(link.ids))
    for _ in range(3000):
        data = bytearray(chance.randbytes(chance.choice([0, 1, 5, 7, 20, 40, 1200, 1500])))
        kind = chance.randrange(4)
        if data and kind == 0:
            data[0] |= 0xC0
            data[1:5] = (1).to_bytes(4, "big")
        elif data and kind == 1:
            data[0] = (data[0] & 0x3F) | 0x40
            data[1:9] = known
        size = max(1, len(data) // chance.choice([1, 1, 3]))
        endpoint._receive(bytes(data), size, ("203.0.113.5", chance.randrange(1, 65536)))
    await trio.sleep(60)
    assert not endpoint.half_open
    assert ours.usable
    assert await still_serves(await make_quic("carol"), bob)


async def test_half_open_handshakes_are_bounded_and_end(
    autojump_clock: object, make_quic: MakeQuic, air: Air
) -> None:
    """A flood of first flights from addresses that never answer."""
    bob = await make_quic("bob")
    endpoint = endpoint_of(bob)
    most = 0
    before = air.sent
    count = 0
    for number in range(400):
        flight = first_flight(bob)
        count += len(flight)
        endpoint._receive(flight, len(flight), (f"192.0.2.{number % 250}", 1024 + number))
        most = max(most, endpoint.half_open)
    assert most == RETRY_FROM  # beyond, an address has to be proved
    await trio.sleep(20)
    assert not endpoint.half_open
    assert not len(endpoint)
    assert air.sent - before < 3 * count
    assert bob._budgets.shared.windows == 48 << 20
    alice = await make_quic("alice")
    assert await still_serves(alice, bob)


async def test_a_proved_address_gets_in_during_a_flood(
    autojump_clock: object, make_quic: MakeQuic
) -> None:
    bob, alice = await make_quic("bob"), await make_quic("alice")
    endpoint = endpoint_of(bob)
    for number in range(200):
        flight = first_flight(bob)
        endpoint._receive(flight, len(flight), (f"192.0.2.{number % 250}", 1024 + number))
    assert endpoint.half_open == RETRY_FROM
    assert await still_serves(alice, bob)


async def test_a_token_is_good_for_one_address_and_a_short_time(
    autojump_clock: object, make_quic: MakeQuic
) -> None:
    endpoint = endpoint_of(await make_quic("bob"))
    place: Place = ("192.0.2.7", 77)
    token = endpoint._token(b"original", b"ours----", place)
    assert endpoint._read_token(token, b"ours----", place) == b"original"
    assert endpoint._read_token(token, b"other---", place) is None
    assert endpoint._read_token(token, b"ours----", ("192.0.2.7", 78)) is None
    assert endpoint._read_token(token[:-1] + b"\0", b"ours----", place) is None
    for cut in range(len(token)):
        assert endpoint._read_token(token[:cut], b"ours----", place) is None
    await trio.sleep(11)
    assert endpoint._read_token(token, b"ours----", place) is None


async def proved(
    bob: Host, air: Air, ips: Callable[[int], str], count: int
) -> tuple[int, list[MemorySocket]]:
    """Begin many handshakes from addresses that answer a Retry, and then say no more."""
    endpoint = endpoint_of(bob)
    certificate = make_certificate(key_of("mallory"), bytes(32), bob.environment.clock.now())
    sockets, most = [], 0
    for number in range(count):
        ip = ips(number)
        socket = await Door(air, ip).bind(ip, 2000 + number)
        sockets.append(socket)
        engine = Engine(
            client=True,
            certificate=certificate,
            judge=lambda certificate: None,
            window=1 << 16,
            datagram=1280,
        )
        engine.connect(("198.51.100.1", PORT), trio.current_time())
        for _ in range(2):
            await socket.send(engine.transmit(trio.current_time(), 1), endpoint.name)
            await trio.sleep(0.05)
            while (came := socket.receive()) is not None:
                if came[0][0] & 0xF0 == 0xF0:  # a Retry
                    engine.receive(came[0], len(came[0]), endpoint.name, trio.current_time())
        most = max(most, endpoint.half_open)
    return most, sockets


async def test_half_open_handshakes_are_bounded_for_proved_addresses_too(
    autojump_clock: object, make_quic: MakeQuic, air: Air
) -> None:
    bob = await make_quic("bob")
    most, _ = await proved(bob, air, lambda number: f"192.0.2.{number}", 90)
    assert most == MAX_HALF_OPEN
    assert bob.faults["quic-half-open"] > 0
    await trio.sleep(15)
    assert await still_serves(await make_quic("alice"), bob)


async def test_one_global_address_gets_a_share(
    autojump_clock: object, make_quic: MakeQuic, air: Air
) -> None:
    bob = await make_quic("bob")
    most, _ = await proved(bob, air, lambda number: "8.8.8.8", 40)
    assert most == MAX_HALF_OPEN_PER_IP
    assert bob.faults["quic-half-open-ip"] > 0
    assert await still_serves(await make_quic("alice"), bob)


async def test_another_version_is_told_ours_in_less_than_it_sent(
    autojump_clock: object, make_quic: MakeQuic, air: Air
) -> None:
    bob = await make_quic("bob")
    endpoint = endpoint_of(bob)
    flight = bytearray(first_flight(bob))
    flight[1:5] = (0x1A2A3A4A).to_bytes(4, "big")
    socket = await Door(air, "192.0.2.9").bind("192.0.2.9", 9)
    await socket.send([bytes(flight)], endpoint.name)
    await trio.sleep(1)
    answer = socket.receive()
    assert answer is not None
    assert answer[0][1:5] == bytes(4)
    assert answer[0].endswith((1).to_bytes(4, "big"))
    assert len(answer[0]) < 60
    await socket.send([bytes(flight)[:1100]], endpoint.name)  # too short to be answered
    await trio.sleep(1)
    assert socket.receive() is None
    assert not endpoint.half_open


async def test_who_does_not_listen_takes_nobody(
    autojump_clock: object, make_quic: MakeQuic
) -> None:
    alice, bob = await make_quic("alice", listen=False), await make_quic("bob")
    await joined(alice, bob)
    endpoint = endpoint_of(alice)
    flight = first_flight(bob)
    endpoint._receive(flight, len(flight), ("192.0.2.3", 3))
    assert not endpoint.half_open
    assert len(endpoint) == 1


async def test_what_is_kept_of_ended_connections_is_bounded(
    autojump_clock: object, make_quic: MakeQuic
) -> None:
    alice, bob = await make_quic("alice"), await make_quic("bob")
    for _ in range(40):
        ours, _ = await joined(alice, bob)
        await ours.aclose()
    endpoint = endpoint_of(alice)
    assert 0 < len(endpoint._gone) <= MAX_GONE
    assert not endpoint._links
    await trio.sleep(GONE_SECONDS + 1)


async def test_closing_the_host_ends_all(autojump_clock: object, make_quic: MakeQuic) -> None:
    alice, bob = await make_quic("alice"), await make_quic("bob")
    _, theirs = await joined(alice, bob)
    socket = endpoint_of(alice).socket
    await alice.aclose()
    await trio.sleep(0.2)
    assert theirs.closed
    assert isinstance(socket, MemorySocket)
    assert socket.closed
    assert not bob.connections()
