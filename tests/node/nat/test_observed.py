"""How others see us: whom to believe, what is forgotten, and what it says of the NAT."""

from __future__ import annotations

import hashlib

from multiaddr import Multiaddr

from shoal.node.nat.observed import MAX_CANDIDATES, MAX_REPORTS, REPORT_SECONDS, Observations
from shoal.wire.addresses import tcp_addr
from shoal.wire.ids import PeerId
from shoal.wire.keys import PrivateKey

OURS = tcp_addr("5.6.7.8", 4001)
VICTIM = tcp_addr("9.9.9.9", 25)


def observer(number: int) -> PeerId:
    return PrivateKey(hashlib.sha256(number.to_bytes(4, "big")).digest()).peer_id


def say(
    seen: Observations,
    number: int,
    addr: Multiaddr,
    *,
    ip: str = "",
    port: int | None = 4001,
    now: float = 0.0,
    outbound: bool = True,
) -> None:
    """Let an observer say something; without `ip` each is in a /16 of its own."""
    remote = tcp_addr(ip or f"23.{number}.0.1", 4001)
    seen.take(observer(number), addr, remote=remote, port=port, outbound=outbound, now=now)


def test_observers_in_four_networks_confirm_an_address() -> None:
    seen = Observations()
    for number in range(3):
        say(seen, number, OURS)
    assert not seen.confirmed()
    say(seen, 3, OURS)
    assert seen.confirmed() == [OURS]


def test_any_number_of_liars_in_one_network_confirm_nothing() -> None:
    seen = Observations()
    for number in range(200):
        say(seen, number, VICTIM, ip=f"23.1.{number}.1")
    assert not seen.confirmed()
    assert seen.groups() == {VICTIM: 1}


def test_liars_of_one_network_neither_drive_out_nor_outweigh_the_others() -> None:
    seen = Observations()
    for number in range(4):
        say(seen, number, OURS)
    for number in range(100, 100 + 2 * MAX_REPORTS):
        say(seen, number, VICTIM, ip="31.1.0.1")
    assert seen.confirmed() == [OURS]
    # Nor are others asked to dial what they name.
    assert seen.candidates() == [OURS]


def test_a_lone_observer_is_worth_a_try() -> None:
    seen = Observations()
    say(seen, 1, OURS)
    assert seen.candidates() == [OURS]
    for number in range(2, 40):
        say(seen, number, tcp_addr("5.6.7.8", 5000 + number), ip="31.1.0.1")
    assert len(seen.candidates()) == MAX_CANDIDATES


def test_one_that_changes_its_mind_has_one_voice() -> None:
    seen = Observations()
    for number in range(4):
        say(seen, number, OURS)
    for number in range(4):
        say(seen, 3, tcp_addr("5.6.7.8", 4010 + number))
    assert not seen.confirmed()


def test_what_cannot_be_true_is_counted() -> None:
    seen = Observations()
    for addr in ("127.0.0.1", "10.0.0.1", "224.0.0.1", "2001:db8::1"):
        say(seen, 1, tcp_addr(addr, 4001))
    assert seen.refused == 4
    assert not seen.groups()


def test_neighbours_say_nothing_about_how_the_world_sees_us() -> None:
    seen = Observations()
    say(seen, 1, OURS, ip="192.168.1.7")
    assert not seen.candidates()


def test_a_report_lives_as_long_as_its_connection_and_half_an_hour() -> None:
    seen = Observations()
    for number in range(5):
        say(seen, number, OURS)
    for number in range(4):
        seen.still(observer(number), 7200.0)
    seen.expire(7200.0)
    assert seen.groups() == {OURS: 4}
    seen.expire(7200.0 + REPORT_SECONDS)
    assert not seen.groups()


def test_a_nat_that_maps_the_same_for_all_is_told_from_one_that_does_not() -> None:
    same, anew, none = Observations(), Observations(), Observations()
    for number in range(4):
        say(same, number, OURS)
        say(anew, number, tcp_addr("5.6.7.8", 20_000 + number))
        say(none, number, OURS)
    assert same.mapping([tcp_addr("192.168.1.2", 4001)]) == "endpoint-independent"
    assert anew.mapping([tcp_addr("192.168.1.2", 4001)]) == "endpoint-dependent"
    assert none.mapping([OURS]) == "none"


def test_connections_that_say_nothing_of_the_nat_are_left_out() -> None:
    seen = Observations()
    for number in range(4):
        say(seen, number, OURS, outbound=False)
        say(seen, 10 + number, tcp_addr("5.6.7.8", 30_000 + number), port=None)
    assert seen.mapping([]) == "unknown"


def test_one_liar_does_not_change_the_kind_of_nat() -> None:
    seen = Observations()
    for number in range(3):
        say(seen, number, OURS)
    for number in range(10):
        say(seen, 10 + number, tcp_addr("5.6.7.8", 2000 + number), ip="31.1.0.1")
    assert seen.mapping([]) == "endpoint-independent"


def test_ipv6_without_a_nat_does_not_hide_the_nat_of_ipv4() -> None:
    six = tcp_addr("2a00:1::5", 4001)
    seen = Observations()
    for number in range(3):
        say(seen, number, OURS)
        say(seen, 10 + number, six, ip=f"2a0{number}:1::1")
    assert seen.mapping([six, tcp_addr("192.168.1.2", 4001)]) == "endpoint-independent"
