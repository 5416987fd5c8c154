"""The download rules: every schedule ends, nothing is asked twice, memory is given back."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

import pytest
from bitarray import bitarray
from bitarray.util import zeros
from hypothesis import given
from hypothesis import strategies as st

from shoal.swarm.download import MAX_REJECTS, REFUSED_SECONDS, Download
from shoal.swarm.endgame import DUPLICATE_SHARE
from shoal.swarm.picker import Order
from shoal.swarm.queue import MAX_QUEUE_BYTES
from shoal.swarm.source import FIRST_QUEUE, LATE_SECONDS, Ask, Source
from shoal.wire.swarm import Bitfield, BitfieldKind

MIB = 1 << 20


@dataclass
class Memory:
    """A budget that notices when it is overdrawn."""

    limit: int = 64 * MIB
    reserved: int = 0

    @property
    def room(self) -> int:
        return self.limit - self.reserved

    def reserve(self, count: int) -> None:
        self.reserved += count
        assert self.reserved <= self.limit

    def release(self, count: int) -> None:
        self.reserved -= count
        assert self.reserved >= 0


def download(
    pieces: int, memory: Memory | None = None, size: int = MIB, *, order: Order = Order.RAREST
) -> Download:
    engine = Download(
        pieces,
        zeros(pieces),
        random.Random(pieces),
        lambda piece: size,
        memory or Memory(),
        order=order,
        piece_size=size,
    )
    engine.know(0, pieces)
    return engine


def started(engine: Download) -> Download:
    """Give an engine the first four pieces, which come at random."""
    for piece in range(4):
        engine.verified(piece)
    return engine


def holder(name: str, held: bitarray | None = None) -> Source:
    """A peer that has told what it holds: all, or some."""
    source = Source(name)
    source.bits.take(Bitfield(BitfieldKind.ALL if held is None else BitfieldKind.NONE))
    if held is not None:
        source.bits.size_known(len(held), range(len(held)))
        source.bits.change([(piece, 1) for piece in held.search(bitarray("1"))], True)
    return source


def deliver(engine: Download, ask: Ask, now: float, *, size: int = MIB) -> list[int]:
    """Let a peer answer a whole request, all of it right; return the requests dropped."""
    dropped = []
    for piece in range(ask.first, ask.first + ask.count):
        engine.begins(ask.source, ask.id, piece)
        engine.bytes_came(ask.source, size, now)
        dropped += [drop.id for drop in engine.arrived(ask.source, ask.id, piece, now)]
        engine.verified(piece)
    return dropped


def pieces_of(asks: list[Ask]) -> list[int]:
    return [piece for ask in asks for piece in range(ask.first, ask.first + ask.count)]


def test_a_queue_begins_with_two_pieces_and_doubles_up_to_two_seconds_of_the_rate() -> None:
    engine = download(10_000)
    source = holder("a")
    engine.join(source)
    now, queues = 0.0, []
    for _ in range(12):
        asks = list(engine.asks(source, now))
        if not asks:
            break
        queues.append(source.outstanding)
        for ask in asks:
            now += 0.1 * ask.count  # 10 MiB a second
            before = source.queue
            deliver(engine, ask, now)
            assert source.queue <= 2 * before
    assert queues[0] == FIRST_QUEUE
    assert queues[1] > FIRST_QUEUE
    # Two seconds of it; the rate is measured in steps.
    assert 15 <= queues[-1] <= 25


def test_no_queue_takes_more_than_a_fair_share_of_what_is_left() -> None:
    engine = download(12)
    sources = [holder(name) for name in "abc"]
    for source in sources:
        engine.join(source)
        source.queue = 1000
    asks = [list(engine.asks(source, 0.0)) for source in sources]
    assert [len(pieces_of(each)) for each in asks] == [2, 2, 2]


@given(st.integers(1, 300), st.integers(1, 5), st.integers(1, MIB), st.integers(1, 80 * MIB))
def test_reserved_bytes_never_exceed_the_budget(
    pieces: int, count: int, size: int, limit: int
) -> None:
    memory = Memory(limit)
    engine = download(pieces, memory, size)
    for name in range(count):
        source = holder(str(name))
        engine.join(source)
        source.queue = 10**6
        asks = list(engine.asks(source, 0.0))
        assert len(pieces_of(asks)) * size <= min(limit, MAX_QUEUE_BYTES * max(1, 4096 // size))
    engine.close()
    assert memory.reserved == 0


def test_the_rarest_pieces_come_first() -> None:
    engine = download(100)
    started(engine)
    rare = zeros(100)
    rare[50:60] = 1
    everywhere = ~rare
    everywhere[:] = 1
    engine.join(holder("all"))
    common = ~rare
    for name in "bcd":
        engine.join(holder(name, common))
    one = holder("e", everywhere)
    engine.join(one)
    one.queue = 9
    assert sorted(pieces_of(list(engine.asks(one, 0.0)))) == list(range(50, 59))


def test_in_order_means_in_order() -> None:
    engine = download(50, order=Order.SEQUENTIAL)
    source = holder("a")
    engine.join(source)
    source.queue = 20
    assert pieces_of(list(engine.asks(source, 0.0))) == list(range(20))


def test_runs_are_long_and_go_on_where_the_last_one_ended() -> None:
    engine = download(1000)
    started(engine)
    source = holder("a")
    engine.join(source)
    source.queue = 64
    asks = list(engine.asks(source, 0.0))
    assert max(ask.count for ask in asks) == 16
    assert len(asks) <= 6


def test_late_pieces_go_to_others_and_the_late_peer_is_parked() -> None:
    engine = download(40)
    slow, quick = holder("slow"), holder("quick")
    for source in (slow, quick):
        engine.join(source)
    lost = pieces_of(list(engine.asks(slow, 0.0)))
    assert not engine.late(LATE_SECONDS - 0.01)
    dropped = engine.late(LATE_SECONDS)
    assert {drop.source for drop in dropped} == {slow}
    assert slow.parked
    assert not list(engine.asks(slow, LATE_SECONDS))  # not before the others are tried
    asked: list[int] = []
    now = LATE_SECONDS
    while asks := list(engine.asks(quick, now)):
        asked += pieces_of(asks)
        for ask in asks:
            now += 0.1 * ask.count
            deliver(engine, ask, now)
    assert set(lost) <= set(asked)
    assert engine.over


def test_a_parked_peer_is_probed_with_one_piece_and_comes_back_with_it() -> None:
    engine = download(1000)
    slow, quick = holder("slow"), holder("quick")
    for source in (slow, quick):
        engine.join(source)
    list(engine.asks(slow, 0.0))
    engine.late(LATE_SECONDS)
    now = slow.probe_at
    (probe,) = engine.asks(slow, now)
    assert probe.count == 1
    deliver(engine, probe, now + 1)
    assert slow.live
    assert len(pieces_of(list(engine.asks(slow, now + 1)))) >= FIRST_QUEUE


def test_failed_probes_come_less_and_less_often() -> None:
    engine = download(1000)
    slow, quick = holder("slow"), holder("quick")
    for source in (slow, quick):
        engine.join(source)
    list(engine.asks(slow, 0.0))
    engine.late(LATE_SECONDS)
    now, probes = LATE_SECONDS, []
    while now < 400:
        if list(engine.asks(slow, now)):
            probes.append(now)
        engine.late(now)
        now += 0.25
    pauses = [after - before for before, after in itertools.pairwise(probes)]
    assert pauses == sorted(pauses)
    assert pauses[-1] >= 60


def test_what_nobody_else_has_is_waited_for() -> None:
    engine = download(10)
    only = holder("only")
    engine.join(only)
    (ask,) = list(engine.asks(only, 0.0))[:1]
    assert not engine.late(1000.0)
    engine.join(holder("other", zeros(10)))
    assert not engine.late(1000.0)
    engine.join(holder("second"))
    assert ask.id in {drop.id for drop in engine.late(1000.0)}


def test_who_drips_is_late_in_the_end() -> None:
    engine = download(10)
    drip, other = holder("drip"), holder("other")
    engine.join(drip)
    engine.join(other)
    (ask,) = list(engine.asks(drip, 0.0))[:1]
    engine.begins(drip, ask.id, ask.first)
    now = 0.0
    while now < 3600 and not engine.late(now):
        now += 1.0
        engine.bytes_came(drip, 1, now)
    assert now < 1200


def test_the_last_pieces_are_hedged_and_only_finished_requests_are_dropped() -> None:
    engine = download(200)
    slow, quick = holder("slow"), holder("quick")
    engine.join(slow)
    engine.join(quick)
    slow.rate, quick.rate = 0.2 * MIB, 20.0 * MIB
    slow.queue = 10
    first = list(engine.asks(slow, 0.0))
    now = 1.0
    hedges: list[Ask] = []
    for _ in range(200):
        asks = list(engine.asks(quick, now))
        hedges += [ask for ask in asks if set(pieces_of([ask])) & set(pieces_of(first))]
        for ask in asks:
            if ask not in hedges:
                now += 0.01
                deliver(engine, ask, now)
        if hedges:
            break
    assert 0 < len(pieces_of(hedges)) <= DUPLICATE_SHARE * 200
    dropped = deliver(engine, hedges[0], now)
    run = next(ask for ask in first if hedges[0].first in pieces_of([ask]))
    # The run that lost one piece to the hedge goes on with the others.
    assert (run.id in dropped) == (run.count == 1)
    rest = [p for p in pieces_of([run]) if p not in pieces_of(hedges[:1])]
    assert all(engine.begins(slow, run.id, piece) for piece in rest)


def test_a_peer_that_rejects_everything_is_left_alone_for_a_while() -> None:
    engine = download(10_000)
    source = holder("a")
    engine.join(source)
    now, requests = 0.0, 0
    while now < 100:
        for ask in list(engine.asks(source, now)):
            requests += 1
            engine.rejected(source, ask.id, now)
        now += 0.25
    assert requests <= MAX_REJECTS + 2 * 100 / REFUSED_SECONDS + 2
    assert len(source.refused) <= requests * 16


def test_what_a_choker_rejects_is_free_and_an_unchoke_asks_again() -> None:
    memory = Memory()
    engine = download(10, memory)
    source = holder("a")
    engine.join(source)
    asks = list(engine.asks(source, 0.0))
    assert asks
    engine.choke(source, True)
    for ask in asks:
        engine.rejected(source, ask.id, 0.0)
    assert memory.reserved == 0
    assert not source.refused
    assert not list(engine.asks(source, 0.0))
    engine.choke(source, False)
    assert len(pieces_of(list(engine.asks(source, 0.0)))) == len(pieces_of(asks))


def test_a_request_that_crossed_a_choke_and_an_unchoke_is_awaited() -> None:
    """The peer has sent both before it got the request, so it answers."""
    engine = download(10)
    source, other = holder("a"), holder("b")
    engine.join(source)
    engine.join(other)
    (ask, *_) = engine.asks(source, 0.0)
    engine.choke(source, True)
    engine.choke(source, False)
    assert ask.first not in pieces_of(list(engine.asks(other, 0.0)))
    assert engine.begins(source, ask.id, ask.first)


def test_a_choker_that_rejects_nothing_keeps_nothing_from_others() -> None:
    engine = download(10)
    source, other = holder("a"), holder("b")
    engine.join(source)
    asked = pieces_of(list(engine.asks(source, 0.0)))
    engine.join(other)
    engine.choke(source, True)
    engine.late(LATE_SECONDS)
    found: set[int] = set()
    while asks := list(engine.asks(other, LATE_SECONDS)):
        found |= set(pieces_of(asks))
        for ask in asks:
            deliver(engine, ask, LATE_SECONDS)
    assert set(asked) <= found


def test_a_piece_that_nobody_is_asked_for_is_still_welcome() -> None:
    engine = download(3)
    late, other = holder("late"), holder("other")
    engine.join(late)
    engine.join(other)
    (ask, *_) = engine.asks(late, 0.0)
    engine.late(LATE_SECONDS)
    assert not engine.begins(late, ask.id, ask.first)
    engine.arrived(late, ask.id, ask.first, 3.0)
    asks = list(engine.asks(other, 3.0))
    assert ask.first not in pieces_of(asks)
    for each in asks:
        deliver(engine, each, 3.0)
    engine.failed(ask.first)
    other.queue = 10
    now = 3.0
    while not engine.over:
        for again in list(engine.asks(other, now)):
            deliver(engine, again, now)
        now += 1
    assert late.live


@dataclass
class Swarm:
    """Peers that answer, fail and come and go as drawn, and what they are asked."""

    engine: Download
    memory: Memory
    chance: random.Random
    now: float = 0.0
    open: list[tuple[Ask, set[int]]] = field(default_factory=list)
    awaiting: dict[int, int] = field(default_factory=dict)
    duplicates: int = 0

    def ask_all(self) -> None:
        for source in list(self.engine.sources):
            for ask in self.engine.asks(source, self.now):
                for piece in pieces_of([ask]):
                    assert source.bits.has(piece)
                    assert not self.engine.held[piece]
                    asked = sum(piece in left for a, left in self.open)
                    assert asked <= 1
                    assert all(a.source is not source for a, left in self.open if piece in left)
                    self.duplicates += asked
                self.open.append((ask, set(pieces_of([ask]))))
        allowed = max(1, int(DUPLICATE_SHARE * self.engine.pieces))
        assert self.duplicates <= allowed

    def forget(self, ids: set[int]) -> None:
        self.open = [(ask, left) for ask, left in self.open if ask.id not in ids]

    def answer(self, ask: Ask, left: set[int], right: bool) -> None:
        piece = min(left)
        assert self.engine.begins(ask.source, ask.id, piece)
        self.engine.bytes_came(ask.source, MIB, self.now)
        for drop in self.engine.arrived(ask.source, ask.id, piece, self.now):
            self.forget({drop.id})
        for _, others in self.open:
            others.discard(piece)
        self.open = [(a, pieces) for a, pieces in self.open if pieces]
        if right:
            self.engine.verified(piece)
        else:
            self.engine.failed(piece)

    def late(self) -> None:
        for drop in self.engine.late(self.now):
            self.forget({drop.id})


STEPS = ["answer"] * 3 + ["wrong", "reject", "late", "leave", "join", "choke", "wait"]


@given(
    st.integers(1, 60),
    st.integers(1, 4),
    st.lists(
        st.sampled_from(STEPS),
        max_size=150,
    ),
    st.integers(0, 2**32),
)
def test_every_schedule_ends_while_a_holder_of_every_piece_stays(
    pieces: int, peers: int, steps: list[str], seed: int
) -> None:
    memory = Memory(limit=8 * MIB)
    engine = download(pieces, memory)
    chance = random.Random(seed)
    swarm = Swarm(engine, memory, chance)
    engine.join(holder("stays"))
    for number in range(peers):
        held = bitarray(chance.choices([0, 1], k=pieces))
        engine.join(holder(f"p{number}", held))
    for step in steps:
        swarm.ask_all()
        others = [s for s in engine.sources if s.name != "stays"]
        match step:
            case "answer" | "wrong" if swarm.open:
                swarm.answer(*chance.choice(swarm.open), right=step == "answer")
            case "reject" if swarm.open:
                ask, _ = chance.choice(swarm.open)
                engine.rejected(ask.source, ask.id, swarm.now)
                swarm.forget({ask.id})
            case "late":
                swarm.now += 3.0
                swarm.late()
            case "leave" if others:
                gone = chance.choice(others)
                engine.leave(gone)
                swarm.forget({ask.id for ask, _ in swarm.open if ask.source is gone})
            case "join":
                engine.join(holder("new", bitarray(chance.choices([0, 1], k=pieces))))
            case "choke" if others:
                choked = chance.choice(others)
                engine.choke(choked, not choked.choked)
                waiting = {ask.id for ask, _ in swarm.open if ask.source is choked}
                swarm.forget(waiting)
                if chance.random() < 0.8:  # or they are never heard of again
                    for number in waiting:
                        engine.rejected(choked, number, swarm.now)
            case _:
                swarm.now += 0.3
    for _ in range(40 * pieces + 400):
        if engine.over:
            break
        swarm.ask_all()
        if swarm.open:
            swarm.answer(*swarm.open[0], right=True)
        swarm.now += 0.25
        swarm.late()
    assert engine.over
    engine.close()
    assert memory.reserved == 0


@pytest.mark.parametrize("size", [1, 4096, 65536])
def test_small_pieces_come_in_long_requests(size: int) -> None:
    engine = download(20_000, size=size)
    started(engine)
    source = holder("a")
    engine.join(source)
    source.queue = 4000
    asks = list(engine.asks(source, 0.0))
    assert len(asks) <= 4000 // min(1024, 16 * MIB // max(size, 4096)) + 2


@given(st.integers(0, 2**20), st.integers(1, 400))
def test_pieces_that_come_in_runs_count_as_if_they_came_one_by_one(seed: int, pieces: int) -> None:
    size = 4096
    memories = Memory(), Memory()
    engines = [download(pieces, memory, size) for memory in memories]
    sources = [holder("a"), holder("a")]
    for engine, source in zip(engines, sources, strict=True):
        engine.join(source)
    chance, now = random.Random(seed), 0.0
    while not engines[0].over:
        asks = [list(e.asks(s, now)) for e, s in zip(engines, sources, strict=True)]
        assert [(a.id, a.first, a.count) for a in asks[0]] == [
            (a.id, a.first, a.count) for a in asks[1]
        ]
        for ask in asks[0]:
            at, end = ask.first, ask.first + ask.count
            while at < end:
                now += 0.01
                count = chance.randint(1, end - at)
                right = chance.random() < 0.9
                together, single = engines
                assert together.useful(at, count) == list(range(at, at + count))
                assert together.begins(sources[0], ask.id, at, count)
                together.arrived(sources[0], ask.id, at, now, count)
                assert together.useful(at, count) == []
                for piece in range(at, at + count):
                    assert single.begins(sources[1], ask.id, piece)
                    single.arrived(sources[1], ask.id, piece, now)
                for piece in range(at, at + count):
                    single.verified(piece) if right else single.failed(piece)
                    if not right:
                        together.failed(piece)
                if right:
                    together.verified(at, count)
                at += count
        assert engines[0].held == engines[1].held
        assert engines[0].left == engines[1].left
        assert sources[0].outstanding == sources[1].outstanding
        assert memories[0].reserved == memories[1].reserved
    assert memories[0].reserved == 0


def test_only_so_many_pieces_are_asked_for_as_there_is_memory_for() -> None:
    engine = download(100, Memory(limit=10 * 4096 + 4095), 4096)
    source = holder("a")
    source.queue = 1000
    started(engine).join(source)
    asks = list(engine.asks(source, 0.0))
    assert sum(ask.count for ask in asks) == 10


def test_one_call_asks_for_no_more_than_2048_small_pieces() -> None:
    engine = started(download(40_000, None, 4096))
    source = holder("a")
    source.queue = 20_000
    engine.join(source)
    assert sum(ask.count for ask in engine.asks(source, 0.0)) == 2048
