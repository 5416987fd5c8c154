from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.wire import walk as walking
from shoal.wire.blocks import CHUNK, cid_from, digest_of, node_cid, pieces_of
from shoal.wire.dag import encode_link, encode_node
from shoal.wire.directory import build_in_order
from shoal.wire.errors import ContentRefused, PeerFault
from shoal.wire.hamt import build_shards
from shoal.wire.ids import BLAKE3, DAG_PB, RAW, SHA2_256, Cid, multihash
from shoal.wire.names import safe_component
from shoal.wire.unixfs import (
    Built,
    Named,
    UnixFsData,
    UnixFsKind,
    build_file,
    build_symlink,
    encode_data,
)
from shoal.wire.walk import Entry, EntryKind, Walk, WalkLimits

ONE = Built(Cid.of(RAW, b"x"), 1, 1, 1)
DIRECTORY = encode_data(UnixFsData(UnixFsKind.DIRECTORY))


class Made:
    """A content from a nested mapping: a number is a file of so many bytes, a text a symlink."""

    def __init__(self, tree: Any, code: int = SHA2_256) -> None:
        self.code = code
        self.nodes: dict[Cid, bytes] = {}
        self.shape: dict[Cid, Any] = {}
        self.built = self._build(tree)
        self.root = self.built.cid

    def _build(self, tree: Any) -> Built:
        emit = self.nodes.__setitem__
        if isinstance(tree, Built):
            return tree
        if isinstance(tree, int):
            sizes = [CHUNK] * (pieces_of(tree) - 1)
            sizes.append(tree - CHUNK * len(sizes))
            digest = digest_of(self.code, b"") if not tree else tree.to_bytes(32, "big")
            return build_file(((digest, size) for size in sizes), emit, self.code)
        if isinstance(tree, str):
            return build_symlink(tree, emit, self.code)
        made = {name: self._build(child) for name, child in tree.items()}
        named = [Named(name.encode(), built.cid, built.tsize) for name, built in made.items()]
        built, ordered = build_in_order(named, emit, self.code)
        self.shape[built.cid] = [child.name.decode() for child in ordered]
        return built

    def expected(self, tree: Any) -> list[Entry]:
        """Return the entries that the tree stands for, in order."""
        entries: list[Entry] = []
        pieces = 0

        def visit(path: str, tree: Any) -> None:
            nonlocal pieces
            cid = self._build(tree).cid
            ordinal = len(entries)
            match tree:
                case int():
                    count = pieces_of(tree)
                    entries.append(Entry(ordinal, path, EntryKind.FILE, cid, tree, pieces, count))
                    pieces += count
                case str():
                    kind = EntryKind.SYMLINK
                    entries.append(Entry(ordinal, path, kind, cid, 0, pieces, 0, tree))
                case _:
                    entries.append(Entry(ordinal, path, EntryKind.DIRECTORY, cid, 0, pieces, 0))
                    for name in self.shape[cid]:
                        visit(f"{path}/{name}" if path else name, tree[name])

        visit("", tree)
        return entries


def run(
    root: Cid, nodes: dict[Cid, bytes], limits: WalkLimits | None = None, at_once: int = 64
) -> tuple[list[Entry], int]:
    """Walk with all nodes at hand; return the entries and how many nodes were fed."""
    walk = Walk(root, limits)
    entries: list[Entry] = []
    fed = 0
    while not walk.over:
        for cid in walk.wanted(at_once):
            walk.feed(cid, nodes[cid])
            fed += 1
        entries += walk.drain()
    assert walk.entries == len(entries)
    assert walk.total_pieces == sum(entry.pieces for entry in entries)
    return entries, fed


names = st.text("abcxyz.é", min_size=1, max_size=6).filter(lambda name: name not in (".", ".."))
sizes = st.sampled_from([0, 1, 4096, CHUNK, CHUNK + 1, 5 * CHUNK, 1025 * CHUNK])
trees = st.recursive(
    sizes | st.sampled_from(["target", "../up", "/abs"]),
    lambda inner: st.dictionaries(names, inner, max_size=6),
    max_leaves=25,
)


@settings(max_examples=60, deadline=None)
@given(trees.filter(lambda tree: not isinstance(tree, int)), st.sampled_from([SHA2_256, BLAKE3]))
def test_a_walk_finds_what_was_built(tree: Any, code: int) -> None:
    made = Made(tree, code)
    entries, _ = run(made.root, made.nodes)
    assert entries == made.expected(tree)


@settings(max_examples=40, deadline=None)
@given(trees, st.randoms(use_true_random=False), st.integers(1, 8))
def test_the_order_of_arrival_changes_nothing(tree: Any, rng: Random, at_once: int) -> None:
    made = Made(tree)
    straight, _ = run(made.root, made.nodes)
    walk = Walk(made.root)
    entries: list[Entry] = []
    while not walk.over:
        wanted = walk.wanted(at_once)
        assert len(wanted) <= at_once
        if wanted:
            cid = rng.choice(wanted)
            walk.feed(cid, made.nodes[cid])
        if not wanted or rng.random() < 0.3:
            entries += walk.drain()
    assert entries == straight


def test_large_folders_are_walked_in_slot_order() -> None:
    tree = {f"file-{i:05}.txt": i % 7 for i in range(6000)} | {"sub": {"a": 1}, "z": 3 * CHUNK}
    made = Made(tree)
    entries, _ = run(made.root, made.nodes)
    assert entries == made.expected(tree)
    assert [entry.path for entry in entries[1:]] != sorted(entry.path for entry in entries[1:])


def test_a_raw_root_needs_no_node() -> None:
    walk = Walk(ONE.cid)
    assert walk.wanted() == []
    assert walk.drain() == [Entry(0, "", EntryKind.FILE, ONE.cid, -1, 0, 1)]
    assert walk.over
    assert (walk.total_size, walk.total_pieces) == (0, 1)


@pytest.mark.parametrize("code", [SHA2_256, BLAKE3])
def test_an_empty_root_is_known_by_its_hash(code: int) -> None:
    root = cid_from(RAW, code, digest_of(code, b""))
    assert Walk(root).drain() == [Entry(0, "", EntryKind.FILE, root, 0, 0, 1)]


def test_a_file_root_is_its_only_entry() -> None:
    made = Made(3 * CHUNK + 5)
    entry = Entry(0, "", EntryKind.FILE, made.root, 3 * CHUNK + 5, 0, 4)
    assert run(made.root, made.nodes) == ([entry], 1)


def test_the_inside_of_files_is_not_walked() -> None:
    made = Made({"big": 3000 * CHUNK})
    entries, fed = run(made.root, made.nodes)
    assert (entries[1].pieces, fed) == (3000, 2)
    assert len(made.nodes) == 4  # two of the three inner nodes are equal


def test_an_empty_file_has_one_piece_of_no_length() -> None:
    entries, _ = run(*parts(Made({"a": 0, "b": 1})))
    assert [(e.size, e.first_piece, e.pieces) for e in entries[1:]] == [(0, 0, 1), (1, 1, 1)]


def parts(made: Made) -> tuple[Cid, dict[Cid, bytes]]:
    return made.root, made.nodes


# Asking


def test_it_looks_ahead_over_siblings_and_into_folders_that_are_there() -> None:
    tree = {f"d{i}": {"deep": {"big": (i + 2) * CHUNK}} for i in range(20)}
    made = Made(tree)
    walk = Walk(made.root)
    rounds = 0
    while not walk.over:
        for cid in walk.wanted():
            walk.feed(cid, made.nodes[cid])
        walk.drain()
        rounds += 1
    assert rounds == 4  # root, d*, deep, big: one round trip for each level


def test_a_question_is_repeated_until_it_is_answered() -> None:
    made = Made({"a": {"b": 2 * CHUNK}, "c": 3 * CHUNK})
    walk = Walk(made.root)
    assert walk.wanted() == walk.wanted() == [made.root]
    walk.feed(made.root, made.nodes[made.root])
    both = walk.wanted()
    assert len(both) == 2
    walk.feed(both[1], made.nodes[both[1]])
    assert walk.wanted() == both[:1]
    assert walk.wanted(1) == both[:1]


def test_a_node_that_nobody_asked_for_changes_nothing() -> None:
    made = Made({"a": 2 * CHUNK})
    other = Made({"b": 2 * CHUNK})
    walk = Walk(made.root)
    walk.wanted()
    walk.feed(other.root, other.nodes[other.root])
    walk.feed(other.root, b"rubbish")
    assert walk.wanted() == [made.root]
    assert walk.drain() == []


def test_a_wrong_block_is_the_peers_fault_and_can_be_made_good() -> None:
    made = Made({"a": 1})
    walk = Walk(made.root)
    walk.wanted()
    with pytest.raises(PeerFault, match="bad-index-hash"):
        walk.feed(made.root, made.nodes[made.root] + b" ")
    assert walk.wanted() == [made.root]
    walk.feed(made.root, made.nodes[made.root])
    assert len(walk.drain()) == 2


def test_it_rests_while_entries_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "UNDRAINED", 10)
    made = Made({f"{i}": {"x": 1, "y": 2} for i in range(100)})
    walk = Walk(made.root)
    entries: list[Entry] = []
    while not walk.over:
        for cid in walk.wanted():
            walk.feed(cid, made.nodes[cid])
        found = walk.drain()
        assert len(found) <= 10
        entries += found
    assert len(entries) == 301


def test_nodes_that_were_dropped_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.wire.walking.CACHE_BYTES", 1000)
    tree = {f"d{i}": {"again": {"a": 2 * CHUNK}, "own": {f"f{i}": 1}} for i in range(30)}
    made = Made(tree)
    entries, fed = run(made.root, made.nodes)
    assert entries == made.expected(tree)
    assert fed > len(made.nodes)


# Bounds


def test_a_large_folder_is_let_go_of_when_it_was_walked_and_asked_for_when_it_comes_again() -> None:
    large = {f"{number:03}": 1 for number in range(400)}
    made = Made({"a": large, "b": large, "c": 1})
    walk, questions = Walk(made.built.cid), 0
    entries: list[Entry] = []
    while not walk.over:
        for cid in walk.wanted():
            questions += 1
            walk.feed(cid, made.nodes[cid])
        entries += walk.drain()
    assert questions == 3  # the root, and the folder for each time that it occurs
    assert len(entries) == 804


def doubling(levels: int) -> tuple[Cid, dict[Cid, bytes]]:
    nodes: dict[Cid, bytes] = {}
    built = ONE
    for _ in range(levels):
        twice = [Named(name, built.cid, built.tsize) for name in (b"l", b"r")]
        built, _ = build_in_order(twice, nodes.__setitem__)
    return built.cid, nodes


def ladder(levels: int) -> tuple[Cid, dict[Cid, bytes]]:
    """Doubles per level, yet no folder links to the same folder twice."""
    nodes: dict[Cid, bytes] = {}
    left, right = ONE, Built(Cid.of(RAW, b"y"), 1)
    for _ in range(levels):
        one = [Named(b"l", left.cid, left.tsize), Named(b"r", right.cid, right.tsize)]
        two = [Named(b"r", left.cid, left.tsize), Named(b"x", right.cid, right.tsize)]
        left, right = (build_in_order(each, nodes.__setitem__)[0] for each in (one, two))
    return left.cid, nodes


@pytest.mark.parametrize("bomb", [doubling(31), ladder(31)], ids=["same", "ladder"])
@pytest.mark.parametrize("at_once", [64, 8])
def test_a_bomb_is_refused_within_a_hundred_nodes(
    bomb: tuple[Cid, dict[Cid, bytes]], at_once: int
) -> None:
    root, nodes = bomb
    fed: list[Cid] = []

    def explode() -> None:
        walk = Walk(root)
        while len(fed) < 100:
            for cid in walk.wanted(at_once):
                fed.append(cid)
                walk.feed(cid, nodes[cid])
            assert len(walk.drain()) < 100

    with pytest.raises(ContentRefused, match="over 10000000 files and folders"):
        explode()
    assert len(fed) < 100


def test_repeated_folders_below_the_limit_are_all_there() -> None:
    root, nodes = doubling(10)
    entries, _ = run(root, nodes)
    assert len(entries) == 2**11 - 1
    assert len({entry.path for entry in entries}) == len(entries)


def test_the_entries_are_counted_exactly() -> None:
    made = Made({"a": 1, "b": {"c": 1, "d": {"e": 1}}})
    assert len(run(made.root, made.nodes, WalkLimits(entries=6))[0]) == 6
    with pytest.raises(ContentRefused, match="over 5 files and folders"):
        run(made.root, made.nodes, WalkLimits(entries=5))


@pytest.mark.parametrize("tree", [{"a": 3 * CHUNK, "b": 1}, 4 * CHUNK])
def test_the_pieces_are_counted_exactly(tree: Any) -> None:
    made = Made(tree)
    run(made.root, made.nodes, WalkLimits(pieces=4))
    with pytest.raises(ContentRefused, match="over 3 pieces"):
        run(made.root, made.nodes, WalkLimits(pieces=3))


def test_depth_and_length_of_paths_are_bounded() -> None:
    tree: Any = 1
    for _ in range(32):
        tree = {"d": tree}
    made = Made(tree)
    assert len(run(made.root, made.nodes)[0]) == 33
    made = Made({"d": tree})
    with pytest.raises(ContentRefused, match="deeper than 32"):
        run(made.root, made.nodes)
    made = Made({"é" * 10: {"x": 1}})
    run(made.root, made.nodes, WalkLimits(path=22))
    with pytest.raises(ContentRefused, match="over 21 bytes"):
        run(made.root, made.nodes, WalkLimits(path=21))


def test_an_index_far_larger_than_its_content_is_refused() -> None:
    junk = UnixFsData(UnixFsKind.DIRECTORY, bytes(1 << 20))
    nodes: dict[Cid, bytes] = {}
    links = []
    for i in range(70):
        block = encode_node(encode_link(bytes(ONE.cid), b"%d" % i, 1), encode_data(junk))
        nodes[node_cid(SHA2_256, block)] = block
        links.append(encode_link(bytes(node_cid(SHA2_256, block)), b"%02d" % i, 1))
    root = encode_node(b"".join(links), DIRECTORY)
    nodes[node_cid(SHA2_256, root)] = root
    with pytest.raises(ContentRefused, match="index is far larger"):
        run(node_cid(SHA2_256, root), nodes)


def test_a_folder_inside_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """No hash can make one; should that ever change, the walk ends all the same."""
    monkeypatch.setattr(walking, "matches", lambda cid, block: True)
    loop = Cid(DAG_PB, multihash(SHA2_256, bytes(32)))
    block = encode_node(encode_link(bytes(loop), b"again", 1), DIRECTORY)
    with pytest.raises(ContentRefused, match=r"contains itself|over 1000 files"):
        run(loop, {loop: block}, WalkLimits(entries=1000))


# Hostile nodes


def folder(*links: tuple[bytes, Cid, int]) -> tuple[Cid, dict[Cid, bytes]]:
    body = b"".join(encode_link(bytes(cid), name, tsize) for name, cid, tsize in links)
    block = encode_node(body, DIRECTORY)
    return node_cid(SHA2_256, block), {node_cid(SHA2_256, block): block}


BAD_NAMES = [b"", b".", b"..", b"a/b", b"/", b"a\\b", b"a\0b", b"\xff\xfe", b"n" * 256]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_hostile_names_are_refused(name: bytes) -> None:
    with pytest.raises(ContentRefused):
        run(*folder((name, ONE.cid, 1)))


@pytest.mark.parametrize("name", [b".", b"..", b"a/b", b"a\\b", b"\xff\xfe"])
def test_hostile_names_in_large_folders_are_refused(name: bytes) -> None:
    nodes: dict[Cid, bytes] = {}
    built = build_shards([Named(name, ONE.cid, 1)], nodes.__setitem__)
    with pytest.raises(ContentRefused):
        run(built.cid, nodes)


def test_ordinary_names_are_taken() -> None:
    for name in ("a", "...", ".hidden", "a b", "ü", "con", "x" * 255, "new\nline"):
        safe_component(name)


def test_of_equal_names_the_first_counts() -> None:
    other = Cid.of(RAW, b"other")
    entries, _ = run(*folder((b"a", ONE.cid, 1), (b"b", ONE.cid, 1), (b"a", other, 5)))
    assert [(entry.path, entry.cid) for entry in entries[1:]] == [("a", ONE.cid), ("b", ONE.cid)]


def test_links_count_in_the_order_they_are_written() -> None:
    entries, _ = run(*folder((b"b", ONE.cid, 1), (b"a", ONE.cid, 1)))
    assert [entry.path for entry in entries[1:]] == ["b", "a"]


EMPTY = Cid.of(RAW, b"")


@pytest.mark.parametrize(
    "link",
    [
        (b"a", ONE.cid, CHUNK + 1),
        (b"a", ONE.cid, 0),
        (b"a", EMPTY, 1),
        (b"a", Cid(RAW, multihash(0, b"inline")), 6),
        (b"a", Cid(0x71, ONE.cid.multihash), 1),
        (b"a", Cid(RAW, multihash(0x13, bytes(64))), 1),
        (b"a", Cid(DAG_PB, multihash(0x13, bytes(64))), 1),
    ],
)
def test_impossible_leaves_are_refused(link: tuple[bytes, Cid, int]) -> None:
    root, nodes = folder(link)
    walk = Walk(root)
    for cid in walk.wanted():
        with pytest.raises(ContentRefused):
            feed_all(walk, cid, nodes)


def feed_all(walk: Walk, cid: Cid, nodes: dict[Cid, bytes]) -> None:
    walk.feed(cid, nodes[cid])
    for further in walk.wanted():
        walk.feed(further, b"whatever")


@pytest.mark.parametrize(
    "root", [Cid(0x71, ONE.cid.multihash), Cid(RAW, multihash(0, b"inline"))], ids=str
)
def test_roots_that_are_no_files_are_refused_at_once(root: Cid) -> None:
    with pytest.raises(ContentRefused):
        Walk(root)


@pytest.mark.parametrize("kind", [UnixFsKind.RAW, UnixFsKind.METADATA])
def test_old_kinds_are_refused(kind: UnixFsKind) -> None:
    block = encode_node(b"", encode_data(UnixFsData(kind, b"data")))
    cid = node_cid(SHA2_256, block)
    with pytest.raises(ContentRefused, match="old kind"):
        run(cid, {cid: block})


def test_damaged_nodes_are_nobodys_fault() -> None:
    for block in (b"\x0a\x05", b"", encode_node(b"", b"\xff")):
        cid = node_cid(SHA2_256, block)
        with pytest.raises(ContentRefused):
            run(cid, {cid: block})


def shards(level: int, name: bytes, prefix: bytes, fanout: int = 256) -> Iterator[bytes]:
    """Return nested HAMT nodes that lead to `name` through slots that start with `prefix`."""
    link = encode_link(bytes(ONE.cid), prefix[:2] + name, 1)
    for _ in range(level + 1):
        slot = int(prefix[:2], 16)
        bits = (1 << slot).to_bytes(slot // 8 + 1, "big")
        data = UnixFsData(UnixFsKind.SHARD, bits, hash_type=0x22, fanout=fanout)
        block = encode_node(link, encode_data(data))
        yield block
        link = encode_link(bytes(node_cid(SHA2_256, block)), prefix[:2], 1)


@pytest.mark.parametrize("level", [0, 1, 8, 20])
def test_a_name_in_the_wrong_slot_is_refused(level: int) -> None:
    blocks = {node_cid(SHA2_256, block): block for block in shards(level, b"name", b"07")}
    with pytest.raises(ContentRefused, match=r"wrong part|nested deeper|contains itself"):
        run(list(blocks)[-1], blocks)


def test_parts_of_a_large_folder_have_one_fanout() -> None:
    inner = next(shards(0, b"name", b"07", fanout=128))
    cid = node_cid(SHA2_256, inner)
    data = UnixFsData(UnixFsKind.SHARD, b"\x01", hash_type=0x22, fanout=256)
    outer = encode_node(encode_link(bytes(cid), b"00", 1), encode_data(data))
    root = node_cid(SHA2_256, outer)
    with pytest.raises(ContentRefused, match="not what it should be"):
        run(root, {root: outer, cid: inner})


def test_a_part_of_a_large_folder_must_be_one() -> None:
    inner, nodes = folder((b"a", ONE.cid, 1))
    for target in (inner, ONE.cid):
        data = UnixFsData(UnixFsKind.SHARD, b"\x01", hash_type=0x22, fanout=256)
        outer = encode_node(encode_link(bytes(target), b"00", 1), encode_data(data))
        root = node_cid(SHA2_256, outer)
        with pytest.raises(ContentRefused, match="not what it should be"):
            run(root, {root: outer, **nodes})


def test_a_symlink_with_children_is_refused() -> None:
    data = encode_data(UnixFsData(UnixFsKind.SYMLINK, b"target"))
    block = encode_node(encode_link(bytes(ONE.cid), b"a", 1), data)
    cid = node_cid(SHA2_256, block)
    with pytest.raises(ContentRefused, match="further nodes"):
        run(cid, {cid: block})


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_any_block_is_walked_or_refused(block: bytes) -> None:
    cid = node_cid(SHA2_256, block)
    walk = Walk(cid)
    walk.wanted()
    try:
        walk.feed(cid, block)
    except ContentRefused:
        return
    assert walk.entries >= 1
