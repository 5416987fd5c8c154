"""The bytes of PCP, NAT-PMP and rtnetlink, by hand and by chance."""

from __future__ import annotations

import ipaddress
import struct
import sys
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.node.nat.portmap import natpmp, pcp
from shoal.node.nat.portmap.door import Route
from shoal.node.nat.portmap.netlink import read_route, route_request
from shoal.node.nat.portmap.replies import (
    Mapped,
    MapRequest,
    OtherVersion,
    RouterFault,
    Told,
)

IP4 = ipaddress.ip_address("192.168.1.2")
IP6 = ipaddress.ip_address("2001:db8::2")
OUTSIDE = ipaddress.ip_address("5.6.7.8")
NONCE = bytes(range(12))
MAPPED_OUTSIDE = "00000000000000000000ffff05060708"

PCP_GRANT = bytes.fromhex(
    "02 81 00 00"  # version 2, reply to MAP, reserved, SUCCESS
    "00001c20 00000064"  # 7200 s of life, epoch 100
    "000000000000000000000000"  # reserved
    "000102030405060708090a0b 06 000000"  # nonce, TCP, reserved
    "0fe7 9c40" + MAPPED_OUTSIDE  # port 4071 is 40000 outside
)
PMP_GRANT = bytes.fromhex("00 82 0000 00000064 0fe7 9c40 00001c20")
PMP_TOLD = bytes.fromhex("00 80 0000 00000064 05060708")


def test_pcp_requests() -> None:
    assert pcp.announce_request(IP4) == bytes.fromhex(
        "02 00 0000 00000000 00000000000000000000ffffc0a80102"
    )
    asked = MapRequest(4071, 7200, NONCE, 4071)
    assert pcp.map_request(IP4, asked) == bytes.fromhex(
        "02 01 0000 00001c20 00000000000000000000ffffc0a80102"
        "000102030405060708090a0b 06 000000 0fe7 0fe7 00000000000000000000ffff00000000"
    )
    wished = pcp.map_request(IP6, MapRequest(1, 0, NONCE, external_ip=IP6))
    assert wished[8:24] == wished[44:60] == IP6.packed
    assert pcp.map_request(IP6, MapRequest(1, 0, NONCE))[44:60] == bytes(16)


def test_pcp_replies() -> None:
    assert pcp.read_reply(PCP_GRANT) == Mapped(0, 100, 7200, 4071, 40000, OUTSIDE, NONCE)
    assert pcp.read_reply(PCP_GRANT + bytes(8)) == pcp.read_reply(PCP_GRANT)  # an option
    announced = bytes.fromhex("02 80 0000 00000000 00000007") + bytes(12)
    assert pcp.read_reply(announced) == Told(0, 7)
    # What a server of NAT-PMP alone says to PCP.
    assert pcp.read_reply(bytes.fromhex("0080 0001 00000007")) == OtherVersion(0)
    assert pcp.read_reply(bytes.fromhex("0181 0001 0000000000000007") + bytes(12)) == OtherVersion(
        1
    )


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (0, 3, "another version"),
        (1, 1, "no reply"),
        (1, 0x82, "another opcode"),
        (36, 17, "another protocol"),
    ],
)
def test_what_is_no_reply_of_pcp(at: int, value: int, why: str) -> None:
    bad = bytearray(PCP_GRANT)
    bad[at] = value
    with pytest.raises(RouterFault, match=why):
        pcp.read_reply(bytes(bad))


def test_nat_pmp_requests() -> None:
    assert bytes.fromhex("0000") == natpmp.ADDRESS_REQUEST
    asked = MapRequest(4071, 7200, external_port=40000)
    assert natpmp.map_request(asked) == bytes.fromhex("00 02 0000 0fe7 9c40 00001c20")


def test_nat_pmp_replies() -> None:
    assert natpmp.read_reply(PMP_TOLD) == Told(0, 100, OUTSIDE)
    assert natpmp.read_reply(PMP_GRANT) == Mapped(0, 100, 7200, 4071, 40000, None, b"")
    assert natpmp.read_reply(bytes.fromhex("0080 0003 00000064")) == Told(3, 100)
    # What a server of PCP alone says to NAT-PMP.
    assert natpmp.read_reply(bytes.fromhex("0280 0001 00000000 00000064")) == OtherVersion(2)
    for data in ("0283 0000 00000000", "0000 0000 00000000", "0002 0000 00000000"):
        with pytest.raises(RouterFault):
            natpmp.read_reply(bytes.fromhex(data))


def test_every_cut_is_refused() -> None:
    for size in range(len(PCP_GRANT)):
        with pytest.raises(RouterFault):
            pcp.read_reply(PCP_GRANT[:size])
    for whole in (PMP_GRANT, PMP_TOLD):
        for size in range(len(whole)):
            with pytest.raises(RouterFault):
                natpmp.read_reply(whole[:size])
    with pytest.raises(RouterFault):
        pcp.read_reply(PCP_GRANT + bytes(1100))
    with pytest.raises(RouterFault):
        natpmp.read_reply(PMP_GRANT + bytes(1100))


@given(st.binary(max_size=80))
def test_garbage_is_read_or_refused(data: bytes) -> None:
    for read in (pcp.read_reply, natpmp.read_reply):
        with suppress(RouterFault):
            read(data)
    read_route(data, 4)


ADDRESSES = st.ip_addresses()
PORTS = st.integers(0, 65535)
NUMBERS = st.integers(0, 2**32 - 1)


@given(PORTS, NUMBERS, st.binary(min_size=12, max_size=12), PORTS, ADDRESSES, NUMBERS)
def test_an_echoed_request_of_pcp_reads_back(
    port: int,
    life: int,
    nonce: bytes,
    external: int,
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
    epoch: int,
) -> None:
    asked = pcp.map_request(IP4, MapRequest(port, life, nonce, external, ip))
    reply = struct.pack(">BBHII12x", 2, 0x81, 0, life, epoch) + asked[24:]
    said = ip
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        said = ip.ipv4_mapped
    assert pcp.read_reply(reply) == Mapped(0, epoch, life, port, external, said, nonce)


@given(PORTS, NUMBERS, PORTS, NUMBERS)
def test_an_echoed_request_of_nat_pmp_reads_back(
    port: int, life: int, external: int, epoch: int
) -> None:
    asked = natpmp.map_request(MapRequest(port, life, external_port=external))
    reply = struct.pack(">BBHI", 0, 0x82, 0, epoch) + asked[4:]
    assert natpmp.read_reply(reply) == Mapped(0, epoch, life, port, external, None, b"")


@pytest.mark.parametrize(
    ("seconds", "epoch", "pcp_says", "pmp_says"),
    [
        (100, 200, False, False),
        (100, 192, False, False),  # the router's clock may be slow …
        (100, 206, False, False),  # … or fast, by a sixteenth
        (100, 150, True, True),
        (100, 300, True, False),  # NAT-PMP minds only what is too little
        (0, 99, False, False),
        (0, 97, True, True),
        (3600, 5, True, True),
    ],
)
def test_a_restart_shows_in_the_epoch(
    seconds: float, epoch: int, pcp_says: bool, pmp_says: bool
) -> None:
    before, after = (100, 50.0), (epoch, 50.0 + seconds)
    assert pcp.has_restarted(before, after) is pcp_says
    assert natpmp.has_restarted(before, after) is pmp_says


# The way to the internet


def answer(*attributes: tuple[int, bytes], kind: int = 24) -> bytes:
    body = bytes(12)
    for number, value in attributes:
        body += struct.pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body


def test_the_kernel_tells_the_way() -> None:
    gateway = ipaddress.ip_address("192.168.1.1")
    index = (3).to_bytes(4, sys.byteorder)
    whole = answer((1, OUTSIDE.packed), (4, index), (5, gateway.packed), (7, IP4.packed))
    assert read_route(whole, 4) == Route(IP4, gateway, 3)
    assert read_route(answer((4, index), (7, IP4.packed)), 4) == Route(IP4, None, 3)
    assert read_route(answer((7, IP6.packed)), 6) == Route(IP6, None, 0)
    assert read_route(answer((5, gateway.packed)), 4) is None
    assert read_route(answer((7, IP4.packed), kind=2), 4) is None  # unreachable
    for size in range(len(whole)):
        assert read_route(whole[:size], 4) is None
    endless = bytearray(whole)
    endless[28:30] = bytes(2)
    assert read_route(bytes(endless), 4) is None


def test_asking_the_kernel() -> None:
    for ip in (IP4, IP6):
        asked = route_request(ip)
        assert int.from_bytes(asked[:4], sys.byteorder) == len(asked)
        assert asked.endswith(ip.packed)
