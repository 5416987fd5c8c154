"""What a server answers, to whom, and what it refuses."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multiaddr import Multiaddr

from shoal.dht.keyspace import key_of, nearest
from shoal.dht.providers import ProviderStore
from shoal.dht.responder import MAX_PROVIDERS, Asker, Responder
from shoal.dht.table import Table
from shoal.wire.addresses import Scope
from shoal.wire.errors import PeerFault
from shoal.wire.ids import PeerId
from shoal.wire.kad import KadMessage, KadPeer, MessageType

CONTENT = b"\x12\x20" + bytes(32)
GLOBAL = Multiaddr("/ip4/203.0.113.7/tcp/4001")
LAN = Multiaddr("/ip4/192.168.1.7/tcp/4001")
LOCAL = Multiaddr("/ip4/127.0.0.1/tcp/4001")
ALL = (LOCAL, LAN, GLOBAL)


def peer(number: int) -> PeerId:
    return PeerId(b"\x12\x20" + number.to_bytes(32, "big"))


ME = peer(10**9)


class Node:
    """A responder with what it knows."""

    def __init__(self, contacts: int = 0) -> None:
        self.table = Table(ME)
        self.store = ProviderStore()
        self.known: dict[PeerId, tuple[Multiaddr, ...]] = {ME: ALL}
        self.ours: set[bytes] = set()
        for n in range(contacts):
            self.table.answered(peer(n), ALL, None, 0.0)
        self.responder = Responder(
            ME,
            self.table,
            self.store,
            random.Random(1),
            lambda p: self.known.get(p, ()),
            lambda key: ALL if key in self.ours else None,
        )

    def ask(
        self,
        kind: MessageType,
        key: bytes = CONTENT,
        *,
        asker: int = 5000,
        scope: Scope = Scope.GLOBAL,
        group: bytes | None = None,
        providers: tuple[KadPeer, ...] = (),
    ) -> KadMessage:
        answer = self.tell(kind, key, asker=asker, scope=scope, group=group, providers=providers)
        assert answer is not None
        assert answer.type is kind
        return answer

    def tell(
        self,
        kind: MessageType,
        key: bytes = CONTENT,
        *,
        asker: int = 5000,
        scope: Scope = Scope.GLOBAL,
        group: bytes | None = None,
        providers: tuple[KadPeer, ...] = (),
    ) -> KadMessage | None:
        message = KadMessage(kind, key, providers=providers)
        return self.responder.answer(message, Asker(peer(asker), scope, group), 1000.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 300), st.integers(0, 400), st.integers(0, 400))
def test_the_nearest_twenty_without_the_asker(contacts: int, asker: int, target: int) -> None:
    node = Node(contacts)
    answer = node.ask(MessageType.FIND_NODE, peer(target).raw, asker=asker)
    named = [entry.peer_id for entry in answer.closer]
    everyone = [c.peer for c in node.table if c.peer != peer(asker) or asker == target]
    assert named == nearest(everyone, peer(target).key, lambda p: p.key)[:20]


def test_the_asker_and_ourselves_are_named_when_asked_for() -> None:
    node = Node(30)
    assert node.ask(MessageType.FIND_NODE, ME.raw).closer[0].peer_id == ME
    assert node.ask(MessageType.FIND_NODE, peer(3).raw, asker=3).closer[0].peer_id == peer(3)
    others = node.ask(MessageType.FIND_NODE, CONTENT, asker=3).closer
    assert {ME, peer(3)} & {entry.peer_id for entry in others} == set()


def test_a_client_is_named_when_it_is_what_was_asked_for() -> None:
    node = Node(30)
    node.known[peer(777)] = (GLOBAL,)
    answer = node.ask(MessageType.FIND_NODE, peer(777).raw)
    assert answer.closer[0] == KadPeer(peer(777), (GLOBAL,), answer.closer[0].connection)
    assert len(answer.closer) == 20
    assert peer(777) not in [e.peer_id for e in node.ask(MessageType.FIND_NODE).closer]


@pytest.mark.parametrize(
    ("scope", "told"),
    [
        (Scope.LOOPBACK, {LOCAL, LAN, GLOBAL}),
        (Scope.PRIVATE, {LAN, GLOBAL}),
        (Scope.GLOBAL, {GLOBAL}),
    ],
)
def test_addresses_are_told_by_the_scope_rule(scope: Scope, told: set[Multiaddr]) -> None:
    node = Node(5)
    node.ours.add(CONTENT)
    node.store.add(CONTENT, peer(1), ALL, None, 1000.0)
    answer = node.ask(MessageType.GET_PROVIDERS, scope=scope)
    assert all(set(entry.addrs) == told for entry in answer.closer + answer.providers)
    assert {entry.peer_id for entry in answer.providers} == {ME, peer(1)}


def test_who_has_no_address_for_the_asker_leaves_room_for_others() -> None:
    node = Node()
    for n in range(40):
        node.table.answered(peer(n), (LAN,) if n % 2 else (GLOBAL,), None, 0.0)
    named = node.ask(MessageType.FIND_NODE).closer
    assert len(named) >= 18
    assert all(entry.addrs for entry in named)


def test_an_announcement_is_kept_for_its_sender_alone() -> None:
    node = Node()
    entries = (KadPeer(peer(8), (GLOBAL,)), KadPeer(peer(9), (GLOBAL, LAN)))
    assert node.tell(MessageType.ADD_PROVIDER, asker=9, providers=entries) is None
    (found,) = node.ask(MessageType.GET_PROVIDERS).providers
    assert found.peer_id == peer(9)
    assert found.addrs == (GLOBAL,)


def test_an_asker_is_not_told_of_itself() -> None:
    node = Node()
    node.store.add(CONTENT, peer(9), ALL, None, 1000.0)
    assert node.ask(MessageType.GET_PROVIDERS, asker=9).providers == ()


def test_a_provider_whose_addresses_are_old_is_told_with_what_is_known_now() -> None:
    node = Node()
    node.store.add(CONTENT, peer(9), (), None, 1000.0)
    assert node.ask(MessageType.GET_PROVIDERS).providers[0].addrs == ()
    node.known[peer(9)] = (GLOBAL,)
    assert node.ask(MessageType.GET_PROVIDERS).providers[0].addrs == (GLOBAL,)


def test_the_largest_answer_stays_under_16_kib() -> None:
    node = Node()
    long = tuple(Multiaddr(f"/ip6/2001:db8::{n}/tcp/4001/tls/ws") for n in range(1, 9))
    for n in range(300):
        node.table.answered(peer(n), long, None, 0.0)
        node.store.add(CONTENT, peer(n), long, None, 1000.0)
    answer = node.ask(MessageType.GET_PROVIDERS)
    assert len(answer.providers) == MAX_PROVIDERS
    data = answer.encode()
    assert len(data) <= 16 * 1024
    read = KadMessage.decode(data)
    assert len(read.providers) == MAX_PROVIDERS
    assert all(len(entry.addrs) <= 8 for entry in read.closer + read.providers)


def test_values_are_not_kept() -> None:
    node = Node(30)
    assert len(node.ask(MessageType.GET_VALUE, b"/pk/x").closer) == 20
    with pytest.raises(PeerFault, match="kad-put-value"):
        node.tell(MessageType.PUT_VALUE, b"/pk/x")


def test_ping_is_answered() -> None:
    assert Node().ask(MessageType.PING, b"").closer == ()


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (MessageType.FIND_NODE, b""),
        (MessageType.GET_VALUE, b""),
        (MessageType.GET_PROVIDERS, b""),
        (MessageType.GET_PROVIDERS, bytes(81)),
        (MessageType.ADD_PROVIDER, b""),
        (MessageType.ADD_PROVIDER, bytes(81)),
    ],
)
def test_keys_out_of_bounds_end_the_stream(kind: MessageType, key: bytes) -> None:
    with pytest.raises(PeerFault, match="key"):
        Node().tell(kind, key)


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_are_a_place_to_walk_to(key: bytes) -> None:
    node = Node(25)
    named = [entry.peer_id for entry in node.ask(MessageType.FIND_NODE, key).closer]
    everyone = [c.peer for c in node.table]
    assert named == nearest(everyone, key_of(key), lambda p: p.key)[:20]
