"""What we keep of peers' addresses, and from whom."""

from __future__ import annotations

import pytest
from multiaddr import Multiaddr

from shoal.node.net.peerstore import HEARD_SECONDS, MAX_ADDRS, MAX_PEERS, MET_SECONDS, Peerstore
from shoal.wire.addresses import Scope, parse_multiaddr, tcp_addr, with_peer
from shoal.wire.ids import PeerId
from shoal.wire.keys import PrivateKey

OWN, BOB, EVE = (PrivateKey(bytes([n]) * 32).peer_id for n in (1, 2, 3))
LOOPBACK, PRIVATE, GLOBAL = (tcp_addr(ip, 1) for ip in ("127.0.0.1", "192.168.7.1", "5.6.7.8"))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Peerstore:
    return Peerstore(OWN, clock)


@pytest.mark.parametrize(
    ("told_over", "kept"),
    [
        (Scope.LOOPBACK, {LOOPBACK, PRIVATE, GLOBAL}),
        (Scope.PRIVATE, {PRIVATE, GLOBAL}),
        (Scope.GLOBAL, {GLOBAL}),
        (None, {LOOPBACK, PRIVATE, GLOBAL}),
    ],
)
def test_the_scope_rule(store: Peerstore, told_over: Scope | None, kept: set[Multiaddr]) -> None:
    """A peer on the internet cannot make us dial into our own network."""
    store.add(BOB, [LOOPBACK, PRIVATE, GLOBAL], told_over=told_over)
    assert set(store.addrs(BOB)) == kept


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/0.0.0.0/tcp/1",
        "/ip4/224.0.0.1/tcp/1",
        "/ip4/255.255.255.255/tcp/1",
        "/ip6/::/tcp/1",
        "/ip6/ff02::1/tcp/1",
        "/dns4/example.org/tcp/1",
    ],
)
def test_what_others_may_never_tell(store: Peerstore, text: str) -> None:
    assert store.add(BOB, [parse_multiaddr(text)], told_over=Scope.LOOPBACK) == []
    assert len(store) == 0


def test_addresses_of_another_or_of_ourselves(store: Peerstore) -> None:
    assert store.add(BOB, [with_peer(GLOBAL, EVE)]) == []
    assert store.add(OWN, [GLOBAL]) == []
    assert store.add(BOB, [with_peer(GLOBAL, BOB)]) == [GLOBAL]
    assert store.addrs(BOB) == [GLOBAL]


def test_life_of_addresses(store: Peerstore, clock: Clock) -> None:
    store.add(BOB, [GLOBAL], told_over=Scope.GLOBAL)
    store.add(BOB, [PRIVATE])
    assert store.addrs(BOB) == [PRIVATE, GLOBAL]
    clock.now += HEARD_SECONDS
    assert store.addrs(BOB) == [PRIVATE]
    clock.now += MET_SECONDS
    assert store.addrs(BOB) == []
    store.add(BOB, [GLOBAL], ttl=5)
    store.add(BOB, [GLOBAL], ttl=1)  # never shortens
    clock.now += 3
    assert store.addrs(BOB) == [GLOBAL]


def test_what_was_met_outlives_what_was_told(store: Peerstore) -> None:
    store.add(BOB, [GLOBAL])
    store.add(BOB, [tcp_addr("9.9.9.9", port) for port in range(1, 30)], told_over=Scope.GLOBAL)
    assert len(store.addrs(BOB)) == MAX_ADDRS
    assert store.addrs(BOB)[0] == GLOBAL
    store.forget(BOB, with_peer(GLOBAL, BOB))
    assert GLOBAL not in store.addrs(BOB)


def test_peers_are_bounded_and_the_stalest_goes(store: Peerstore) -> None:
    def peer(number: int) -> PeerId:
        return PeerId(b"\x00\x24\x08\x01\x12\x20" + number.to_bytes(32, "big"))

    for number in range(MAX_PEERS):
        store.add(peer(number), [GLOBAL])
    store.add(peer(0), [GLOBAL])
    store.add(peer(MAX_PEERS), [GLOBAL])
    assert len(store) == MAX_PEERS
    assert store.addrs(peer(0)) == [GLOBAL]
    assert store.addrs(peer(1)) == []


def test_news_is_told_once(store: Peerstore) -> None:
    told: list[PeerId] = []
    store.on_new.append(told.append)
    store.add(BOB, [GLOBAL])
    store.add(BOB, [GLOBAL])
    assert told == [BOB]
    store.add(BOB, [PRIVATE])
    assert told == [BOB, BOB]
