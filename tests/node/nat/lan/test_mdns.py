"""mDNS over real sockets on the loopback interface: two nodes, rust's packets, floods, failures."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from ipaddress import ip_network
from typing import Any

import pytest
import trio
from multiaddr import Multiaddr
from zeroconf._dns import DNSPointer, DNSText
from zeroconf._protocol.incoming import DNSIncoming

from shoal.node.environment import real_environment
from shoal.node.nat import mdns, mdns_radio
from shoal.node.nat.mdns import MAX_WAITING, Mdns
from shoal.node.nat.mdns_records import MAX_PEERS, NEWS_BURST, TTL_SECONDS, Neighbour
from shoal.wire.addresses import tcp_addr, with_peer
from shoal.wire.ids import PeerId
from shoal.wire.keys import PrivateKey

OWN, BOB = (PrivateKey(bytes([n]) * 32).peer_id for n in (1, 2))
AT_OWN, AT_BOB = (tcp_addr(f"192.168.7.{n}", 4001) for n in (1, 2))
TO_ALL = ("224.0.0.251", 5353)
PTR, TXT = 12, 16
DEADLINE = 20.0
POLL = 0.02

MakeNeighbourhood = Callable[..., Any]


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(DEADLINE):
        while not condition():  # noqa: ASYNC110 (it is another thread that counts)
            await trio.sleep(POLL)


# Packets, laid out by hand


def name(text: str) -> bytes:
    return b"".join(bytes([len(p)]) + p.encode() for p in text.rstrip(".").split(".")) + b"\0"


def record(owner: str, kind: int, flags: int, life: int, data: bytes) -> bytes:
    return name(owner) + struct.pack(">HHIH", kind, flags, life, len(data)) + data


def rust_answer(service: str, random_name: str, *strings: str) -> bytes:
    """As rust-libp2p sends it: PTR to a name of one label, one TXT record for each address."""
    out = struct.pack(">6H", 0x1234, 0x8400, 0, 1, 0, len(strings))
    out += record(service, PTR, 0x0001, 360, name(random_name))
    for string in strings:
        data = bytes([len(string)]) + string.encode()
        out += record(random_name, TXT, 0x8001, 360, data)
    return out


def js_answer(service: str, label: str, *strings: str) -> bytes:
    """As @libp2p/mdns sends it: all in the answer section."""
    full = f"{label}.{service}"
    out = struct.pack(">6H", 0, 0x8400, 0, 1 + len(strings), 0, 0)
    out += record(service, PTR, 0x0001, 120, name(full))
    for string in strings:
        out += record(full, TXT, 0x0001, 120, bytes([len(string)]) + string.encode())
    return out


def query(service: str) -> bytes:
    return struct.pack(">6H", 7, 0, 1, 0, 0, 0) + name(service) + struct.pack(">HH", PTR, 1)


def dnsaddr(addr: Multiaddr, peer: PeerId) -> str:
    return f"dnsaddr={with_peer(addr, peer)}"


def check_answer(packet: bytes, service: str, label: str) -> None:
    """PTR as the one answer, and our strings in the additional section, of one packet."""
    questions, answers, authorities, additional = struct.unpack(">4H", packet[4:12])
    assert (answers, authorities) == (1, 0)
    assert additional >= 2
    assert questions <= 1
    assert len(packet) <= 1460
    first, *others = DNSIncoming(packet).answers()
    assert isinstance(first, DNSPointer)
    assert (first.type, first.name, first.ttl) == (PTR, service, TTL_SECONDS)
    assert first.alias == f"{label}.{service}"
    (text,) = [one for one in others if isinstance(one, DNSText)]
    string = dnsaddr(AT_OWN, OWN).encode()
    assert (text.name, text.text) == (first.alias, bytes([len(string)]) + string)
    assert {one.type for one in others} >= {TXT, 33, 1}  # go needs SRV and A


async def answer_at(sock: trio.socket.SocketType, service: str) -> bytes:
    """Wait for an answer that names the service."""
    while True:
        packet = await sock.recv(9000)
        if packet[2] & 0x80 and name(service)[:-1] in packet:
            return packet


# Finding each other


async def test_two_nodes_find_each_other(neighbourhood: MakeNeighbourhood) -> None:
    own, bob = neighbourhood(OWN, AT_OWN), neighbourhood(BOB, AT_BOB)
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            await nursery.start(own.mdns.run)
            await until(lambda: own.mdns.state.answers > 0)  # it runs before the other starts
            await nursery.start(bob.mdns.run)
            await own.wait_found(BOB, AT_BOB)
            await bob.wait_found(OWN, AT_OWN)
            assert own.mdns.state.verdict == "LAN discovery is on"
            assert own.mdns.state.name != bob.mdns.state.name
            nursery.cancel_scope.cancel()
    assert set(own.found) == {BOB}
    assert set(bob.found) == {OWN}
    assert own.mdns.state.reach == 0


async def test_a_new_address_is_announced(
    neighbourhood: MakeNeighbourhood, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mdns, "POLL_SECONDS", 0.2)
    own, bob = neighbourhood(OWN), neighbourhood(BOB, AT_BOB)
    addrs: list[Multiaddr] = []
    own.mdns._addrs = lambda: addrs
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            await nursery.start(own.mdns.run)
            await nursery.start(bob.mdns.run)
            await own.wait_found(BOB, AT_BOB)
            assert bob.found == {}
            for number in (1, 2):
                addrs[:] = [tcp_addr("10.0.0.1", number)]
                await bob.wait_found(OWN, addrs[0])
            nursery.cancel_scope.cancel()


async def test_goodbye_is_said_within_two_seconds(
    neighbourhood: MakeNeighbourhood, service: str, listening: trio.socket.SocketType
) -> None:
    own = neighbourhood(OWN, AT_OWN)
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            await nursery.start(own.mdns.run)
            await until(lambda: own.mdns.state.answers > 0)
            nursery.cancel_scope.cancel()
            began = trio.current_time()
        assert trio.current_time() - began < 2
        while True:
            records = DNSIncoming(await answer_at(listening, service)).answers()
            if all(one.ttl == 0 for one in records):
                break
    assert {one.type for one in records} >= {PTR, TXT}


# Others' packets


async def test_answers_of_rust_and_js_are_understood(
    neighbourhood: MakeNeighbourhood, service: str, asking: trio.socket.SocketType
) -> None:
    own = neighbourhood(OWN, AT_OWN)
    eve = PrivateKey(bytes([3]) * 32).peer_id
    second = tcp_addr("10.1.2.3", 9)
    loopback = tcp_addr("127.0.0.1", 4001)
    rust = rust_answer(
        service,
        "aZ3" * 12,
        *(dnsaddr(addr, BOB) for addr in (loopback, AT_BOB, second)),
    )
    js = js_answer(service, "q" * 40, dnsaddr(AT_BOB, eve))
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            await nursery.start(own.mdns.run)
            await until(lambda: own.mdns.state.reach > 0)
            await asking.sendto(rust, TO_ALL)
            await own.wait_found(BOB, second)
            await asking.sendto(js, TO_ALL)
            await own.wait_found(eve, AT_BOB)
            nursery.cancel_scope.cancel()
    assert own.found == {BOB: [AT_BOB, second], eve: [AT_BOB]}


async def test_a_query_is_answered_in_one_packet(
    neighbourhood: MakeNeighbourhood,
    service: str,
    asking: trio.socket.SocketType,
    listening: trio.socket.SocketType,
) -> None:
    own = neighbourhood(OWN, AT_OWN)
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            await nursery.start(own.mdns.run)
            await until(lambda: own.mdns.state.answers > 0)
            await asking.sendto(query(service), TO_ALL)
            check_answer(await answer_at(asking, service), service, own.mdns.state.name)
            check_answer(await answer_at(listening, service), service, own.mdns.state.name)
            nursery.cancel_scope.cancel()


async def test_hostile_packets_do_no_harm(
    neighbourhood: MakeNeighbourhood, service: str, asking: trio.socket.SocketType
) -> None:
    own = neighbourhood(OWN, AT_OWN)
    good = rust_answer(service, "x" * 32, dnsaddr(AT_BOB, BOB))
    loop = good[:12] + b"\xc0\x0c" + good[12:]
    crowd = rust_answer(service, "y" * 32, *["dnsaddr=" + "/" * 200] * 30)
    liar = struct.pack(">6H", 0, 0x8400, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF) + good[12:]
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            await nursery.start(own.mdns.run)
            await until(lambda: own.mdns.state.reach > 0)
            for cut in range(len(good)):
                await asking.sendto(good[:cut], TO_ALL)
            for packet in (loop, crowd, liar, good[:-3] + bytes(8900 - len(good))):
                await asking.sendto(packet, TO_ALL)
            await until(lambda: own.mdns.state.refused >= 30)
            await asking.sendto(good, TO_ALL)
            await own.wait_found(BOB, AT_BOB)
            assert own.mdns.state.verdict == "LAN discovery is on"
            nursery.cancel_scope.cancel()
    assert set(own.found) == {BOB}


async def test_a_flood_stays_bounded_and_is_counted(
    neighbourhood: MakeNeighbourhood, service: str, asking: trio.socket.SocketType
) -> None:
    own = neighbourhood(OWN, AT_OWN)
    state = own.mdns._neighbours
    began = trio.current_time()
    with trio.fail_after(3 * DEADLINE):
        async with trio.open_nursery() as nursery:
            await nursery.start(own.mdns.run)
            await until(lambda: own.mdns.state.answers > 0)
            sent = 10_000
            for number in range(sent):
                peer = PeerId(b"\x00\x24\x08\x01\x12\x20" + number.to_bytes(32, "big"))
                heard = state.answers
                await asking.sendto(
                    rust_answer(service, f"n{number}", dnsaddr(AT_BOB, peer)), TO_ALL
                )
                if number % 50 == 0:  # so that the kernel does not drop most of them
                    with trio.move_on_after(0.1):
                        while state.answers == heard:  # noqa: ASYNC110
                            await trio.sleep(0.001)
            took = trio.current_time() - began
            await until(lambda: state.floods > sent // 10)
            nursery.cancel_scope.cancel()
    assert own.calls + own.mdns.state.dropped == own.mdns.state.told <= NEWS_BURST + took + 2
    assert len(state) <= MAX_PEERS
    assert len(own.mdns._waiting) <= MAX_WAITING


async def test_a_slow_node_drops_and_counts(multicast: None) -> None:
    """What crosses into trio waits in a bounded queue, whatever trio is about."""
    node = Mdns(real_environment(), OWN, list, lambda peer, addrs: None)
    token = trio.lowlevel.current_trio_token()
    for _ in range(3 * MAX_WAITING):
        node._cross(Neighbour(BOB, (AT_BOB,)), token)
    assert len(node._waiting) == MAX_WAITING
    assert node.state.dropped == 2 * MAX_WAITING


@pytest.mark.parametrize(
    ("source", "near"),
    [
        ("192.168.1.7", True),
        ("127.0.0.1", True),
        ("::ffff:10.0.0.1", True),
        ("fe80::1%eth0", True),
        ("169.254.3.4", True),
        ("5.6.7.8", True),
        ("::ffff:5.6.7.8", True),
        ("2001:db8:1::8", True),
        ("5.6.8.8", False),
        ("::ffff:5.6.8.8", False),
        ("2001:db8:2::8", False),
        ("", False),
        ("nonsense", False),
    ],
)
def test_who_is_listened_to(source: str, near: bool) -> None:
    networks = [ip_network("5.6.7.0/24"), ip_network("2001:db8:1::/64")]
    assert mdns_radio.is_near(source, networks) == near


# What can fail


# zeroconf leaves the socket that it could not bind to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_port_that_is_taken_is_a_verdict_and_is_tried_again(
    neighbourhood: MakeNeighbourhood, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mdns, "POLL_SECONDS", 0.2)
    own = neighbourhood(OWN, AT_OWN)
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as taker:
                try:
                    taker.bind(("", 5353))
                except OSError as error:
                    pytest.skip(f"ANOTHER PROGRAM HAS PORT 5353, this is untested: {error}")
                await nursery.start(own.mdns.run)
                await until(lambda: "port 5353 cannot be opened" in own.mdns.state.verdict)
            await until(lambda: own.mdns.state.verdict == "LAN discovery is on")
            nursery.cancel_scope.cancel()
    assert own.mdns.state.verdict == "LAN discovery has ended"


def test_a_thread_that_is_stuck_does_not_hold_up_the_end(multicast: None, service: str) -> None:
    radio = mdns_radio.Radio("x" * 32, service, lambda heard, now: None, ["127.0.0.1"])
    gate = threading.Event()
    radio._soon(gate.wait)
    began = time.monotonic()
    radio.close()
    assert time.monotonic() - began < 2
    gate.set()
    radio.close()


async def test_a_missing_library_is_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shoal.node.nat.mdns_radio", None)
    node = Mdns(real_environment(), OWN, list, lambda peer, addrs: None)
    assert node.state.verdict == "LAN discovery has not started"
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        await until(lambda: "zeroconf cannot be loaded" in node.state.verdict)
        nursery.cancel_scope.cancel()


def test_zeroconf_is_not_loaded_before_it_is_used() -> None:
    code = "import shoal.node.nat.mdns, sys; sys.exit('zeroconf' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
