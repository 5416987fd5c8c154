"""Fetching only some of a folder: which entries patterns take, and what becomes of the copy."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.storage.choice import MAX_PATTERN, MAX_PATTERNS, Choice
from shoal.storage.errors import DestinationExists, DiskFull, NothingMatches
from shoal.storage.model import CopyState
from shoal.storage.writer import CopyWriter
from shoal.wire.errors import InvalidText, Misuse
from shoal.wire.walk import EntryKind

OUT = Path("/d/out")
TREE = {
    "a.txt": b"alpha",
    "docs": {"b.txt": b"beta", "c.md": b"gamma", "deep": {"d.txt": b"delta" * 300_000}},
    "void": {},
    "zero": b"",
}


@pytest.mark.parametrize(
    ("pattern", "taken"),
    [
        ("*.txt", {"a.txt", "docs/b.txt", "docs/deep/d.txt"}),
        ("docs", {"docs", "docs/b.txt", "docs/deep", "docs/deep/d.txt"}),
        ("docs/", {"docs", "docs/b.txt", "docs/deep", "docs/deep/d.txt"}),
        ("deep", {"docs/deep", "docs/deep/d.txt"}),
        ("/deep", set()),
        ("/*.txt", {"a.txt"}),
        ("./a.txt", {"a.txt"}),
        ("docs/*.txt", {"docs/b.txt"}),
        ("docs/**/*.txt", {"docs/b.txt", "docs/deep/d.txt"}),
        ("**/d.txt", {"docs/deep/d.txt"}),
        ("docs/**", {"docs", "docs/b.txt", "docs/deep", "docs/deep/d.txt"}),
        ("[ab].txt", {"a.txt", "docs/b.txt"}),
        ("?.TXT", set()),
    ],
)
def test_what_patterns_take(pattern: str, taken: set[str]) -> None:
    paths = ["a.txt", "docs", "docs/b.txt", "docs/deep", "docs/deep/d.txt", "void"]
    choice = Choice([pattern])
    assert {path for path in paths if choice.takes(path)} == taken
    assert choice.used == ({pattern} if taken else set())


NAMES = st.text("ab*?", min_size=1, max_size=4)


def _by_hand(parts: list[str], names: list[str]) -> bool:
    if not parts:
        return True
    if parts[0] == "**":
        return any(_by_hand(parts[1:], names[at:]) for at in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], parts[0]) and _by_hand(parts[1:], names[1:])


@given(
    st.lists(NAMES | st.just("**"), min_size=2, max_size=5),
    st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=5),
)
def test_a_path_pattern_matches_as_one_matches_by_hand(parts: list[str], names: list[str]) -> None:
    assert Choice(["/".join(parts)]).takes("/".join(names)) == _by_hand(parts, names)


@pytest.mark.parametrize("bad", ["", "/", "./", "x" * (MAX_PATTERN + 1), "a\0b"])
def test_a_pattern_that_names_nothing_is_refused(bad: str) -> None:
    with pytest.raises(InvalidText):
        Choice([bad])


def test_patterns_are_bounded() -> None:
    with pytest.raises(InvalidText):
        Choice([str(number) for number in range(MAX_PATTERNS + 1)])


@pytest.fixture
def content(make_content: Any) -> Any:
    return make_content({**TREE, "l": make_content.Link("a.txt")})


def begin(lab: Any, content: Any, *only: str) -> CopyWriter:
    copy = lab.store.begin_fetch(content.cid, OUT, lab.now, only or None)
    lab.learn(content)
    writer = CopyWriter(lab.store, copy.id)
    writer.prepare()
    return writer


def pieces_of(content: Any, *paths: str) -> list[int]:
    return [
        piece
        for entry in content.entries
        if entry.path in paths and entry.kind is EntryKind.FILE
        for piece in range(entry.first_piece, entry.first_piece + entry.pieces)
    ]


def get_only(lab: Any, content: Any, *only: str, held: tuple[str, ...]) -> Any:
    """Fetch what patterns take, which is these files."""
    writer = begin(lab, content, *only)
    lab.write(writer, content, pieces_of(content, *held))
    writer.finish()
    return lab.store.copies(content.cid)[-1]


def test_only_what_is_wanted_is_made(lab: Any, content: Any, read_tree: Any) -> None:
    copy = get_only(lab, content, "docs/*.txt", "void", held=("docs/b.txt",))
    assert read_tree(lab.disk, OUT) == {"docs": {"b.txt": b"beta"}, "void": {}}
    assert copy.state is CopyState.COMPLETE
    assert copy.only == ("docs/*.txt", "void")
    assert lab.store.bits(copy.id).count() == 1
    assert lab.store.check_copy(copy.id) == []


def test_what_is_wanted_must_be_there(lab: Any, content: Any) -> None:
    writer = begin(lab, content, "*.txt")
    lab.write(writer, content, pieces_of(content, "a.txt"))
    with pytest.raises(Misuse):
        writer.finish()


def test_room_is_needed_only_for_what_is_wanted(lab: Any, content: Any) -> None:
    writer = begin(lab, content, "/a.txt")
    assert lab.store.chosen(lab.copy_id(content)).size == 5
    lab.disk.capacity = lab.disk.used() + 100_000
    writer.check_room()
    lab.store.begin_fetch(content.cid, OUT, lab.now, ("docs",))
    with pytest.raises(DiskFull):
        writer.check_room()


def test_more_of_a_copy_may_be_wanted_later(lab: Any, content: Any, read_tree: Any) -> None:
    first = get_only(lab, content, "/a.txt", held=("a.txt",))
    lab.disk.folder(OUT).create("mine").pwrite(b"1", 0)
    writer = begin(lab, content, "docs/b.txt")
    copy = lab.store.copies(content.cid)[-1]
    assert copy.id == first.id
    assert copy.only == ("/a.txt", "docs/b.txt")
    assert copy.reopened
    lab.write(writer, content, pieces_of(content, "docs/b.txt"))
    writer.finish()
    again = lab.store.begin_fetch(content.cid, OUT, lab.now, ("/a.txt",))
    assert again.state is CopyState.COMPLETE
    assert not again.reopened
    whole = begin(lab, content)
    rest = pieces_of(content, "docs/c.md", "docs/deep/d.txt", "zero")
    lab.write(whole, content, rest)
    whole.finish()
    found = read_tree(lab.disk, OUT)
    assert found.pop("mine") == b"1"
    found.pop("l")
    assert found == TREE
    assert lab.store.bits(first.id).all()


def test_what_was_complete_outlives_the_removal_of_a_wider_fetch(
    lab: Any, content: Any, read_tree: Any
) -> None:
    get_only(lab, content, "/a.txt", held=("a.txt",))
    begin(lab, content, "docs")
    copy = lab.store.copies(content.cid)[-1]
    assert lab.disk.folder(OUT.parent).names() == [copy.working_name]
    removed = lab.store.remove_copy(copy.id)
    assert removed.deleted == ()
    assert read_tree(lab.disk, OUT)["a.txt"] == b"alpha"


def test_a_crash_before_the_folder_was_taken_back_costs_nothing(
    lab: Any, content: Any, read_tree: Any
) -> None:
    get_only(lab, content, "/a.txt", held=("a.txt",))
    lab.store.begin_fetch(content.cid, OUT, lab.now, ("docs/c.md",))
    lab.reopen()
    copy = lab.store.copies(content.cid)[-1]
    assert copy.state is CopyState.FETCHING
    writer = CopyWriter(lab.store, copy.id)
    writer.prepare()
    lab.write(writer, content, pieces_of(content, "docs/c.md"))
    writer.finish()
    assert read_tree(lab.disk, OUT) == {"a.txt": b"alpha", "docs": {"c.md": b"gamma"}}


def test_the_choice_outlives_the_database(real_lab: Any, content: Any, tmp_path: Path) -> None:
    store = real_lab.store
    copy = store.begin_fetch(content.cid, tmp_path / "out", 1.0, ("*.md",), "sequential")
    store.close()
    for path in real_lab.home.glob("shoal.db*"):
        path.unlink()
    known = real_lab.reopen().copy(copy.id)
    assert (known.only, known.order) == (("*.md",), "sequential")


def test_patterns_of_several_calls_add_up(lab: Any, content: Any) -> None:
    lab.store.begin_fetch(content.cid, OUT, lab.now, ("*.md",))
    copy = lab.store.begin_fetch(content.cid, OUT, lab.now, ("*.txt", "*.md"), "sequential")
    assert (copy.only, copy.order) == (("*.md", "*.txt"), "sequential")
    assert lab.store.begin_fetch(content.cid, OUT, lab.now).only is None


def test_a_pattern_that_takes_nothing_is_told_with_what_there_is(lab: Any, content: Any) -> None:
    writer = begin(lab, content, "*.md")
    assert writer is not None
    with pytest.raises(NothingMatches, match=r"'\*\.jpg'.*'a\.txt', 'docs'"):
        lab.store.begin_fetch(content.cid, OUT, lab.now, ("*.txt", "*.jpg"))
    assert lab.store.copies(content.cid)[-1].only == ("*.md",)


def test_a_single_file_has_nothing_to_choose(lab: Any, make_content: Any) -> None:
    content = make_content(b"alone")
    lab.store.begin_fetch(content.cid, OUT, lab.now, ("*",))
    lab.learn(content)
    with pytest.raises(NothingMatches, match="single file"):
        lab.store.chosen(lab.copy_id(content))


def test_a_changed_part_is_not_taken_for_complete(lab: Any, content: Any) -> None:
    copy = get_only(lab, content, "/a.txt", held=("a.txt",))
    lab.disk.folder(OUT).open("a.txt", writable=True).pwrite(b"EDITED", 0)
    lab.now += 1
    assert len(lab.store.check_copy(copy.id)) == 1
    assert lab.store.copy(copy.id).state is CopyState.DEGRADED
    with pytest.raises(DestinationExists, match="was changed"):
        lab.store.begin_fetch(content.cid, OUT, lab.now, ("docs",))


def test_verifying_looks_at_what_is_wanted(lab: Any, content: Any) -> None:
    copy = get_only(lab, content, "*.txt", held=("a.txt", "docs/b.txt", "docs/deep/d.txt"))
    *_, last = lab.store.verify(copy.id)
    assert (last.pieces, last.good, last.bad_files) == (4, 4, ())
    assert lab.store.copy(copy.id).state is CopyState.COMPLETE
    folder = lab.disk.folder(OUT).folder("docs")
    folder.open("b.txt", writable=True).pwrite(b"BETA", 0)
    *_, last = lab.store.verify(copy.id)
    assert (last.good, last.bad_files) == (3, ("docs/b.txt",))
    assert lab.store.copy(copy.id).state is CopyState.DEGRADED
