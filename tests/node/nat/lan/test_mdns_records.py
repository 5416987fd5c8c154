"""What we say over mDNS, and what we believe of what others say: no sockets."""

from __future__ import annotations

import random
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiaddr import Multiaddr

from shoal.node.nat.mdns_records import (
    MAX_ANSWER_ADDRS,
    MAX_ANSWER_PEERS,
    MAX_BYTES,
    MAX_NAME,
    MAX_OWNERS,
    MAX_PEERS,
    MAX_STRINGS,
    MAX_TOLD_BYTES,
    MIN_NAME,
    NAME_SECRET_BYTES,
    NEWS_BURST,
    QUERY_JITTER,
    QUERY_SECONDS,
    RETELL_SECONDS,
    SERVICE,
    Allowance,
    Heard,
    Neighbour,
    Neighbours,
    Told,
    name_of,
    query_delays,
    split_strings,
    told_of,
)
from shoal.wire.addresses import parse_multiaddr, tcp_addr, with_peer
from shoal.wire.ids import PeerId
from shoal.wire.keys import PrivateKey

OWN, BOB, EVE = (PrivateKey(bytes([n]) * 32).peer_id for n in (1, 2, 3))
HERE = tcp_addr("192.168.7.2", 4001)


def peer_number(number: int) -> PeerId:
    return PeerId(b"\x00\x24\x08\x01\x12\x20" + number.to_bytes(32, "big"))


def said(peer: PeerId, *addrs: Multiaddr | str) -> bytes:
    """The strings that a peer sends."""
    texts = [addr if isinstance(addr, str) else str(addr) for addr in addrs]
    return packed(*(f"dnsaddr={text}/p2p/{peer}".encode() for text in texts))


def packed(*strings: bytes) -> bytes:
    return b"".join(bytes([len(string)]) + string for string in strings)


def answer(*records: bytes, name: str = "bob", life: int = 360) -> Heard:
    """A packet as go sends it: all of it under one name inside the service."""
    full = f"{name}.{SERVICE}"
    return Heard(((SERVICE, full),), tuple((full, life, record) for record in records))


@pytest.fixture
def neighbours() -> Neighbours:
    return Neighbours(OWN)


# What we say


@given(st.binary(min_size=NAME_SECRET_BYTES, max_size=NAME_SECRET_BYTES))
def test_names_have_the_form_that_the_specification_asks_for(secret: bytes) -> None:
    name = name_of(secret)
    assert MIN_NAME <= len(name) <= MAX_NAME
    assert name.isascii()
    assert name.isalnum()
    assert name == name.lower() == name_of(secret)


def test_names_are_of_every_length() -> None:
    lengths = {len(name_of(bytes([n]) + bytes(MAX_NAME))) for n in range(256)}
    assert lengths == set(range(MIN_NAME, MAX_NAME + 1))


def test_what_we_tell() -> None:
    told = told_of(OWN, [HERE, with_peer(HERE, OWN), tcp_addr("fd00::1", 4002)])
    assert split_strings(told.text) == [
        b"dnsaddr=/ip4/192.168.7.2/tcp/4001/p2p/" + str(OWN).encode(),
        b"dnsaddr=/ip6/fd00::1/tcp/4002/p2p/" + str(OWN).encode(),
    ]
    assert told.ips == ("192.168.7.2", "fd00::1")
    assert told.port == 4001


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/127.0.0.1/tcp/1",
        "/ip6/::1/tcp/1",
        "/ip4/8.8.8.8/tcp/1",
        "/ip6/2001:4860::1/tcp/1",
        "/ip6/fe80::1/tcp/1",
        "/ip6zone/eth0/ip6/fe80::1/tcp/1",
        "/ip4/0.0.0.0/tcp/1",
        "/ip4/224.0.0.251/udp/5353",
        "/ip4/192.168.7.2/tcp/0",
        "/dns4/example.org/tcp/1",
        "/ip6/64:ff9b::127.0.0.1/tcp/1",
        f"/ip4/192.168.7.2/tcp/1/p2p/{BOB}/p2p-circuit",
    ],
)
def test_places_that_are_neither_told_nor_taken(neighbours: Neighbours, text: str) -> None:
    assert told_of(OWN, [parse_multiaddr(text)]) == Told(b"", (), 0)
    assert neighbours.take(answer(said(BOB, text)), 0) == []
    assert (neighbours.refused, len(neighbours)) == (1, 0)


@given(st.lists(st.tuples(st.ip_addresses(), st.integers(0, 65535)), max_size=40))
def test_an_answer_fits_into_one_packet_and_is_understood(places: list[tuple[str, int]]) -> None:
    told = told_of(OWN, [tcp_addr(str(ip), port) for ip, port in places])
    assert len(told.text) <= MAX_TOLD_BYTES
    found = Neighbours(BOB).take(answer(told.text), 0)
    assert sum(len(one.addrs) for one in found) == len(split_strings(told.text))


def test_an_address_that_is_too_long_for_a_string_is_left_out() -> None:
    long = parse_multiaddr(f"/ip4/10.0.0.1/udp/1/quic-v1/sni/{'a.' * 90}b")
    assert told_of(OWN, [long, HERE]) == told_of(OWN, [HERE])


def test_when_queries_go_out() -> None:
    delays = list(islice(query_delays(random.Random(1)), 20))
    base = [min(0.5 * 2**n, QUERY_SECONDS) for n in range(20)]
    assert all(b <= d <= b * (1 + QUERY_JITTER) for b, d in zip(base, delays, strict=True))
    assert len(set(delays[-5:])) == 5


# What others say


def test_a_peer_is_found_once_and_again_when_it_moves(neighbours: Neighbours) -> None:
    there = tcp_addr("192.168.7.3", 4001)
    assert neighbours.take(answer(said(BOB, HERE)), 0) == [Neighbour(BOB, (HERE,))]
    assert neighbours.take(answer(said(BOB, HERE)), 1) == []
    assert neighbours.take(answer(said(BOB, HERE), name="other"), 1) == []
    assert neighbours.take(answer(said(BOB, there)), 2) == [Neighbour(BOB, (there,))]
    assert neighbours.take(answer(said(BOB, HERE)), 3) == []  # one half and then the other
    assert neighbours.take(answer(said(BOB, there, HERE)), 4) == []
    assert (neighbours.answers, neighbours.told, neighbours.repeats) == (6, 2, 4)


def test_a_peer_that_keeps_answering_is_told_of_again(neighbours: Neighbours) -> None:
    told = [
        at
        for at in range(0, 1000, 100)
        if neighbours.take(answer(said(BOB, HERE)), float(at)) != []
    ]
    assert told == [0, RETELL_SECONDS, 2 * RETELL_SECONDS, 3 * RETELL_SECONDS]


def test_a_goodbye_is_no_answer_and_lets_the_peer_come_back(neighbours: Neighbours) -> None:
    assert neighbours.take(answer(said(BOB, HERE), life=0), 0) == []
    assert neighbours.take(answer(said(BOB, HERE)), 1) != []
    assert neighbours.take(answer(said(BOB, HERE), life=0), 2) == []
    assert len(neighbours) == 0
    assert neighbours.take(answer(said(BOB, HERE)), 3) != []


def test_our_own_answers_say_nothing(neighbours: Neighbours) -> None:
    assert neighbours.take(answer(told_of(OWN, [HERE]).text), 0) == []
    assert (neighbours.answers, neighbours.refused, len(neighbours)) == (1, 0, 0)


def test_names_as_each_implementation_forms_them(neighbours: Neighbours) -> None:
    record = said(BOB, HERE)
    rust = Heard(((SERVICE, "aB3x."),), (("aB3x.", 360, record),))
    assert neighbours.take(rust, 0) == [Neighbour(BOB, (HERE,))]
    bare = Heard((), ((f"Bob.{SERVICE.upper()}", 120, said(EVE, HERE)),))
    assert neighbours.take(bare, 0) == [Neighbour(EVE, (HERE,))]


@pytest.mark.parametrize(
    ("pointers", "owner"),
    [
        ((), "printer._ipp._tcp.local."),
        ((("_ipp._tcp.local.", "x."),), "x."),
        (((SERVICE, "x."),), "y."),
        ((), f"x_{SERVICE}"),
        (tuple((SERVICE, f"n{n}.") for n in range(MAX_OWNERS + 1)), f"n{MAX_OWNERS}."),
    ],
)
def test_records_of_other_services_are_not_read(
    neighbours: Neighbours, pointers: tuple[tuple[str, str], ...], owner: str
) -> None:
    assert neighbours.take(Heard(pointers, ((owner, 360, said(BOB, HERE)),)), 0) == []
    assert neighbours.answers == 0


def test_several_strings_several_records_and_plain_tcp_first(neighbours: Neighbours) -> None:
    quic = parse_multiaddr("/ip4/192.168.7.2/udp/4001/quic-v1")
    other = tcp_addr("10.0.0.1", 1)
    heard = answer(said(BOB, quic, HERE), said(BOB, HERE, other))
    assert neighbours.take(heard, 0) == [Neighbour(BOB, (HERE, other, quic))]


@pytest.mark.parametrize(
    "string",
    [
        b"",
        b"dnsaddr=",
        b"dnsaddr=/",
        b"dnsaddr=/ip4/10.0.0.1/tcp/1",
        b"dnsaddr=/ip4/10.0.0.1/tcp/1/p2p/",
        b"dnsaddr=/ip4/10.0.0.1/tcp/1/p2p/Qm",
        b"dnsaddr=/ip4/10.0.0.1/tcp/1/p2p/12D3KooWnonsense",
        b"dnsaddr=/p2p/" + str(BOB).encode(),
        b"DNSADDR=/ip4/10.0.0.1/tcp/1/p2p/" + str(BOB).encode(),
        b"/ip4/10.0.0.1/tcp/1/p2p/" + str(BOB).encode(),
        b"dnsaddr=/ip4/10.0.0.1/tcp/99999/p2p/" + str(BOB).encode(),
        b"dnsaddr=/ip4/10.0.0.1/tcp/1/p2p/" + str(BOB).encode() + b"/tcp/2",
        b"dnsaddr=\xff\xfe/ip4/10.0.0.1",
        b"dnsaddr=/onion3/abc:1/p2p/" + str(BOB).encode(),
        b"v=1",
    ],
)
def test_malformed_strings_are_counted_and_the_rest_is_taken(
    neighbours: Neighbours, string: bytes
) -> None:
    heard = answer(packed(string) + said(BOB, HERE))
    assert neighbours.take(heard, 0) == [Neighbour(BOB, (HERE,))]
    assert neighbours.refused == (1 if string else 0)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([SERVICE, f"x.{SERVICE}", "x.", "", "."]),
            st.integers(0, 1 << 32),
            st.one_of(
                st.binary(max_size=600),
                st.builds(
                    lambda cut, junk: said(BOB, HERE)[:cut] + junk,
                    st.integers(0, 120),
                    st.binary(max_size=300),
                ),
            ),
        ),
        max_size=20,
    )
)
def test_garbage_never_raises(records: list[tuple[str, int, bytes]]) -> None:
    neighbours = Neighbours(OWN)
    found = neighbours.take(Heard(((SERVICE, "x."),), tuple(records)), 0)
    assert all(0 < len(one.addrs) <= MAX_ANSWER_ADDRS for one in found)


@given(st.binary(max_size=700), st.integers(0, 5))
def test_strings_are_cut_where_the_record_ends(data: bytes, most: int) -> None:
    strings = split_strings(data, most)
    assert len(strings) <= most
    assert sum(1 + len(string) for string in strings) <= len(data)
    assert all(0 < len(string) <= 255 for string in strings)


# Bounds


def test_one_packet_names_so_many_peers_and_addresses(neighbours: Neighbours) -> None:
    many = [tcp_addr("10.0.0.1", port) for port in range(1, 20)]
    (one,) = neighbours.take(answer(said(BOB, *many)), 0)
    assert one.addrs == tuple(many[:MAX_ANSWER_ADDRS])
    crowd = b"".join(said(peer_number(n), HERE) for n in range(20))
    assert len(neighbours.take(answer(crowd), 0)) == MAX_ANSWER_PEERS
    assert neighbours.refused == 20 - MAX_ANSWER_PEERS


def test_one_packet_is_read_up_to_a_bound(neighbours: Neighbours) -> None:
    junk = packed(*[b"x"] * (MAX_STRINGS - 1))
    assert len(neighbours.take(answer(junk, said(BOB, HERE)), 0)) == 1
    assert neighbours.take(answer(junk, b"\x01x", said(EVE, HERE)), 0) == []
    big = packed(*[bytes(255)] * (MAX_BYTES // 256))
    assert neighbours.take(answer(big, said(EVE, HERE)), 0) == []


def test_a_flood_of_new_peers_is_counted_and_forgotten(neighbours: Neighbours) -> None:
    count, seconds = 10_000, 10.0
    found = 0
    for number in range(count):
        heard = answer(said(peer_number(number), HERE))
        found += len(neighbours.take(heard, number * seconds / count))
    assert NEWS_BURST <= found <= NEWS_BURST + seconds
    assert neighbours.floods == count - found
    assert len(neighbours) <= MAX_PEERS
    assert len(neighbours._read) <= MAX_PEERS
    assert neighbours.take(answer(said(BOB, HERE)), seconds + 2) != []


def test_what_is_remembered_stays_bounded_without_a_flood(neighbours: Neighbours) -> None:
    for number in range(2 * MAX_PEERS):
        assert neighbours.take(answer(said(peer_number(number), HERE)), 2.0 * number)
    assert len(neighbours) == len(neighbours._read) == MAX_PEERS


def test_moving_to_and_fro_cannot_make_us_dial_for_ever(neighbours: Neighbours) -> None:
    places = [tcp_addr("10.0.0.1", port) for port in range(1, 1 + 8 * MAX_ANSWER_ADDRS)]
    told = sum(
        len(neighbours.take(answer(said(BOB, *places[at : at + MAX_ANSWER_ADDRS])), 0))
        for _ in range(100)
        for at in range(0, len(places), MAX_ANSWER_ADDRS)
    )
    assert told <= NEWS_BURST
    assert neighbours.floods > 0


@given(st.lists(st.floats(0, 50), max_size=60))
def test_an_allowance_is_never_exceeded(steps: list[float]) -> None:
    allowance, now, passed = Allowance(5, 0.5), 0.0, 0
    for step in steps:
        now += step
        passed += allowance.spend(now)
    assert passed <= 5 + 0.5 * now
