"""Piece tables against the list of all pieces, made the naive way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoal.storage.model import PIECES_PER_BLOCK, UNKNOWN_LENGTH, MissingNodes, PieceTable
from shoal.wire.blocks import CHUNK, WIDTH, node_cid
from shoal.wire.directory import build_directory
from shoal.wire.ids import DAG_PB, RAW, SHA2_256, Cid
from shoal.wire.unixfs import Named, build_file
from shoal.wire.walk import Entry, EntryKind

PIECE = 1 << 20


def make_files(sizes: list[int]) -> tuple[Cid, list[Entry], dict[Cid, bytes], list[Any]]:
    """Build a folder of files with made-up leaf digests; also the naive list of pieces."""
    nodes: dict[Cid, bytes] = {}
    children: list[Named] = []
    entries: list[Entry] = []
    pieces: list[Any] = []
    for number, size in enumerate(sizes):
        count = max(1, -(-size // CHUNK))
        leaves = []
        for leaf in range(count):
            length = CHUNK if leaf < count - 1 else size - leaf * CHUNK
            leaves.append((bytes((number,)) * 28 + leaf.to_bytes(4, "big"), length))
        built = build_file(leaves, nodes.__setitem__)
        children.append(Named(b"%03d" % number, built.cid, built.tsize))
        entries.append(
            Entry(number + 1, f"{number:03}", EntryKind.FILE, built.cid, size, len(pieces), count)
        )
        pieces += [(d, n, number + 1, leaf * CHUNK) for leaf, (d, n) in enumerate(leaves)]
    root = build_directory(children, nodes.__setitem__)
    top = Entry(0, "", EntryKind.DIRECTORY, root.cid, 0, 0, 0)
    return root.cid, [top, *entries], nodes, pieces


def add(lab: Any, made: tuple[Cid, list[Entry], dict[Cid, bytes], list[Any]]) -> Cid:
    cid, entries, nodes, pieces = made
    lab.store.ensure_content(cid)
    lab.store.add_nodes(nodes.items())
    lab.store.add_entries(cid, entries)
    lab.store.index_complete(cid, sum(p[1] for p in pieces), len(pieces))
    return cid


sizes = st.lists(
    st.one_of(
        st.integers(0, 3 * CHUNK),
        st.sampled_from([0, 1, CHUNK, CHUNK + 1, WIDTH * CHUNK, WIDTH * CHUNK + 1]),
    ),
    min_size=1,
    max_size=6,
)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sizes=sizes)
def test_tables_tell_what_every_piece_is(lab: Any, sizes: list[int]) -> None:
    made = make_files(sizes)
    cid = add(lab, made)
    pieces = made[3]
    found = []
    for block in range(-(-len(pieces) // PIECES_PER_BLOCK)):
        table = lab.store.piece_table(cid, block)
        assert isinstance(table, PieceTable)
        assert table.first == block * PIECES_PER_BLOCK
        assert table.count == min(PIECES_PER_BLOCK, len(pieces) - table.first)
        assert table.hash_codes == bytes((SHA2_256,)) * table.count
        found += [
            (table.digest(table.first + i), table.lengths[i], table.files[i], table.offsets[i])
            for i in range(table.count)
        ]
    assert found == pieces
    with pytest.raises(KeyError):
        lab.store.piece_table(cid, -(-len(pieces) // PIECES_PER_BLOCK))
    lab.store.forget(cid)
    assert lab.store.node(cid) is None


def test_a_table_names_the_nodes_that_it_lacks(lab: Any) -> None:
    made = make_files([3 * WIDTH * CHUNK, 5 * CHUNK])
    cid, entries, nodes, pieces = made
    lab.store.ensure_content(cid)
    lab.store.add_entries(cid, entries)
    lab.store.index_complete(cid, 1, len(pieces))
    missing = lab.store.piece_table(cid, 0)
    assert missing == MissingNodes((entries[1].cid,))
    asked = 0
    while isinstance(missing, MissingNodes):
        asked += len(missing.cids)
        lab.store.add_nodes([(name, nodes[name]) for name in missing.cids])
        missing = lab.store.piece_table(cid, 3)
    assert missing.count == 5
    assert lab.store.node(cid) is None
    assert asked == 2  # the two roots of files: block 3 lies in the second


def test_a_raw_root_has_one_piece_of_unknown_length(lab: Any) -> None:
    cid = Cid.of(RAW, b"hello")
    lab.store.ensure_content(cid)
    lab.store.add_entries(cid, [Entry(0, "", EntryKind.FILE, cid, -1, 0, 1)])
    lab.store.index_complete(cid, None, 1)
    assert lab.store.content(cid).size is None
    table = lab.store.piece_table(cid, 0)
    assert (table.count, table.lengths[0], table.digest(0)) == (1, UNKNOWN_LENGTH, cid.digest)
    lab.store.learn_size(cid, 5)
    assert lab.store.content(cid).size == 5
    assert lab.store.piece_table(cid, 0).lengths[0] == 5


def test_repeated_pieces_are_grouped(lab: Any, make_content: Any) -> None:
    zeros, ones = bytes(PIECE), b"1" * PIECE
    content = make_content(
        {"a": zeros + ones + zeros, "b": b"", "c": b"", "d": ones, "e": b"unique"}
    )
    lab.learn(content)
    assert sorted(lab.store.duplicates(content.cid, 0)) == [(0, 2), (1, 5)]


def test_local_sources_are_other_copies_of_the_same_bytes(
    lab: Any, memory: Any, make_content: Any
) -> None:
    film = b"f" * PIECE + b"g" * PIECE + b"h"
    old = make_content({"film": film, "note": b"old", "x": b"x"})
    new = make_content({"a": b"new", "again": film, "film": film, "x": b"x"})
    lab.put(Path("/data/old"), {"film": film, "note": b"old", "x": b"x"})
    source = lab.share(old, Path("/data/old"))
    wanted = lab.begin(new, Path("/data/new"))
    copy = lab.copy_id(new)
    runs = lab.store.local_sources(copy, 0)
    assert {(r.first, r.count, r.copy, r.copy_first) for r in runs} == {
        (1, 3, source, 0),
        (4, 3, source, 0),
        (7, 1, source, 4),
    }
    lab.write(wanted, new, [1])
    within = [run for run in lab.store.local_sources(copy, 0) if run.copy == copy]
    assert [(r.first, r.count, r.copy_first) for r in within] == [(4, 1, 1)]


def test_nodes_stay_while_something_leads_to_them(lab: Any, make_content: Any) -> None:
    inner = {"film": b"a" * PIECE + b"b"}
    one, two = make_content({"in": inner, "x": b"1"}), make_content({"in": inner, "y": b"2"})
    lab.learn(one)
    lab.learn(two)
    shared = set(one.nodes) & set(two.nodes)
    assert shared
    lab.store.forget(one.cid)
    assert lab.store.has_nodes(two.cid)
    assert all(lab.store.node(cid) is None for cid in set(one.nodes) - shared)
    lab.store.forget(two.cid)
    assert all(lab.store.node(cid) is None for cid in two.nodes)


def test_orphans_are_swept_at_start_but_not_what_the_cache_names(
    lab: Any, memory: Any, make_content: Any
) -> None:
    cancelled = make_content({"a": b"1" * PIECE + b"2"})
    film = make_content(b"2" * PIECE + b"3")
    lab.store.add_nodes(cancelled.nodes.items())
    lab.store.add_nodes(film.nodes.items())
    lab.put(Path("/data/film"), film.files[0])
    lab.store.hashes.add([(memory.stat(Path("/data/film")), film.cid)], 1.0)
    store = lab.reopen()
    assert all(store.node(cid) is None for cid in cancelled.nodes)
    assert store.has_nodes(film.cid)


def test_has_nodes_looks_at_the_whole_tree(lab: Any, make_content: Any) -> None:
    content = make_content({"in": {"film": b"a" * PIECE + b"b"}})
    names = list(content.nodes)  # children first
    assert not lab.store.has_nodes(content.cid)
    lab.store.add_nodes((name, content.nodes[name]) for name in names[1:])
    assert not lab.store.has_nodes(content.cid)
    lab.store.add_nodes([(names[0], content.nodes[names[0]])])
    assert lab.store.has_nodes(content.cid)


def test_a_node_is_kept_once(lab: Any) -> None:
    block = bytes.fromhex("0a020801")
    cid = node_cid(SHA2_256, block)
    assert cid.codec == DAG_PB
    lab.store.add_nodes([(cid, block), (cid, block)])
    assert lab.store.node(cid) == block
