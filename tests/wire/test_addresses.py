"""What addresses mean: scopes, the rule on what to tell and take, text and hostile bytes."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multiaddr import Multiaddr

from shoal.wire import varint
from shoal.wire.addresses import (
    MAX_ADDR_BYTES,
    MAX_PARTS,
    Scope,
    acceptable,
    host_port,
    ip_group,
    ip_of,
    is_name,
    is_tellable,
    multiaddr_from_bytes,
    parse_multiaddr,
    peer_of,
    scope_of,
    tcp_addr,
    with_peer,
    without_peer,
)
from shoal.wire.errors import InvalidText, PeerFault
from shoal.wire.ids import PeerId
from shoal.wire.scopes import is_dialable_ip, scope_of_ip

PEER = PeerId.parse("12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq")
RELAY = PeerId.parse("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N")

ips = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
ports = st.integers(1, 65535)

SCOPES = [
    ("127.0.0.1", Scope.LOOPBACK),
    ("127.255.255.255", Scope.LOOPBACK),
    ("::1", Scope.LOOPBACK),
    ("::ffff:127.0.0.1", Scope.LOOPBACK),
    ("64:ff9b::127.0.0.1", Scope.LOOPBACK),
    ("2002:7f00:1::", Scope.LOOPBACK),
    ("10.0.0.0", Scope.PRIVATE),
    ("10.255.255.255", Scope.PRIVATE),
    ("172.16.0.0", Scope.PRIVATE),
    ("172.31.255.255", Scope.PRIVATE),
    ("192.168.0.0", Scope.PRIVATE),
    ("192.168.255.255", Scope.PRIVATE),
    ("169.254.169.254", Scope.PRIVATE),
    ("100.64.0.0", Scope.PRIVATE),
    ("100.127.255.255", Scope.PRIVATE),
    ("192.0.0.8", Scope.PRIVATE),
    ("fe80::1", Scope.PRIVATE),
    ("fec0::1", Scope.PRIVATE),
    ("fc00::1", Scope.PRIVATE),
    ("fdff::1", Scope.PRIVATE),
    ("64:ff9b::10.0.0.1", Scope.PRIVATE),
    ("64:ff9b:1::1", Scope.PRIVATE),
    ("2002:c0a8:101::1", Scope.PRIVATE),
    ("::7f00:1", Scope.PRIVATE),
    ("100::1", Scope.PRIVATE),
    ("9.255.255.255", Scope.GLOBAL),
    ("11.0.0.0", Scope.GLOBAL),
    ("126.255.255.255", Scope.GLOBAL),
    ("128.0.0.0", Scope.GLOBAL),
    ("172.15.255.255", Scope.GLOBAL),
    ("172.32.0.0", Scope.GLOBAL),
    ("192.167.255.255", Scope.GLOBAL),
    ("192.169.0.0", Scope.GLOBAL),
    ("100.63.255.255", Scope.GLOBAL),
    ("100.128.0.0", Scope.GLOBAL),
    ("203.0.113.1", Scope.GLOBAL),
    ("2000::", Scope.GLOBAL),
    ("3fff::1", Scope.GLOBAL),
    ("2001:db8::1", Scope.GLOBAL),
    ("2002:808:808::1", Scope.GLOBAL),
    ("64:ff9b::8.8.8.8", Scope.GLOBAL),
]
UNDIALABLE = [
    "0.0.0.0",
    "0.1.2.3",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "ff02::1",
    "ffff::1",
    "::ffff:0.0.0.0",
    "64:ff9b::224.0.0.1",
    "2002:ffff:ffff::1",
]


@pytest.mark.parametrize(("host", "scope"), SCOPES)
def test_how_far_an_address_reaches(host: str, scope: Scope) -> None:
    ip = ipaddress.ip_address(host)
    assert scope_of_ip(ip) is scope
    assert scope_of(tcp_addr(host, 1)) is scope
    assert is_dialable_ip(ip)


@pytest.mark.parametrize("host", UNDIALABLE)
def test_what_can_never_be_dialled(host: str) -> None:
    assert not is_dialable_ip(ipaddress.ip_address(host))
    version = ipaddress.ip_address(host).version
    for addr in (tcp_addr(host, 1), Multiaddr(f"/ip{version}/{host}/tcp/1")):
        assert not acceptable(addr, Scope.LOOPBACK)


def test_the_scope_rule() -> None:
    loopback, private, everywhere = (
        tcp_addr(host, 4071) for host in ("127.0.0.1", "192.168.1.2", "203.0.113.5")
    )
    told = {
        scope: [a for a in (loopback, private, everywhere) if is_tellable(a, scope)]
        for scope in Scope
    }
    assert told == {
        Scope.LOOPBACK: [loopback, private, everywhere],
        Scope.PRIVATE: [private, everywhere],
        Scope.GLOBAL: [everywhere],
    }


@pytest.mark.parametrize(
    "text",
    [
        "/dns4/example.org/tcp/4071",
        "/dnsaddr/example.org",
        "/ip4/203.0.113.5/tcp/1/p2p-circuit",
        f"/dns4/example.org/tcp/1/p2p/{RELAY}/p2p-circuit",
        f"/ip4/203.0.113.5/tcp/0/p2p/{RELAY}/p2p-circuit",
        f"/ip4/203.0.113.5/tcp/1/p2p/{RELAY}/p2p-circuit/p2p/{PEER}/p2p-circuit",
        "/ip4/203.0.113.5/tcp/0",
        "/ip4/203.0.113.5/udp/0/quic-v1",
        "/ip6/fe80::1/tcp/4071",
        "/ip6zone/eth0/ip6/fe80::1/tcp/4071",
        "/ip6zone/eth0/ip6/2001:db8::1/tcp/4071",
        f"/p2p/{PEER}",
        "/tcp/4071",
    ],
)
def test_what_is_never_taken_from_a_peer(text: str) -> None:
    assert not acceptable(parse_multiaddr(text), Scope.LOOPBACK)


@given(ips, ports)
def test_host_and_port_come_back(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> None:
    addr = tcp_addr(str(ip), port)
    plain = getattr(ip, "ipv4_mapped", None) or ip
    assert host_port(addr) == (str(plain), port)
    assert host_port(with_peer(addr, PEER)) == (str(plain), port)
    assert ip_of(addr) == plain
    assert acceptable(addr, Scope.LOOPBACK) <= is_dialable_ip(ip)


def test_only_plain_tcp_has_host_and_port() -> None:
    assert host_port(parse_multiaddr("/ip6zone/eth0/ip6/fe80::1/tcp/1")) == ("fe80::1%eth0", 1)
    assert str(tcp_addr("fe80::1%eth0", 1)) == "/ip6zone/eth0/ip6/fe80::1/tcp/1"
    for text in (
        "/ip4/203.0.113.5/udp/1/quic-v1",
        "/ip4/203.0.113.5/tcp/1/ws",
        "/dns4/example.org/tcp/1",
        "/ip4/203.0.113.5",
        f"/ip4/203.0.113.5/tcp/1/p2p/{RELAY}/p2p-circuit",
    ):
        assert host_port(parse_multiaddr(text)) is None


def test_names_have_to_be_resolved() -> None:
    assert [
        is_name(parse_multiaddr(text))
        for text in ("/dns/a.org/tcp/1", "/dns6/a.org/tcp/1", "/dnsaddr/a.org", "/ip4/1.2.3.4")
    ] == [True, True, True, False]
    assert scope_of(parse_multiaddr("/dns4/localhost/tcp/1")) is None


def test_the_peer_at_the_end() -> None:
    plain = parse_multiaddr("/ip4/203.0.113.5/tcp/1")
    relayed = parse_multiaddr(f"/ip4/203.0.113.5/tcp/1/p2p/{RELAY}/p2p-circuit")
    for addr in (plain, relayed):
        assert peer_of(addr) is None
        assert without_peer(addr) == addr
        assert peer_of(with_peer(addr, PEER)) == PEER
        assert without_peer(with_peer(addr, PEER)) == addr
        assert with_peer(with_peer(addr, RELAY), PEER) == with_peer(addr, PEER)
        assert str(with_peer(addr, PEER)) == f"{addr}/p2p/{PEER}"


def test_groups_of_global_addresses() -> None:
    group = {host: ip_group(tcp_addr(host, 1)) for host, _ in SCOPES}
    assert group["203.0.113.1"] == b"\x04\xcb\x00"
    assert group["2001:db8::1"] == b"\x06\x20\x01\x0d\xb8"
    assert group["64:ff9b::8.8.8.8"] == ip_group(tcp_addr("8.8.4.4", 2)) == b"\x04\x08\x08"
    assert all((group[host] is not None) is (scope is Scope.GLOBAL) for host, scope in SCOPES)
    assert ip_group(parse_multiaddr("/dns4/example.org/tcp/1")) is None


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("/ip4/1.2.3.4/tcp/5/", "/ip4/1.2.3.4/tcp/5"),
        (f"/ip4/1.2.3.4/tcp/5/ipfs/{RELAY}", f"/ip4/1.2.3.4/tcp/5/p2p/{RELAY}"),
        (
            "/dns4/a.org/tcp/5/p2p/bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe",
            f"/dns4/a.org/tcp/5/p2p/{RELAY}",
        ),
        ("/dns4/bücher.example/tcp/5", "/dns4/bücher.example/tcp/5"),
        ("/dns4/xn--bcher-kva.example/tcp/5", "/dns4/xn--bcher-kva.example/tcp/5"),
        ("/ip6/2001:DB8:0::1/udp/5/quic-v1", "/ip6/2001:db8::1/udp/5/quic-v1"),
        (f"/p2p/{PEER}", f"/p2p/{PEER}"),
    ],
)
def test_texts_that_people_give(text: str, read: str) -> None:
    assert str(parse_multiaddr(text)) == read
    assert peer_of(parse_multiaddr(text)) in (None, PEER, RELAY)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "must begin with /"),
        ("192.0.2.1:4071", "must begin with /"),
        ("/", "'' is no kind of address"),
        ("//", "'' is no kind of address"),
        ("/unix/tmp/x", "'unix' is no kind of address"),
        ("/ip4/192.0.2.1/tcp", "nothing stands behind tcp"),
        ("/ip4/192.0.2/tcp/1", "'192.0.2' cannot stand behind ip4"),
        ("/ip4/192.0.2.1/tcp/65536", "'65536' cannot stand behind tcp"),
        ("/ip4/192.0.2.1/tcp/-1", "'-1' cannot stand behind tcp"),
        ("/ip4/192.0.2.1/tcp/1/p2p/Qmx", "'Qmx' cannot stand behind p2p"),
        ("/dns4/a..b/tcp/1", "'a..b' cannot stand behind dns4"),
        ("/ip4/192.0.2.1" * (MAX_PARTS + 1), "too many parts"),
        ("/tls" * 1_000_000, "over 2048 characters"),
    ],
)
def test_a_bad_text_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(InvalidText) as caught:
        parse_multiaddr(text)
    assert why in str(caught.value)
    assert "they look like /ip4/" in str(caught.value)


@settings(max_examples=150)
@given(
    st.one_of(
        st.text(max_size=60),
        st.lists(
            st.sampled_from(
                ["ip4", "ip6", "tcp", "p2p", "dns4", "1.2.3.4", "::1", "1", "", "=", "\0"]
            )
        ).map(lambda words: "/" + "/".join(words)),
    )
)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        addr = parse_multiaddr(text)
    except InvalidText:
        return
    assert parse_multiaddr(str(addr)) == addr


def test_names_of_other_scripts_are_for_the_user_alone() -> None:
    for name in ("bücher.example", "xn--bcher-kva.example"):
        addr = parse_multiaddr(f"/dns4/{name}/tcp/5")
        assert is_name(addr)
        with pytest.raises(PeerFault):
            multiaddr_from_bytes(addr.to_bytes())


GOOD = [
    "/ip4/203.0.113.5/tcp/1",
    "/ip6/2001:db8::1/udp/1/quic-v1",
    "/ip6/2001:db8::1/udp/1/quic-v1/webtransport/certhash/uEiDDq4_xNyDorZBH3TlGazyJdOWSwvo4PUo5YHFMrvDE8g",
    f"/dns4/example.org/tcp/443/tls/sni/example.org/ws/p2p/{PEER}",
    f"/ip4/203.0.113.5/tcp/1/p2p/{RELAY}/p2p-circuit/p2p/{PEER}",
    "/ip6zone/eth0/ip6/fe80::1/tcp/1",
]


@pytest.mark.parametrize("text", GOOD)
def test_the_wire_form_is_read_whole_or_not_at_all(text: str) -> None:
    data = Multiaddr(text).to_bytes()
    assert str(multiaddr_from_bytes(data)) == text
    for cut in range(len(data)):
        # A cut between two parts is an address too; any other is none.
        try:
            shorter = multiaddr_from_bytes(data[:cut])
        except PeerFault:
            continue
        assert text.startswith(str(shorter))
        assert text[len(str(shorter))] == "/"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(MAX_ADDR_BYTES + 1),
        b"\x04\x01\x02\x03",
        b"\x84\x00\x01\x02\x03\x04",  # a padded code
        b"\x36" + varint.encode(varint.MAX_VALUE) + b"a",
        b"\x36\x00",  # an empty name
        b"\x36\x03a/b",
        b"\x36\x02a\n",
        b"\x36\x01\xff",
        b"\xa5\x03\x00",  # an empty peer id
        b"\xa5\x03\x24" + b"\x01\x72" + PEER.raw[2:],
        b"\x90\x03\x01a",  # a unix path
        varint.encode(varint.MAX_VALUE),
        b"\xd6\x03" * (MAX_PARTS + 1),
    ],
)
def test_malformed_bytes_are_a_fault(data: bytes) -> None:
    for _ in range(2):  # remembered or not
        with pytest.raises(PeerFault):
            multiaddr_from_bytes(data)


pieces = st.sampled_from(
    [Multiaddr(text).to_bytes() for text in GOOD]
    + [b"\x04", b"\x06", b"\xa5\x03", b"\x36", b"\x29"]
)


names = st.one_of(
    st.text("aB0-._xn\u00e9\u0663", max_size=70).map(str.encode),
    st.binary(max_size=8),
    st.sampled_from([b"a" * 63, b"a" * 64, b"xn--zzzzzz9999", b"ab--c", b"a.bc--d", b"a-", b"-a"]),
).flatmap(
    lambda name: st.sampled_from([53, 54, 55, 56, 449, 42]).map(
        lambda code: varint.encode(code) + varint.encode(len(name)) + name
    )
)


@settings(max_examples=400)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.lists(st.one_of(pieces, names, st.binary(max_size=6)), max_size=5).map(b"".join),
        names,
    )
)
def test_garbage_is_an_address_with_a_text_form_or_a_fault(data: bytes) -> None:
    strange = Multiaddr(data)  # the library checks nothing
    try:
        addr = multiaddr_from_bytes(data)
    except PeerFault:
        # An address that came another way breaks nothing.
        without_peer(with_peer(strange, PEER))
        host_port(strange), scope_of(strange), ip_group(strange), is_name(strange)
        acceptable(strange, Scope.LOOPBACK)
        return
    assert addr.to_bytes() == data
    assert parse_multiaddr(str(addr)) == addr
    without_peer(addr)
    host_port(addr)
