"""Contents larger than the window: every chunk has its turn, in the order that was asked for."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from collections.abc import Iterator

import pytest
from bitarray import bitarray
from bitarray.util import ones, zeros
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.swarm.bitfield import frames_of
from shoal.swarm.download import Download
from shoal.swarm.peer_bits import MAX_KEPT_BYTES
from shoal.swarm.picker import MAX_DEADLINES, Order
from shoal.swarm.priorities import MAX_PRIORITY
from shoal.swarm.questions import CHUNK_SECONDS
from shoal.swarm.source import Ask, Source
from shoal.swarm.window import WINDOW_CHUNKS
from shoal.wire.errors import PeerFault
from shoal.wire.swarm import CHUNK_BITS, Bitfield, BitfieldKind

BLOCK = 1024


class Ample:
    """Memory for everything."""

    room = 1 << 40

    def reserve(self, count: int) -> None:
        self.room -= count

    def release(self, count: int) -> None:
        self.room += count


def download(held: bitarray, order: Order = Order.RAREST, seed: int = 1) -> Download:
    """A download that knows all of its pieces."""
    chance = random.Random(seed)
    engine = Download(len(held), held, chance, lambda piece: 1, Ample(), order=order)
    engine.know(0, len(held))
    return engine


def scattered(chunks: int, each: int, seed: int) -> bitarray:
    """Bits of so many chunks (the last one is short), all set but for a few of each."""
    chance = random.Random(seed)
    held = ones(chunks * CHUNK_BITS - 1000)
    for chunk in range(chunks):
        for _ in range(each):
            held[chunk * CHUNK_BITS + chance.randrange(CHUNK_BITS - 1000)] = 0
    return held


def some_of(pieces: int, chance: random.Random) -> bitarray:
    bits = bitarray()
    bits.frombytes(chance.randbytes(-(-pieces // 8)))
    return bits[:pieces]


def peer(name: str, bits: bitarray | None = None, *, tells_again: bool = False) -> Source:
    """A peer that has told what it holds: all, or these."""
    source = Source(name, tells_again=tells_again)
    if bits is None:
        source.bits.take(Bitfield(BitfieldKind.ALL))
    else:
        for frame in frames_of(bits):
            source.bits.take(frame)
    source.queue = 64
    return source


def arrives(engine: Download, ask: Ask, now: float) -> None:
    for piece in range(ask.first, ask.first + ask.count):
        assert engine.begins(ask.source, ask.id, piece)
        engine.arrived(ask.source, ask.id, piece, now)
        engine.verified(piece)


def fetched(engine: Download) -> Iterator[int]:
    """Let peers answer everything at once until all is there; yield the pieces as asked for."""
    for now in itertools.count():
        if engine.over:
            return
        assert now < 10_000
        for source in engine.sources:
            source.queue = 64
            asks = list(engine.asks(source, float(now)))
            chunks = {ask.first // CHUNK_BITS for ask in asks}
            assert len(chunks) <= WINDOW_CHUNKS
            for ask in asks:
                yield from range(ask.first, ask.first + ask.count)
                arrives(engine, ask, float(now))
        engine.late(float(now))


@settings(max_examples=20)
@given(st.integers(17, 40), st.integers(1, 4), st.sampled_from(Order), st.integers(0, 2**32))
def test_every_missing_piece_is_asked_for_once(
    chunks: int, each: int, order: Order, seed: int
) -> None:
    held = scattered(chunks, each, seed)
    engine = download(held, order, seed)
    engine.join(peer("a"))
    engine.join(peer("b"))
    assert engine.left == held.count(0)
    pieces = list(fetched(engine))
    assert sorted(pieces) == list(held.search(bitarray("0")))


def test_sequential_means_from_the_first_piece_to_the_last() -> None:
    engine = download(scattered(40, 3, 5), Order.SEQUENTIAL)
    engine.join(peer("a"))
    pieces = list(fetched(engine))
    assert pieces == sorted(pieces)


def test_an_order_may_change_in_between() -> None:
    engine = download(scattered(60, 2, 5), seed=3)
    engine.join(peer("a"))
    coming = fetched(engine)
    begun = {next(coming) for _ in range(5)}
    engine.set_order(Order.SEQUENTIAL)
    rest = [piece for piece in coming if piece not in begun]
    # What was asked for in the old order still comes first.
    assert rest[64:] == sorted(rest[64:])


@settings(max_examples=30)
@given(
    st.integers(1, 10),
    st.lists(
        st.tuples(
            st.integers(0, 2 * CHUNK_BITS), st.integers(1, CHUNK_BITS), st.integers(0, MAX_PRIORITY)
        ),
        max_size=6,
    ),
    st.integers(0, 2**32),
)
def test_higher_priorities_come_first_and_what_has_none_never(
    each: int, ranges: list[tuple[int, int, int]], seed: int
) -> None:
    held = scattered(4, each, seed)
    engine = download(held, seed=seed)
    engine.join(peer("a"))
    model = [1] * len(held)
    for first, count, priority in ranges:
        model[first : first + count] = [priority] * count
    engine.prioritise(ranges)
    wanted = [piece for piece in held.search(bitarray("0")) if model[piece]]
    assert engine.left == len(wanted)
    assert engine.wanted == bitarray(map(bool, model))
    pieces = list(fetched(engine))
    assert sorted(pieces) == wanted
    got = [model[piece] for piece in pieces]
    assert got == sorted(got, reverse=True)


def test_what_is_not_wanted_any_more_is_cancelled_and_may_be_wanted_again() -> None:
    engine = download(zeros(40))
    source = peer("a")
    engine.join(source)
    asks = list(engine.asks(source, 0.0))
    assert sum(ask.count for ask in asks) == 20
    drops = engine.prioritise([(0, 40, 0)])
    assert {drop.id for drop in drops} == {ask.id for ask in asks}
    assert engine.over
    assert source.outstanding == 0
    assert not list(engine.asks(source, 0.0))
    engine.prioritise([(3, 2, 1)])
    assert sorted(fetched(engine)) == [3, 4]


@pytest.mark.parametrize("bad", [(0, 41, 1), (-1, 2, 1), (40, 1, 1), (0, 0, 1), (0, 1, 8)])
def test_priorities_that_cannot_be_are_refused(bad: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"piece|priority"):
        download(zeros(40)).prioritise([bad])


def test_a_deadline_brings_a_distant_chunk_at_once() -> None:
    held = scattered(50, 3, 9)
    engine = download(held, seed=4)
    engine.join(peer("a"))
    missing = list(held.search(bitarray("0")))
    later, sooner = missing[5], missing[-2]
    engine.deadline(later, 1, 20.0)
    engine.deadline(sooner, 1, 10.0)
    pieces = list(fetched(engine))
    assert pieces[:2] == [sooner, later]
    assert sorted(pieces) == missing


def test_a_deadline_goes_to_the_peer_that_can_meet_it() -> None:
    engine = download(zeros(1000))
    slow, quick = peer("slow"), peer("quick")
    slow.rate, quick.rate = 1e5, 1e8
    engine.join(slow)
    engine.join(quick)
    engine.deadline(500, 4, 5.0)
    asked = [p for ask in engine.asks(slow, 0.0) for p in range(ask.first, ask.first + ask.count)]
    assert not set(asked) & {500, 501, 502, 503}
    first = next(engine.asks(quick, 0.0))
    assert (first.first, first.count) == (500, 4)


def test_deadlines_are_bounded_and_go_when_they_are_met() -> None:
    engine = download(zeros(MAX_DEADLINES + 1))
    for piece in range(MAX_DEADLINES):
        engine.deadline(piece, 1, 1.0)
    engine.deadline(3, 1, 2.0)
    with pytest.raises(ValueError, match="deadline"):
        engine.deadline(MAX_DEADLINES, 1, 1.0)
    engine.verified(0)
    engine.deadline(MAX_DEADLINES, 1, 1.0)
    with pytest.raises(ValueError, match="pieces"):
        engine.deadline(MAX_DEADLINES, 2, 1.0)


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 2**32))
def test_every_block_with_missing_pieces_is_to_be_known_once(
    chunks: int, each: int, seed: int
) -> None:
    held = scattered(chunks, each, seed)
    engine = Download(len(held), held, random.Random(seed), lambda piece: 1, Ample())
    source = peer("a")
    engine.join(source)
    known: set[int] = set()
    while not engine.over:
        block = engine.next_block(BLOCK, known, known)
        assert block is not None
        assert block not in known
        known.add(block)
        first = block * BLOCK
        count = min(BLOCK, len(held) - first)
        assert engine.missing(first, count).any()
        engine.know(first, count)
        source.queue = 64
        for ask in list(engine.asks(source, 0.0)):
            arrives(engine, ask, 0.0)
    assert engine.next_block(BLOCK, known, known) is None


def test_blocks_that_somebody_has_come_before_those_that_nobody_has() -> None:
    engine = Download(8 * BLOCK, zeros(8 * BLOCK), random.Random(1), lambda piece: 1, Ample())
    has = zeros(8 * BLOCK)
    has[5 * BLOCK + 3] = 1
    engine.join(peer("a", has))
    assert engine.next_block(BLOCK, {1}, {1}) == 5
    assert engine.next_block(BLOCK, {1, 5}, {1, 5}) == 0
    every = set(range(8))
    assert engine.next_block(BLOCK, {1}, every) == 5
    assert engine.next_block(BLOCK, {1, 5}, every) is None


@settings(max_examples=5, deadline=None)
@given(st.lists(st.sampled_from(["tells", "silent", "old"]), min_size=1, max_size=3), st.integers())
def test_bits_that_were_not_kept_are_asked_for_again_or_found_out(
    kinds: list[str], seed: int
) -> None:
    chance = random.Random(seed)
    chunks = 2 * (MAX_KEPT_BYTES // (CHUNK_BITS // 8))
    held = scattered(chunks, 2, seed)
    engine = download(held, seed=seed)
    holdings: dict[str, bitarray] = {}
    frames: dict[str, dict[int, Bitfield]] = {}
    for number, kind in enumerate(kinds):
        bits = some_of(len(held), chance)
        if not number:
            bits |= ~held
        holdings[f"{kind} {number}"] = bits
        frames[f"{kind} {number}"] = {frame.chunk: frame for frame in frames_of(bits)}
        source = peer(f"{kind} {number}", bits, tells_again=kind != "old")
        engine.join(source)
    for now in range(5000):
        if engine.over:
            break
        for question in engine.unknown_chunks(float(now)):
            name, chunk = question.source.name, question.chunk
            assert question.source.tells_again
            if name.startswith("tells"):
                engine.told_again(question.source, frames[name][chunk])
        for source in engine.sources:
            for ask in list(engine.asks(source, float(now))):
                has = holdings[source.name]
                if source.name.startswith("tells"):
                    assert all(has[p] for p in range(ask.first, ask.first + ask.count))
                if has[ask.first : ask.first + ask.count].all():
                    arrives(engine, ask, float(now))
                else:
                    engine.rejected(source, ask.id, float(now))
        engine.late(float(now))
    assert engine.over


def test_an_answer_that_nobody_asked_for_is_a_fault() -> None:
    held = scattered(40, 2, 1)
    engine = download(held)
    bits = some_of(len(held), random.Random(1))
    source = peer("a", bits, tells_again=True)
    engine.join(source)
    asked = {question.chunk for question in engine.unknown_chunks(0.0)}
    frames = {frame.chunk: frame for frame in frames_of(bits)}
    assert asked
    assert not engine.unknown_chunks(CHUNK_SECONDS / 2)
    with pytest.raises(PeerFault):
        engine.told_again(source, next(f for n, f in frames.items() if n not in asked))
    one = asked.pop()
    engine.told_again(source, frames[one])
    with pytest.raises(PeerFault):
        engine.told_again(source, frames[one])


HUGE = """
import os, random
from bitarray.util import zeros
from shoal.swarm.download import Download
from shoal.swarm.source import Source
from shoal.wire.swarm import CHUNK_BITS, Bitfield, BitfieldKind

class Ample:
    room = 1 << 60
    def reserve(self, count): pass
    def release(self, count): pass

pieces = 50 << 20  # 50 TiB
engine = Download(pieces, zeros(pieces), random.Random(1), lambda piece: 1 << 20, Ample())
engine.know(0, pieces)
halves = [os.urandom(CHUNK_BITS // 8) for _ in range(16)]
chunks = pieces // CHUNK_BITS
for number in range(200):
    source = Source(str(number))
    for chunk in range(chunks):
        half = halves[(number + chunk) % 16]
        source.bits.take(Bitfield(BitfieldKind.RAW, chunk, half, chunk < chunks - 1))
    engine.join(source)
for question in engine.unknown_chunks(0.0):
    source = question.source
    source.bits.asked(question.chunk)
    source.tells_again = True
engine.unknown_chunks(20.0)  # nobody answered: all is supposed
asked = sum(ask.count for source in engine.sources for ask in engine.asks(source, 21.0))
assert asked >= 200, asked
with open("/proc/self/status") as status:  # ru_maxrss would count the parent's memory, too
    print(next(line.split()[1] for line in status if line.startswith("VmHWM:")))
"""


def test_fifty_tebibytes_and_200_peers_with_random_halves_stay_under_150_mib() -> None:
    done = subprocess.run([sys.executable, "-c", HUGE], capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 150 << 20
