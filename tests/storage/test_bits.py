"""Bits of a copy against a plain set of numbers."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.simulations.disk import MemoryDisk
from shoal.storage.filesystem import FileKind, FileStat
from shoal.storage.model import BITS_PER_ROW
from shoal.storage.store import Store
from shoal.wire.ids import DAG_PB, RAW, Cid
from shoal.wire.walk import Entry, EntryKind

ROOT = Cid.of(DAG_PB, b"root")
LEAF = Cid.of(RAW, b"leaf")
PIECES = 2 * BITS_PER_ROW + 100


@pytest.fixture(scope="module")
def store() -> Any:
    disk = MemoryDisk()
    disk.folder(Path("/home"), 0o700)
    store = Store.open(Path("/home"), disk, 0.0)
    yield store
    store.close()
    disk.close()


def new_copy(store: Store, pieces: int | None) -> int:
    store.ensure_content(ROOT)
    if pieces is not None:
        store.index_complete(ROOT, pieces, pieces)
    copies = store.copies()
    if copies:
        store.remove_copy(copies[0].id)
        return new_copy(store, pieces)
    return store.begin_fetch(ROOT, Path("/d/x"), 0.0).id


indices = st.one_of(
    st.integers(0, PIECES - 1),
    st.sampled_from([0, 7, 8, BITS_PER_ROW - 1, BITS_PER_ROW, PIECES - 1]),
)
steps = st.lists(st.tuples(st.booleans(), st.lists(indices, max_size=8)), max_size=6)


@settings(max_examples=40, deadline=None)
@given(steps=steps, start=indices, count=st.integers(1, PIECES))
def test_bits_are_a_set(
    store: Store, steps: list[tuple[bool, list[int]]], start: int, count: int
) -> None:
    copy = new_copy(store, PIECES)
    held: set[int] = set()
    for claim, pieces in steps:
        if claim:
            store.set_bits(copy, pieces)
            held |= set(pieces)
        else:
            store.clear_bits(copy, pieces)
            held -= set(pieces)
    bits = store.bits(copy)
    assert len(bits) == PIECES
    assert set(bits.search(1)) == held
    assert store.bit_counts(copy) == [
        sum(piece // BITS_PER_ROW == chunk for piece in held) for chunk in range(3)
    ]
    assert store.chunk_bits(copy, 2) == bits[2 * BITS_PER_ROW :]
    count = min(count, PIECES - start)
    runs = store.held_runs(copy, start, count)
    in_runs = [piece for first, length in runs for piece in range(first, first + length)]
    assert in_runs == sorted(p for p in held if start <= p < start + count)
    assert all(a + length < b for (a, length), (b, _) in pairwise(runs))


def test_bits_can_be_claimed_before_the_index_is_complete(store: Store) -> None:
    copy = new_copy(store, None)
    store.set_bits(copy, [3, BITS_PER_ROW + 1])
    assert list(store.bits(copy).search(1)) == [3, BITS_PER_ROW + 1]
    store.index_complete(ROOT, 9, BITS_PER_ROW + 2)
    assert len(store.bits(copy)) == BITS_PER_ROW + 2
    with pytest.raises(IndexError):
        store.set_bits(copy, [BITS_PER_ROW + 2])


def test_marks_cover_bits_and_do_not_change_them(store: Store) -> None:
    copy = new_copy(store, 10)
    store.add_entries(
        ROOT,
        [
            Entry(0, "", EntryKind.DIRECTORY, ROOT, 0, 0, 0),
            Entry(1, "a", EntryKind.FILE, LEAF, 4, 0, 4),
            Entry(2, "b", EntryKind.FILE, LEAF, 6, 4, 6),
        ],
    )
    stat = FileStat(FileKind.FILE, 1, (1 << 64) - 5, 4, 7, 7)
    store.record_files(copy, [(1, stat), (2, stat)])
    store.set_bits(copy, range(10))
    store.copy_rows.files.mark(copy, [1], True)
    assert store.bits(copy).to01() == "0000111111"
    store.copy_rows.files.mark(copy, [1], False)
    assert store.bits(copy).to01() == "1" * 10


def test_a_whole_copy_can_lose_a_piece(store: Store) -> None:
    copy = new_copy(store, BITS_PER_ROW + 5)
    store._bits.set_whole(copy)
    assert store.bits(copy).all()
    store.clear_bits(copy, [BITS_PER_ROW + 1])
    assert store.bits(copy).count() == BITS_PER_ROW + 4
    assert store.chunk_bits(copy, 1).to01() == "10111"


def test_a_run_goes_on_over_the_edge_of_a_row(store: Store) -> None:
    copy = new_copy(store, PIECES)
    store.set_bits(copy, range(BITS_PER_ROW - 2, BITS_PER_ROW + 3))
    assert store.held_runs(copy, 0, PIECES) == [(BITS_PER_ROW - 2, 5)]
