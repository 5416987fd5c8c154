"""One simulated node of the DHT: the shipped rules of `dht/`, and the events that drive them.

The same objects as in `node/find.py`; what is a task there is a chain of calls here: the keeper
(`_work`), the checkers (`_check_more`), the announcer (`_announce`).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from multiaddr import Multiaddr

from ...dht.announcements import AnnounceConfig, Announcements
from ...dht.keyspace import key_of, preimage
from ...dht.lookup import BETA, LookupConfig
from ...dht.neighbours import CHECKERS, Neighbours
from ...dht.providers import ProviderConfig, ProviderStore, SavedRecord
from ...dht.responder import Asker, Responder
from ...dht.table import Table, TableConfig
from ...dht.upkeep import JOIN_AT_ONCE, Job, Rejoining, Upkeep, UpkeepConfig, refresh_plan
from ...dht.walks import FoundProviders, begin, refresh_width
from ...node.find_announce import MAX_WAIT
from ...node.find_memory import MAX_REMEMBERED
from ...node.find_upkeep import SAVE_RECORDS_EVERY
from ...wire.addresses import Scope, ip_group
from ...wire.ids import PeerId
from ...wire.kad import Connectedness, KadMessage, KadPeer, MessageType
from ..clock import EPOCH
from .dht_walk import Announcing, Check, Walk

if TYPE_CHECKING:
    from .dht_network import Network

FIRST_WAKE: Final = 60.0
"""Seconds over which the nodes that are there at the start begin their upkeep."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings of the shipped rules, one for all nodes."""

    table: TableConfig
    lookup: LookupConfig
    upkeep: UpkeepConfig
    providers: ProviderConfig
    announce: AnnounceConfig
    learn: bool = True
    """Whether tables learn; False = they stay as they are, and there is no upkeep."""


class Watch(Protocol):
    """Who wants to know what nodes did."""

    def announced(self, node: Node, began_at: float, hops: int, rpcs: int, taken: int) -> None:
        """Take note of an announcement that is through."""
        ...


class Node:
    """A machine that is on or off; its table and records live for one session.

    Args:
        network: What it is in.
        number: Its place in the network's list.
        peer: Its id.
        addr: Where it is.
        serves: Whether others can reach it; else it is a client of the DHT.
        rules: Of the DHT.
        seed: Of its randomness.
        watch: Told of its announcements.
    """

    __slots__ = (
        *("_announce_at", "_announces", "_batches", "_checking", "_jobs", "_joining"),
        *("_looks", "_reached", "_records", "_records_saved", "_rejoining", "_upkeep"),
        *("_works", "addrs", "announcements", "asker", "draw", "entry", "group"),
        *("links", "neighbours", "network", "number", "online", "peer", "providers"),
        *("remembered", "responder", "rules", "serves", "session", "silent", "skew"),
        *("table", "watch"),
    )

    def __init__(
        self,
        network: Network,
        number: int,
        peer: PeerId,
        addr: Multiaddr,
        serves: bool,
        rules: Rules,
        seed: str,
        watch: Watch,
    ) -> None:
        self.network = network
        self.number = number
        self.peer = peer
        self.addrs = (addr,)
        self.group = ip_group(addr)
        self.serves = serves
        self.entry = KadPeer(peer, self.addrs, Connectedness.CAN_CONNECT)
        self.asker = Asker(peer, Scope.GLOBAL, self.group)
        self.rules = rules
        self.watch = watch
        self.draw = random.Random(seed)
        self.online = False
        self.silent = False
        self.skew = 0.0
        self.session = 0
        self.links: dict[int, None] = {}
        """Nodes that we have a connection with, the one used longest ago first."""
        self.remembered: list[PeerId] = []
        """Contacts of the last session, the last seen first."""
        self.announcements = Announcements(rules.announce)
        self._records: list[SavedRecord] = []
        self._reset()

    def _reset(self) -> None:
        rules, now = self.rules, self.network.time.now
        self.table = Table(self.peer, rules.table)
        self.neighbours = Neighbours(self.table)
        self.providers = ProviderStore(rules.providers)
        self.responder = Responder(
            self.peer, self.table, self.providers, self.draw, self._known, self._provided
        )
        self._upkeep = Upkeep(now, rules.upkeep)
        self._rejoining = Rejoining()
        self._records_saved = now
        self._jobs: deque[Job] = deque()
        self._looks: deque[bytes] = deque()
        self._batches: deque[list[PeerId]] = deque()
        self._joining = 0
        self._reached = 0
        self._works = False
        self._checking = 0
        self._announces = False
        self._announce_at = -1

    @property
    def unix(self) -> float:
        """The time on its clock."""
        return EPOCH + self.network.time.now + self.skew

    # Coming and going

    def warm(self) -> None:
        """Be there from the start, with the table that was put in: upkeep at a random phase."""
        now = self.network.time.now
        self.online = True
        self.session += 1
        self._upkeep = Upkeep(now - self.draw.random() * self.rules.upkeep.refresh)
        if self.rules.learn:
            self.network.time.after(self.draw.random() * FIRST_WAKE, self._wake, self.session)

    def start(self, through: Iterable[PeerId] = ()) -> None:
        """Come online; joins through those that it remembers, else through these."""
        for other in self.links:
            self.network.nodes[other].links.pop(self.number, None)
        self.links.clear()
        self._reset()
        self.online = True
        self.session += 1
        self.providers.restore(self._records, self.unix)
        self.remembered = self.remembered or list(through)
        self._works = True
        self._join_again()
        self._plan_announcements()

    def stop(self, *, goodbye: bool) -> None:
        """Go offline; without a goodbye its records are those of the last saving."""
        self._remember()
        if goodbye:
            self._records = list(self.providers.saved())
            for other in list(self.links):
                self.network.unlink(self, self.network.nodes[other])
        self.online = False
        self.session += 1
        self._announces = False

    # Being asked

    def answer(self, request: KadMessage, source: Node) -> KadMessage | None:
        """Answer a request."""
        return self.responder.answer(request, source.asker, self.unix)

    def met(self, other: Node) -> None:
        """Take note of a new connection."""
        self.neighbours.met(other.peer, other.serves)
        self._check_more()

    def _known(self, peer: PeerId) -> Iterable[Multiaddr]:
        number = self.network.index.get(peer, -1)
        if number in self.links or number == self.number:
            return self.network.nodes[number].addrs
        contact = self.table.get(peer)
        return contact.addrs if contact is not None else ()

    def _provided(self, multihash: bytes) -> Iterable[Multiaddr] | None:
        return self.addrs if multihash in self.announcements else None

    # Asking

    def answered(self, other: Node, *, spread: bool = False) -> None:
        """Take note that a peer answered."""
        if not self.rules.learn:
            return
        now = self.network.time.now
        if self.neighbours.answered(other.peer, other.addrs, other.group, now, spread=spread):
            self.announcements.joined(self.unix)
            self._plan_announcements()
        if self.neighbours.waiting:
            self._check_more()

    def unanswered(self, peer: PeerId) -> None:
        """Take note that a peer did not answer."""
        if self.rules.learn:
            self.neighbours.unanswered(peer)

    def look(
        self,
        key: bytes,
        then: Callable[[Walk], None] | None,
        *,
        width: int | None = None,
        spread: bool = False,
    ) -> None:
        """Look up what a key (a peer id or multihash) hashes to."""
        self._walk(KadMessage(MessageType.FIND_NODE, key), then, width, spread)

    def find_providers(self, multihash: bytes, then: Callable[[Walk], None]) -> None:
        """Look for who has a content."""
        request = KadMessage(MessageType.GET_PROVIDERS, multihash)
        self._walk(request, then, None, False, FoundProviders())

    def _walk(
        self,
        request: KadMessage,
        then: Callable[[Walk], None] | None,
        width: int | None,
        spread: bool,
        found: FoundProviders | None = None,
    ) -> None:
        now = self.network.time.now
        target = key_of(request.key)
        lookup, nearest = begin(self.table, target, now, self.rules.lookup, width)
        seeds = (contact.peer for contact in nearest)
        walk = Walk(self, lookup, seeds, request, then, spread=spread, found=found)
        if found is not None:
            held = self.providers.get(request.key, self.rules.table.k, self.unix, self.draw)
            for provider in held:
                walk.offer(KadPeer(provider.peer_id, provider.addrs))
        walk.step()

    def _check_more(self) -> None:
        """Ask the peers in line whether they serve."""
        while self._checking < CHECKERS:
            peer = self.neighbours.next_candidate(self.network.time.now)
            if peer is None:
                return
            self._checking += 1
            self.network.ask(Check(self, peer, self._checked))

    def _checked(self, _: bool) -> None:
        self._checking -= 1
        self._check_more()

    # Joining and upkeep

    def _wake(self, session: int) -> None:
        if session == self.session and not self._works:
            self._works = True
            self._work()

    def _work(self) -> None:
        """Do what is due, one job after the other; then sleep until the next is."""
        time = self.network.time
        while True:
            if self._looks:
                self._look_next()
                return
            if self._batches:
                if len(self.table) < BETA:
                    self._join(self._batches.popleft())
                    return
                self._batches.clear()
            if not self._jobs:
                self._jobs += self._upkeep.due(time.now)
            if self._jobs:
                self._do(self._jobs.popleft())
                continue
            if self._rejoining.due(
                time.now, empty=not len(self.table), knows_anyone=bool(self.remembered)
            ):
                self._join_again()
                return
            break
        self._works = False
        wake = self._upkeep.next_due()
        if self._rejoining.at is not None:
            wake = min(wake, self._rejoining.at)
        time.later(wake, self._wake, self.session)

    def _do(self, job: Job) -> None:
        now = self.network.time.now
        match job:
            case Job.FIND_OURSELVES:
                if len(self.table):
                    self._looks.append(self.peer.raw)
            case Job.REFRESH:
                for prefix in refresh_plan(self.table, now, self.rules.upkeep.refresh):
                    self._looks.append(preimage(prefix.value, prefix.bits, self.draw))
            case Job.ASK_SILENT:
                self.neighbours.examine_silent(now)
                self._check_more()
            case Job.EXPIRE:
                self.providers.expire(self.unix)
            case Job.SAVE:
                self._remember()
                if now - self._records_saved >= SAVE_RECORDS_EVERY:
                    self._records_saved = now
                    self._records = list(self.providers.saved())

    def _look_next(self) -> None:
        key = self._looks.popleft()
        width = refresh_width(key, self.peer)
        self.look(key, self._looked, width=width, spread=width is None)

    def _looked(self, _: Walk) -> None:
        self._work()

    def _remember(self) -> None:
        latest = sorted(self.table, key=lambda contact: -contact.seen)
        peers = dict.fromkeys(contact.peer for contact in latest)
        peers.update(dict.fromkeys(self.remembered))
        self.remembered = list(peers)[:MAX_REMEMBERED]

    def _join_again(self) -> None:
        left = self.remembered
        self._batches = deque(
            left[at : at + JOIN_AT_ONCE] for at in range(0, len(left), JOIN_AT_ONCE)
        )
        self._work()

    def _join(self, peers: list[PeerId]) -> None:
        """Ask these peers; if one answers, look for ourselves and have the buckets filled."""
        self._joining, self._reached = len(peers), 0
        for peer in peers:
            self.network.ask(Check(self, peer, self._tried))

    def _tried(self, answered: bool) -> None:
        self._joining -= 1
        self._reached += answered
        if self._joining:
            return
        if self._reached:
            self._looks.append(self.peer.raw)
            self._upkeep.hasten(Job.REFRESH, self.network.time.now)
        self._work()

    # Announcing

    def announce(self, multihash: bytes) -> None:
        """Have a content announced now, and again before its records expire."""
        self.announcements.set(multihash, self.unix, self.unix)
        self._announce()

    def _plan_announcements(self) -> None:
        due = self.announcements.next_due()
        if due is None or self._announces:
            return
        wait = min(max(due - self.unix, 0.0), MAX_WAIT)
        at = self.network.time.tick + int(wait * 1000.0) + 1
        if self._announce_at < self.network.time.tick or at < self._announce_at:
            self._announce_at = at
            self.network.time.at_tick(at, self._announce_due, self.session)

    def _announce_due(self, session: int) -> None:
        if session == self.session:
            self._announce()

    def _announce(self) -> None:
        if self._announces or not self.online:
            return
        due = self.announcements.due(self.unix)
        if due:
            self._announces = True
            Announcing(self, due, self._announced).go_on()
        else:
            self._plan_announcements()

    def _announced(self) -> None:
        self._announces = False
        self._announce()
