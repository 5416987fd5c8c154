"""A fetch on disk: where bytes go, what is refused, how it ends."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest

from shoal.simulations.disk import MemoryDisk
from shoal.storage.disk import RealDisk
from shoal.storage.errors import (
    DestinationExists,
    DiskFault,
    DiskFull,
    FileMissing,
    NameCollision,
)
from shoal.storage.model import CopyState
from shoal.storage.writer import CopyWriter
from shoal.wire.errors import ContentRefused, Misuse

PIECE = 1 << 20
TREE = {
    "a.txt": b"alpha",
    "big": b"B" * PIECE + b"C" * 10,
    "empty": b"",
    "folder": {"deep": {"er": b"x"}, "void": {}},
}


def test_a_fetch_ends_with_the_very_tree(
    real_lab: Any, tmp_path: Path, make_content: Any, read_tree: Any
) -> None:
    content = make_content(TREE)
    copy_id = real_lab.fetch(content, tmp_path / "out")
    assert read_tree(real_lab.disk, tmp_path / "out") == TREE
    copy = real_lab.store.copy(copy_id)
    assert copy.state is CopyState.COMPLETE
    assert real_lab.store.bits(copy_id).all()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".shoal")]
    assert real_lab.reopen().problems == []
    assert real_lab.store.check_copy(copy_id) == []


@pytest.mark.parametrize("data", [b"", b"small", b"x" * (2 * PIECE + 5)])
def test_a_single_file(lab: Any, make_content: Any, read_tree: Any, data: bytes) -> None:
    content = make_content(data)
    lab.fetch(content, Path("/d/file"))
    assert read_tree(lab.disk, Path("/d")) == {"file": data}
    assert lab.reopen().problems == []


def test_unfinished_bytes_lie_beside_the_destination(lab: Any, make_content: Any) -> None:
    content = make_content(TREE)
    lab.begin(content, Path("/d/out"))
    (name,) = lab.disk.folder(Path("/d")).names()
    digest = str(content.cid)
    assert name.startswith(".shoal-")
    assert name.endswith("-1")
    assert len(name) == len(".shoal-") + 16 + len("-1")
    assert digest  # the digest's own base32 differs from the CID's by the prefix's bits
    assert lab.store.copies()[0].place == Path("/d") / name


def test_many_files_are_made_with_few_open(lab: Any, make_content: Any, read_tree: Any) -> None:
    tree = {f"{i:03}": {"f": b"%d" % i} for i in range(150)}
    lab.fetch(make_content(tree), Path("/d/out"))
    assert read_tree(lab.disk, Path("/d/out")) == tree


def test_finish_wants_every_piece(lab: Any, make_content: Any) -> None:
    content = make_content(TREE)
    writer = lab.begin(content, Path("/d/out"))
    lab.write(writer, content, [0, 1])
    with pytest.raises(Misuse):
        writer.finish()


def test_a_destination_that_exists_is_refused(lab: Any, make_content: Any, read_tree: Any) -> None:
    content = make_content(b"data")
    lab.put(Path("/d/out"), b"foreign")
    with pytest.raises(DestinationExists):
        lab.store.begin_fetch(content.cid, Path("/d/out"), 0.0)
    assert lab.store.copies() == []
    lab.store.begin_fetch(content.cid, Path("/d/other"), 0.0)
    with pytest.raises(DestinationExists):  # another content to the same place
        lab.store.begin_fetch(make_content(b"more").cid, Path("/d/other"), 0.0)
    assert read_tree(lab.disk, Path("/d")) == {"out": b"foreign"}


def test_a_destination_that_appears_meanwhile_is_not_replaced(
    lab: Any, make_content: Any, read_tree: Any
) -> None:
    content = make_content(TREE)
    writer = lab.begin(content, Path("/d/out"))
    lab.write(writer, content, [i for i, data in enumerate(content.pieces) if data])
    lab.put(Path("/d/out"), {"foreign": b"1"})
    with pytest.raises(DestinationExists):
        writer.finish()
    assert read_tree(lab.disk, Path("/d/out")) == {"foreign": b"1"}
    folder = lab.disk.folder(Path("/d"))
    folder.rename("out", folder, "away")
    writer.finish()
    assert read_tree(lab.disk, Path("/d/out")) == TREE


def test_the_same_fetch_goes_on(lab: Any, make_content: Any, read_tree: Any) -> None:
    content = make_content(TREE)
    writer = lab.begin(content, Path("/d/out"))
    lab.write(writer, content, [1, 2])
    writer.close()
    lab.reopen()
    again = lab.begin(content, Path("/d/out"))
    assert lab.store.bits(lab.copy_id(content)).to01() == "01100"
    lab.write(again, content, [0, 4])
    again.finish()
    assert read_tree(lab.disk, Path("/d/out")) == TREE
    assert len(lab.store.copies()) == 1


def test_a_complete_copy_is_returned_as_it_is(lab: Any, make_content: Any) -> None:
    content = make_content(TREE)
    copy_id = lab.fetch(content, Path("/d/out"))
    again = lab.store.begin_fetch(content.cid, Path("/d/out"), 5.0)
    assert (again.id, again.state) == (copy_id, CopyState.COMPLETE)
    other = lab.store.begin_fetch(content.cid, Path("/d/second"), 5.0)
    assert (other.state, len(lab.store.copies(content.cid))) == (CopyState.FETCHING, 2)


def test_a_complete_copy_that_is_gone_is_fetched_anew(
    lab: Any, make_content: Any, read_tree: Any
) -> None:
    content = make_content(b"data")
    copy_id = lab.fetch(content, Path("/d/out"))
    lab.disk.folder(Path("/d")).remove("out")
    assert lab.fetch(content, Path("/d/out")) == copy_id
    assert read_tree(lab.disk, Path("/d")) == {"out": b"data"}


def test_an_edited_copy_stands_in_the_way(lab: Any, make_content: Any) -> None:
    content = make_content(b"data")
    lab.fetch(content, Path("/d/out"))
    lab.disk.folder(Path("/d")).open("out", writable=True).pwrite(b"EDIT", 0)
    with pytest.raises(DestinationExists, match="changed"):
        lab.store.begin_fetch(content.cid, Path("/d/out"), 5.0)


@pytest.mark.parametrize("lost", ["all", "file", "end"])
def test_what_was_lost_meanwhile_is_fetched_again(
    lab: Any, make_content: Any, read_tree: Any, lost: str
) -> None:
    content = make_content(TREE)
    writer = lab.begin(content, Path("/d/out"))
    lab.write(writer, content, [0, 1, 2, 4])
    folder = lab.disk.folder(Path("/d"))
    (working,) = folder.names()
    match lost:
        case "all":
            folder.rename(working, folder, "away")
            expected = "00000"
        case "file":
            folder.folder(working).remove("big")
            expected = "10001"
        case _:
            folder.folder(working).open("big", writable=True).truncate(PIECE + 3)
            expected = "11001"
    store = lab.reopen()
    assert bool(store.problems) == (lost == "all")
    again = lab.begin(content, Path("/d/out"))
    held = store.bits(lab.copy_id(content))
    assert held.to01() == expected
    lab.write(again, content, [p for p in held.search(0) if content.pieces[p]])
    again.finish()
    assert read_tree(lab.disk, Path("/d/out")) == TREE


def test_a_file_lost_before_the_end_is_noticed(lab: Any, make_content: Any, read_tree: Any) -> None:
    content = make_content(TREE)
    writer = lab.begin(content, Path("/d/out"))
    lab.write(writer, content, [0, 1, 2, 4])
    working = lab.store.copies()[0].place
    lab.disk.folder(working).remove("a.txt")
    with pytest.raises(FileMissing):
        writer.finish()
    writer = CopyWriter(lab.store, lab.copy_id(content))
    writer.prepare()
    lab.write(writer, content, [0])
    writer.finish()
    assert read_tree(lab.disk, Path("/d/out")) == TREE


def test_there_must_be_room_for_all(open_lab: Any, make_content: Any) -> None:
    disk = MemoryDisk(capacity=3 * PIECE)
    lab = open_lab(disk)
    with pytest.raises(DiskFull, match="free"):
        lab.begin(make_content(b"x" * (4 * PIECE)), Path("/d/out"))
    lab.fetch(make_content(b"x" * (2 * PIECE)), Path("/d/small"))


def test_a_disk_that_fills_up_stops_and_goes_on(
    open_lab: Any, make_content: Any, read_tree: Any
) -> None:
    disk = MemoryDisk()
    lab = open_lab(disk)
    content = make_content(b"x" * PIECE + b"y" * PIECE)
    writer = lab.begin(content, Path("/d/out"))
    lab.write(writer, content, [0])
    disk.capacity = disk.used() + 100
    with pytest.raises(DiskFull):
        writer.write(0, PIECE, content.pieces[1])
    disk.capacity = None
    lab.write(writer, content, [1])
    writer.finish()
    assert read_tree(disk, Path("/d")) == {"out": content.files[0]}


def test_a_failing_disk_is_said(lab: Any, make_content: Any) -> None:
    content = make_content(b"x")
    writer = lab.begin(content, Path("/d/out"))

    def broken(operation: str, name: str) -> None:
        if operation == "pwrite":
            raise OSError(5, "Input/output error")

    lab.disk.on_operation = broken
    with pytest.raises(DiskFault, match="Input/output"):
        writer.write(0, 0, b"x")
    lab.disk.on_operation = None


# What others may have put in our way


def test_a_planted_working_path_is_not_used(lab: Any, make_content: Any, read_tree: Any) -> None:
    content = make_content(TREE)
    copy = lab.store.begin_fetch(content.cid, Path("/d/out"), 0.0)
    lab.learn(content)
    lab.put(copy.place, {"a.txt": b"planted"})
    with pytest.raises(DestinationExists):
        CopyWriter(lab.store, copy.id).prepare()
    assert read_tree(lab.disk, copy.place) == {"a.txt": b"planted"}


def test_a_planted_link_is_not_followed(
    real_lab: Any, tmp_path: Path, make_content: Any, read_tree: Any
) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "er").write_bytes(b"keep")
    (secret / "a").write_bytes(b"keep")
    content = make_content(TREE)
    writer = real_lab.begin(content, tmp_path / "out")
    working = real_lab.store.copies()[0].place
    (working / "a.txt").symlink_to(secret / "a")
    real_lab.write(writer, content, [0])
    assert (working / "a.txt").read_bytes() == b"alpha"
    (working / "folder").mkdir()
    (working / "folder" / "deep").symlink_to(secret)
    with pytest.raises(DiskFault):
        writer.write(*content.place(4), content.pieces[4])
    assert (secret / "er").read_bytes() == (secret / "a").read_bytes() == b"keep"


def test_a_replaced_file_is_not_written_to(lab: Any, make_content: Any) -> None:
    content = make_content({"f": b"a" * PIECE + b"b"})
    writer = lab.begin(content, Path("/d/out"))
    lab.write(writer, content, [0])
    writer.close()
    folder = lab.disk.folder(lab.store.copies()[0].place)
    folder.remove("f")
    folder.create("f").pwrite(b"foreign", 0)
    with pytest.raises(DiskFault, match="replaced"):
        writer.write(1, PIECE, b"b")
    assert folder.stat("f").size == 7


def test_names_that_the_disk_cannot_tell_apart(
    open_lab: Any, make_content: Any, read_tree: Any
) -> None:
    lab = open_lab(MemoryDisk(ignore_case=True))
    content = make_content({"Read": b"1", "read": b"2"})
    writer = lab.begin(content, Path("/d/out"))
    lab.write(writer, content, [0])
    with pytest.raises(NameCollision):
        writer.write(*content.place(1), b"2")
    folders = make_content({"Sub": {"a": b"1"}, "sub": {"b": b"2"}})
    writer = lab.begin(folders, Path("/d/folders"))
    lab.write(writer, folders, [0, 1])
    with pytest.raises(NameCollision):
        writer.finish()
    fine = make_content({"Read": b"1", "me": b"2"})
    lab.fetch(fine, Path("/d/fine"))
    assert read_tree(lab.disk, Path("/d/fine")) == {"Read": b"1", "me": b"2"}


# Links


def test_links_come_last_and_stay_inside(lab: Any, make_content: Any, read_tree: Any) -> None:
    link = make_content.Link
    tree = {
        "a": b"1",
        "sub": {"up": link("../a"), "out": link("../../etc"), "here": link("./x")},
        "abs": link("/etc/passwd"),
        "dots": link("sub/../../x"),
        "good": link("sub"),
    }
    content = make_content(tree)
    writer = lab.begin(content, Path("/d/out"))
    lab.write(writer, content, [0])
    finished = writer.finish("inside")
    assert sorted(finished.skipped_links) == ["abs", "dots", "sub/out"]
    made = read_tree(lab.disk, Path("/d/out"))
    assert made == {
        "a": b"1",
        "good": link("sub"),
        "sub": {"here": link("./x"), "up": link("../a")},
    }


@pytest.mark.parametrize(("links", "skipped"), [("all", 0), ("none", 2)])
def test_links_as_asked(lab: Any, make_content: Any, links: str, skipped: int) -> None:
    link = make_content.Link
    content = make_content({"a": b"1", "in": link("a"), "out": link("/")})
    writer = lab.begin(content, Path("/d/out"))
    lab.write(writer, content, [0])
    assert len(writer.finish(links).skipped_links) == skipped


def test_a_content_that_is_a_link(lab: Any, make_content: Any, read_tree: Any) -> None:
    content = make_content(make_content.Link("/etc/passwd"))
    writer = lab.begin(content, Path("/d/out"))
    with pytest.raises(ContentRefused):
        writer.finish()
    writer.finish("all")
    assert read_tree(lab.disk, Path("/d")) == {"out": make_content.Link("/etc/passwd")}


# Several threads


def test_writing_goes_on_while_a_batch_is_synced(
    open_lab: Any, make_content: Any, tmp_path: Path, read_tree: Any
) -> None:
    tree = {f"{i:02}": bytes((i,)) * (PIECE + i) for i in range(80)}  # more than stay open
    content = make_content(tree)
    lab = open_lab(RealDisk(), tmp_path / "home")
    writer = lab.begin(content, tmp_path / "out")
    pieces = list(range(len(content.pieces)))
    Random(1).shuffle(pieces)

    def write(piece: int) -> int:
        writer.write(*content.place(piece), content.pieces[piece])
        return piece

    with ThreadPoolExecutor(4) as pool:
        batch: list[int] = []
        for piece in pool.map(write, pieces):
            batch.append(piece)
            if len(batch) == 24:
                writer.sync()
                lab.store.set_bits(lab.copy_id(content), batch)
                batch = []
        writer.sync()
        lab.store.set_bits(lab.copy_id(content), batch)
    writer.finish()
    assert read_tree(lab.disk, tmp_path / "out") == tree


def test_what_is_written_during_a_sync_is_synced_by_the_next(
    lab: Any, memory: MemoryDisk, make_content: Any
) -> None:
    content = make_content(b"a" * PIECE + b"b")
    writer = lab.begin(content, Path("/d/out"))
    writer.write(0, 0, content.pieces[0])

    def meanwhile(operation: str, name: str) -> None:
        if operation == "fdatasync":
            memory.on_operation = None
            writer.write(0, PIECE, content.pieces[1])

    memory.on_operation = meanwhile
    writer.sync()
    done: list[str] = []
    memory.on_operation = lambda operation, name: done.append(operation)
    writer.sync()
    memory.on_operation = None
    assert "fdatasync" in done


def test_after_a_failed_sync_pieces_are_written_again(
    lab: Any, memory: MemoryDisk, make_content: Any
) -> None:
    content = make_content(b"a" * PIECE + b"b")
    writer = lab.begin(content, Path("/d/out"))
    writer.write(0, 0, content.pieces[0])

    def broken(operation: str, name: str) -> None:
        if operation == "fdatasync":
            raise OSError(5, "Input/output error")

    memory.on_operation = broken
    with pytest.raises(DiskFault):
        writer.sync()
    memory.on_operation = None
    lab.write(writer, content, [0])
    place = lab.store.copies()[0].place
    memory.crash()
    assert memory.stat(place).size == PIECE


def test_small_files_of_several_folders_are_written_together(
    real_lab: Any, tmp_path: Path, make_content: Any, read_tree: Any
) -> None:
    tree = {f"part {part}": {f"{n}": b"%d" % (n + part) for n in range(9)} for part in range(5)}
    content = make_content({**tree, "top": b"top"})
    writer = real_lab.begin(content, tmp_path / "out")
    pieces = list(range(len(content.pieces)))
    files = [(content.place(one)[0], memoryview(content.pieces[one])) for one in pieces]
    twice = [*files[:20], files[3], *files[20:], files[-1]]
    assert list(writer.write_files(twice)) == list(range(len(twice)))
    assert list(writer.write_files(files[:2])) == [0, 1]
    writer.sync()
    real_lab.store.set_bits(real_lab.copy_id(content), pieces)
    writer.finish()
    assert read_tree(real_lab.disk, tmp_path / "out") == {**tree, "top": b"top"}
    assert real_lab.store.check_copy(real_lab.copy_id(content)) == []


def test_of_small_files_those_before_the_full_one_are_told(
    open_lab: Any, make_content: Any
) -> None:
    content = make_content({name: name.encode() * 600 for name in "abcd"})
    lab = open_lab(MemoryDisk())
    writer = lab.begin(content, Path("/d/out"))
    lab.disk.capacity = lab.disk.used() + 1500
    files = [(content.place(one)[0], memoryview(content.pieces[one])) for one in range(4)]
    told: list[int] = []
    with pytest.raises(DiskFull):
        told.extend(writer.write_files(files))
    assert told == [0, 1]
    lab.disk.capacity = None
    lab.write(writer, content, range(4))
    writer.finish()
