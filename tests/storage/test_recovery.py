"""A lost or damaged database, a damaged journal, and copies that went and came back."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from shoal.storage.disk import RealDisk
from shoal.storage.errors import Damaged, FileChanged, FileMissing, HomeBusy, StorageError
from shoal.storage.model import Announce, CopyState, tag_text
from shoal.storage.reader import CopyReader
from shoal.storage.store import Store
from shoal.wire.ids import RAW, Cid

PIECE = 1 << 20
TREE = {"a": b"alpha", "b": b"B" * PIECE + b"C", "e": b"", "in": {"d": b"delta"}}


def remove_database(lab: Any) -> None:
    lab.store.close()
    for name in ("shoal.db", "shoal.db-wal", "shoal.db-shm"):
        (lab.home / name).unlink(missing_ok=True)


def open_again(lab: Any) -> Any:
    lab.store = Store.open(lab.home, lab.disk, 9.0)
    return lab.store


@pytest.fixture
def content(make_content: Any) -> Any:
    return make_content(TREE)


def test_shared_and_complete_copies_come_back_by_hashing(
    real_lab: Any, tmp_path: Path, content: Any, make_content: Any, write_tree: Any
) -> None:
    write_tree(tmp_path / "mine", TREE)
    shared = real_lab.share(content, tmp_path / "mine")
    got = make_content(b"fetched")
    fetched = real_lab.fetch(got, tmp_path / "got")
    remove_database(real_lab)
    store = open_again(real_lab)
    assert len(store.problems) == 1
    for copy_id in (shared, fetched):
        copy = store.copy(copy_id)
        assert copy.recheck
        assert copy.state is CopyState.DEGRADED
        assert not store.bits(copy_id).any()
    assert {copy.path for copy in store.copies()} == {tmp_path / "mine", tmp_path / "got"}
    real_lab.learn(got)
    store.learn_size(got.cid, 7)
    *_, last = store.verify(fetched)
    assert last.over
    assert last.bad_files == ()
    assert store.copy(fetched).state is CopyState.COMPLETE
    assert store.bits(fetched).all()
    assert real_lab.share(content, tmp_path / "mine") == shared
    assert store.copy(shared).state is CopyState.SHARED
    assert open_again(real_lab).problems == []


def test_an_unfinished_copy_goes_on_after_the_database_was_lost(
    real_lab: Any, tmp_path: Path, content: Any, read_tree: Any
) -> None:
    writer = real_lab.begin(content, tmp_path / "out")
    real_lab.write(writer, content, [0, 2])
    remove_database(real_lab)
    store = open_again(real_lab)
    copy = store.copies()[0]
    assert (copy.state, copy.recheck) == (CopyState.FETCHING, True)
    real_lab.learn(content)
    writer = real_lab.begin(content, tmp_path / "out")
    held = store.bits(copy.id)
    assert held.to01() == "10110"  # piece 3 is empty and needs no bytes
    real_lab.write(writer, content, [1, 4])
    writer.finish()
    assert read_tree(real_lab.disk, tmp_path / "out") == TREE
    assert store.copy(copy.id).state is CopyState.COMPLETE


def test_a_copy_that_was_moved_just_before_counts_as_complete(
    real_lab: Any, tmp_path: Path, content: Any
) -> None:
    real_lab.fetch(content, tmp_path / "out")
    remove_database(real_lab)
    lines = (real_lab.home / "copies.jsonl").read_text().splitlines(keepends=True)
    (real_lab.home / "copies.jsonl").write_text(lines[0])  # "finished" never got there
    copy = open_again(real_lab).copies()[0]
    assert copy.place == tmp_path / "out"
    real_lab.learn(content)
    *_, last = real_lab.store.verify(copy.id)
    assert last.good == len(content.pieces)
    assert real_lab.store.copy(copy.id).state is CopyState.COMPLETE


@pytest.mark.parametrize("damage", ["garbage", "pages", "empty", "half"])
def test_a_damaged_database_is_moved_aside(
    real_lab: Any, tmp_path: Path, content: Any, write_tree: Any, damage: str
) -> None:
    write_tree(tmp_path / "mine", TREE)
    real_lab.share(content, tmp_path / "mine")
    real_lab.store.close()
    path = real_lab.home / "shoal.db"
    data = path.read_bytes()
    assert len(data) > 20000
    match damage:
        case "garbage":
            path.write_bytes(b"not a database at all" * 1000)
        case "pages":
            path.write_bytes(data[:4096] + os.urandom(12288) + data[16384:])
        case "half":
            path.write_bytes(data[: len(data) // 2])
        case _:
            path.write_bytes(b"")
    store = open_again(real_lab)
    assert [copy.path for copy in store.copies()] == [tmp_path / "mine"]
    assert store.copies()[0].recheck
    assert store.problems
    asides = [name for name in os.listdir(real_lab.home) if ".damaged-" in name]
    assert bool(asides) == (damage != "empty")
    store.close()
    assert open_again(real_lab).problems == []


def test_a_database_of_a_newer_version_is_left_alone(real_lab: Any) -> None:
    real_lab.store._connection.run(
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) "
        "VALUES ('shoal', 'schema_99', '')"
    )
    real_lab.store.close()
    with pytest.raises(StorageError, match="newer"):
        open_again(real_lab)
    assert os.path.exists(real_lab.home / "shoal.db")


def test_ids_are_never_used_twice(real_lab: Any, tmp_path: Path, make_content: Any) -> None:
    one, two = make_content(b"1"), make_content(b"2")
    first = real_lab.fetch(one, tmp_path / "one")
    second = real_lab.fetch(two, tmp_path / "two")
    real_lab.store.remove_copy(second)
    assert real_lab.fetch(two, tmp_path / "three") == second + 1
    real_lab.store.remove_copy(second + 1)
    remove_database(real_lab)
    store = open_again(real_lab)
    assert [copy.id for copy in store.copies()] == [first]
    assert store.begin_fetch(two.cid, tmp_path / "four", 1.0).id > second + 1


def test_a_lost_journal_is_written_again(real_lab: Any, tmp_path: Path, content: Any) -> None:
    copy_id = real_lab.fetch(content, tmp_path / "out")
    real_lab.store.close()
    (real_lab.home / "copies.jsonl").unlink()
    store = open_again(real_lab)
    assert [copy.id for copy in store.copies()] == [copy_id]
    assert not store.copies()[0].recheck
    store.close()
    remove_database(real_lab)
    assert [copy.id for copy in open_again(real_lab).copies()] == [copy_id]


@pytest.mark.parametrize("tail", [b'{"event": "add', b'{"event": "removed", "copy": 1}'])
def test_a_line_that_was_cut_off_counts_for_nothing(
    real_lab: Any, tmp_path: Path, content: Any, tail: bytes
) -> None:
    real_lab.fetch(content, tmp_path / "out")
    real_lab.store.close()
    with (real_lab.home / "copies.jsonl").open("ab") as file:
        file.write(tail)
    store = open_again(real_lab)
    assert store.problems == []
    assert len(store.copies()) == 1
    store.remove_copy(1)
    assert (real_lab.home / "copies.jsonl").read_bytes().count(b"\n") == 3


def test_damaged_lines_are_said_and_skipped(real_lab: Any, tmp_path: Path, content: Any) -> None:
    real_lab.fetch(content, tmp_path / "out")
    real_lab.store.close()
    with (real_lab.home / "copies.jsonl").open("ab") as file:
        file.write(
            b'[]\n"x"\nnull\n{"event": "added"}\n\xff\xfe\n{"event": "finished", "copy": 77}\n'
        )
    store = open_again(real_lab)
    assert any("6 lines" in problem for problem in store.problems)
    assert len(store.copies()) == 1


def test_a_removal_that_was_cut_short_is_ended(real_lab: Any, tmp_path: Path, content: Any) -> None:
    writer = real_lab.begin(content, tmp_path / "out")
    real_lab.write(writer, content, [0])
    working = real_lab.store.copies()[0].place
    real_lab.store.journal.drop(1)
    real_lab.store.close()
    store = open_again(real_lab)
    assert store.copies() == []
    assert store.contents() == []
    assert not working.exists()


def test_the_journal_is_written_anew_when_it_grew(lab: Any, make_content: Any) -> None:
    content = make_content(b"x")
    for number in range(600):
        copy = lab.store.begin_fetch(content.cid, Path("/d/x"), number)
        lab.store.remove_copy(copy.id)
    kept = lab.store.begin_fetch(content.cid, Path("/d/x"), 1.0)
    before = lab.disk.stat(Path("/home/copies.jsonl")).size
    store = lab.reopen()
    assert lab.disk.stat(Path("/home/copies.jsonl")).size < before / 100
    assert [copy.id for copy in store.copies()] == [kept.id]
    assert lab.reopen().problems == []


def test_paths_need_not_be_text(real_lab: Any, tmp_path: Path, make_content: Any) -> None:
    content = make_content(b"x")
    path = tmp_path / os.fsdecode(b"caf\xe9")
    copy_id = real_lab.fetch(content, path)
    remove_database(real_lab)
    assert open_again(real_lab).copy(copy_id).path == path


ODD_LINES = (
    '{"event": "finished", "copy": Infinity}',
    '{"event": "removed", "copy": [1]}',
    '{"event": "removed", "copy": true}',
    "[" * 100_000,
    *(
        json.dumps({"event": "added", **GOOD, **odd})
        for GOOD in [{"copy": 9, "cid": "x", "path": "/p", "state": "shared", "time": 1.0}]
        for odd in (
            {"copy": 1 << 70}, {"copy": 0}, {"copy": 1.5}, {"path": "relative"}, {"path": "/a\0b"},
            {"path": "/\ud900"}, {"path": 7}, {"time": float("nan")}, {"time": "1e999"},
            {"state": "?"}, {"tag": "../x"}, {"tag": None},
        )
    ),
)  # fmt: skip


@pytest.mark.parametrize("line", ODD_LINES, ids=range(len(ODD_LINES)))
def test_no_line_of_the_journal_keeps_a_home_from_opening(
    real_lab: Any, tmp_path: Path, content: Any, line: str
) -> None:
    real_lab.fetch(content, tmp_path / "out")
    remove_database(real_lab)
    with (real_lab.home / "copies.jsonl").open("a") as file:
        file.write(line + "\n")
    store = open_again(real_lab)
    assert "1 lines of copies.jsonl cannot be read" in store.problems[0]
    assert [copy.path for copy in store.copies()] == [tmp_path / "out"]


def test_of_two_copies_at_one_place_the_later_counts(
    real_lab: Any, tmp_path: Path, content: Any
) -> None:
    first = real_lab.store.begin_fetch(content.cid, tmp_path / "out", 1.0).id
    real_lab.store.remove_copy(first)
    second = real_lab.store.begin_fetch(content.cid, tmp_path / "out", 1.0).id
    remove_database(real_lab)
    path = real_lab.home / "copies.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "removed" not in line))
    assert [copy.id for copy in open_again(real_lab).copies()] == [second]
    assert [copy.id for copy in open_again(real_lab).copies()] == [second]
    assert set(real_lab.store.journal.copies) == {second}


def test_a_database_older_than_the_journal_is_not_believed(
    real_lab: Any, tmp_path: Path, content: Any
) -> None:
    writer = real_lab.begin(content, tmp_path / "out")
    real_lab.write(writer, content, [0])
    real_lab.store.close()
    old = (real_lab.home / "shoal.db").read_bytes()
    open_again(real_lab)
    writer = real_lab.begin(content, tmp_path / "out")
    real_lab.write(writer, content, [1, 2, 4])
    writer.finish()
    remove_database(real_lab)
    (real_lab.home / "shoal.db").write_bytes(old)
    (tmp_path / "out" / "b").write_bytes(b"edited since")
    store = open_again(real_lab)
    assert any("older than copies.jsonl" in problem for problem in store.problems)
    (copy,) = store.copies()
    assert (copy.state, copy.recheck, copy.place) == (CopyState.DEGRADED, True, tmp_path / "out")
    assert not store.bits(copy.id).any()
    *_, last = store.verify(copy.id)
    assert last.bad_files == ("b",)
    assert store.bits(copy.id).to01() == "10011"


def test_bits_that_are_not_those_that_were_written_are_not_believed(
    real_lab: Any, tmp_path: Path, content: Any
) -> None:
    writer = real_lab.begin(content, tmp_path / "out")
    real_lab.write(writer, content, [0])
    real_lab.store._connection.run("UPDATE bits SET bits = x'F8'")
    with pytest.raises(Damaged):
        real_lab.store.bits(1)
    store = open_again(real_lab)
    assert any("moved to" in problem for problem in store.problems)
    writer = real_lab.begin(content, tmp_path / "out")
    assert store.bits(1).to01() == "10010"


def test_a_database_that_another_program_holds_is_said(
    real_lab: Any, monkeypatch: pytest.MonkeyPatch, make_content: Any
) -> None:
    monkeypatch.setattr("shoal.storage.disk.BUSY_SECONDS", 0.01)
    real_lab.store.close()
    store = open_again(real_lab)
    cid = make_content(b"x").cid
    other = sqlite3.connect(real_lab.home / "shoal.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(HomeBusy, match="close it"):
        store.ensure_content(cid)
    other.execute("ROLLBACK")
    store.ensure_content(cid)
    store.close()
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(HomeBusy, match="close it"):
        open_again(real_lab)
    other.close()
    assert open_again(real_lab).problems == []


def test_a_degraded_copy_is_written_into_a_new_journal(
    real_lab: Any, tmp_path: Path, content: Any
) -> None:
    real_lab.fetch(content, tmp_path / "out")
    (tmp_path / "out" / "a").write_bytes(b"other")
    assert real_lab.store.check_copy(1)
    real_lab.store.close()
    (real_lab.home / "copies.jsonl").unlink()
    open_again(real_lab)
    remove_database(real_lab)
    (copy,) = open_again(real_lab).copies()
    assert (copy.state, copy.recheck) == (CopyState.DEGRADED, True)


@pytest.mark.parametrize("compact", [False, True])
def test_what_a_user_decided_outlives_the_database(
    real_lab: Any,
    tmp_path: Path,
    content: Any,
    make_content: Any,
    write_tree: Any,
    monkeypatch: pytest.MonkeyPatch,
    compact: bool,
) -> None:
    write_tree(tmp_path / "mine", TREE)
    real_lab.share(content, tmp_path / "mine")
    real_lab.store.set_announce(content.cid, Announce.NONE)
    public, usual, dropped = (make_content(data) for data in (b"public", b"usual", b"dropped"))
    for number, (other, how) in enumerate(
        [(public, Announce.PUBLIC), (usual, Announce.BLINDED), (dropped, Announce.PUBLIC)]
    ):
        real_lab.fetch(other, tmp_path / str(number))
        real_lab.store.set_announce(other.cid, how)
    real_lab.store.remove_copy(4)
    for name in ("paused", "resumed", "got again"):
        copy = real_lab.store.begin_fetch(content.cid, tmp_path / name, 1.0)
        real_lab.store.pause(copy.id)
    real_lab.store.resume(6)
    real_lab.store.begin_fetch(content.cid, tmp_path / "got again", 1.0)
    if compact:
        monkeypatch.setattr("shoal.storage.journal.SPARE_LINES", -100)
        open_again(real_lab).close()
    remove_database(real_lab)
    store = open_again(real_lab)
    assert {c.cid: c.announce for c in store.contents()} == {
        content.cid: Announce.NONE, public.cid: Announce.PUBLIC, usual.cid: Announce.BLINDED
    }  # fmt: skip
    assert [copy.state for copy in store.copies() if not copy.finished] == [
        CopyState.PAUSED, CopyState.FETCHING, CopyState.FETCHING
    ]  # fmt: skip
    real_lab.fetch(dropped, tmp_path / "again")
    assert store.content(dropped.cid).announce is Announce.BLINDED


# Working names


def test_two_homes_fetch_one_content_into_one_folder(
    real_lab: Any, open_lab: Any, tmp_path: Path, content: Any, read_tree: Any
) -> None:
    other = open_lab(RealDisk(), tmp_path / "other")
    labs = (real_lab, other)
    for number, lab in enumerate(labs):
        lab.store.close()
        lab.store = Store.open(lab.home, lab.disk, 1.0, tag_text(b"home%d" % number))
    writers = [lab.begin(content, tmp_path / f"out{n}") for n, lab in enumerate(labs)]
    places = [lab.store.copies()[0].place for lab in labs]
    assert [place.name.rpartition("-")[2] for place in places] == ["1", "1"]
    for number, (lab, writer) in enumerate(zip(labs, writers, strict=True)):
        lab.write(writer, content, [0, 1, 2, 4])
        writer.finish()
        assert read_tree(lab.disk, tmp_path / f"out{number}") == TREE


def test_a_home_keeps_its_tag_and_old_working_names_stay_valid(
    real_lab: Any, tmp_path: Path, content: Any, make_content: Any, read_tree: Any
) -> None:
    writer = real_lab.begin(content, tmp_path / "out")  # a home from before there were tags
    real_lab.write(writer, content, [0])
    names = {real_lab.store.copies()[0].place}
    real_lab.store.close()
    other = make_content(b"other")
    for number in range(2):
        real_lab.store = Store.open(real_lab.home, real_lab.disk, 1.0, tag_text(b"draw%d" % number))
        real_lab.begin(other, tmp_path / f"other{number}")
        real_lab.store.close()
    for _ in range(2):  # with the database, and with the journal alone
        store = open_again(real_lab)
        assert store.problems == [] or "did not know" in store.problems[0]
        old, *new = store.copies()
        assert {old.place} == names
        assert {copy.tag for copy in new} == {tag_text(b"draw0")}
        assert all(copy.place.exists() for copy in new)
        remove_database(real_lab)
    store = open_again(real_lab)
    writer = real_lab.begin(content, tmp_path / "out")
    assert store.bits(old.id).to01() == "10010"
    real_lab.write(writer, content, [1, 2, 4])
    writer.finish()
    assert read_tree(real_lab.disk, tmp_path / "out") == TREE


# Files that change under a finished copy


def test_a_copy_that_is_gone_is_said_and_comes_back(lab: Any, content: Any) -> None:
    copy_id = lab.fetch(content, Path("/d/out"))
    folder = lab.disk.folder(Path("/d"))
    folder.rename("out", folder, "unplugged")
    store = lab.reopen()
    assert len(store.problems) == 1
    assert store.copy(copy_id).state is CopyState.DEGRADED
    assert not store.bits(copy_id).any()
    assert lab.reopen().problems == []  # said once
    folder.rename("unplugged", folder, "out")
    store = lab.reopen()
    assert store.copy(copy_id).state is CopyState.COMPLETE
    assert store.bits(copy_id).all()


def test_a_changed_file_is_taken_out_and_the_rest_is_served(lab: Any, content: Any) -> None:
    copy_id = lab.fetch(content, Path("/d/out"))
    lab.disk.folder(Path("/d/out")).open("b", writable=True).pwrite(b"!", 0)
    lab.disk.folder(Path("/d/out/in")).remove("d")
    sentences = lab.store.check_copy(copy_id)
    assert [("changed" in s, "missing" in s) for s in sentences] == [(True, False), (False, True)]
    assert lab.store.bits(copy_id).to01() == "10010"
    assert "2 of its files" in lab.store.copy(copy_id).reason
    assert lab.store.check_copy(copy_id) == []
    reader = CopyReader(lab.store, copy_id)
    table = lab.store.piece_table(content.cid, 0)
    buffer = memoryview(bytearray(PIECE))
    assert bytes(buffer[: reader.read(table, 0, buffer)]) == b"alpha"


def test_serving_notices_a_change(lab: Any, content: Any) -> None:
    copy_id = lab.fetch(content, Path("/d/out"))
    reader = CopyReader(lab.store, copy_id)
    table = lab.store.piece_table(content.cid, 0)
    buffer = memoryview(bytearray(PIECE))
    reader.read(table, 1, buffer)
    file, unchanged = reader.file(table.files[1])
    assert unchanged()
    lab.disk.folder(Path("/d/out")).open("b", writable=True).pwrite(b"!", 5)
    assert not unchanged()
    with pytest.raises(FileChanged):
        reader.read(table, 1, buffer)
    assert lab.store.bits(copy_id).to01() == "10011"
    with pytest.raises(FileChanged):
        reader.file(table.files[1])
    lab.disk.folder(Path("/d/out")).remove("a")
    with pytest.raises(FileMissing):
        reader.read(table, 0, buffer)
    assert lab.store.bits(copy_id).to01() == "00011"
    assert file is not None


def test_verifying_finds_what_stat_does_not_show(lab: Any, content: Any) -> None:
    copy_id = lab.fetch(content, Path("/d/out"))
    file = lab.disk.folder(Path("/d/out")).open("b", writable=True)
    file._node.data[PIECE] ^= 1  # a bit rots: no time stamp tells
    assert lab.store.check_copy(copy_id) == []
    *_, last = lab.store.verify(copy_id)
    assert (last.good, last.bad_files) == (len(content.pieces) - 1, ("b",))
    assert lab.store.bits(copy_id).to01() == "11011"
    assert lab.store.copy(copy_id).state is CopyState.DEGRADED
    file._node.data[PIECE] ^= 1
    *_, last = lab.store.verify(copy_id)
    assert last.bad_files == ()
    assert lab.store.bits(copy_id).all()
    assert lab.store.copy(copy_id).state is CopyState.COMPLETE


def test_verifying_takes_back_a_file_that_was_only_touched(lab: Any, content: Any) -> None:
    copy_id = lab.fetch(content, Path("/d/out"))
    lab.disk.folder(Path("/d/out")).open("a", writable=True).pwrite(b"alpha", 0)
    assert lab.store.check_copy(copy_id)
    assert not lab.store.bits(copy_id).all()
    *_, last = lab.store.verify(copy_id)
    assert last.good == last.pieces
    assert lab.store.copy(copy_id).state is CopyState.COMPLETE
    assert lab.store.bits(copy_id).all()


def test_verifying_a_copy_with_missing_and_longer_files(lab: Any, content: Any) -> None:
    copy_id = lab.fetch(content, Path("/d/out"))
    folder = lab.disk.folder(Path("/d/out"))
    folder.remove("a")
    folder.open("b", writable=True).pwrite(b"more", PIECE + 1)
    *_, last = lab.store.verify(copy_id)
    assert set(last.bad_files) == {"a", "b"}
    assert lab.store.copy(copy_id).state is CopyState.DEGRADED
    assert lab.store.bits(copy_id).to01() == "00011"


def test_verifying_reports_as_it_goes(lab: Any, make_content: Any) -> None:
    content = make_content({f"{i:03}": b"%d" % i for i in range(50)})
    copy_id = lab.fetch(content, Path("/d/out"))
    steps = list(lab.store.verify(copy_id))
    assert [step.done for step in steps] == [16, 32, 48, 50]
    assert [step.over for step in steps] == [False, False, False, True]


def test_a_file_that_was_away_while_verifying_counts_when_it_is_back(
    lab: Any, content: Any
) -> None:
    copy_id = lab.fetch(content, Path("/d/out"))
    folder = lab.disk.folder(Path("/d/out"))
    folder.rename("b", folder, "away")
    *_, last = lab.store.verify(copy_id)
    assert last.bad_files == ("b",)
    assert lab.store.bits(copy_id).to01() == "10011"
    folder.rename("away", folder, "b")
    assert lab.store.check_copy(copy_id) == []
    assert lab.store.bits(copy_id).all()
    assert lab.store.copy(copy_id).state is CopyState.COMPLETE


def overwrite_pages_with(path: Path, text: bytes) -> None:
    """Destroy the pages of a database file that hold a text."""
    data = path.read_bytes()
    pages = [data[at : at + 4096] for at in range(0, len(data), 4096)]
    assert any(text in page for page in pages)
    path.write_bytes(b"".join(b"\xff" * 4096 if text in page else page for page in pages))


@pytest.mark.parametrize("where", ["used at start", "used later"])
def test_damage_that_is_met_late_is_mended(
    real_lab: Any, tmp_path: Path, content: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr("shoal.storage.database.QUICK_CHECK_BYTES", 0)  # as if it were large
    real_lab.fetch(content, tmp_path / "out")
    for number in range(200):
        real_lab.store.ensure_content(Cid.of(RAW, b"%d" % number), "n" * 100)
        real_lab.store.peers.add_totals([(b"%d" % number + b"t" * 100, 1, 1)], 1.0)
    real_lab.store.close()
    path = real_lab.home / "shoal.db"
    overwrite_pages_with(path, (b"n" if where == "used at start" else b"t") * 100)
    store = open_again(real_lab)
    if where == "used later":
        assert store.problems == []
        with pytest.raises(Damaged):
            store.peers.totals()
        store.close()
        store = open_again(real_lab)
    assert any("moved to" in problem for problem in store.problems)
    assert [copy.recheck for copy in store.copies()] == [True]
    assert len(store.contents()) == 1
    store.close()
    assert open_again(real_lab).problems == []
