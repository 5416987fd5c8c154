"""What `rm` deletes, and what it never does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shoal.storage.errors import Damaged
from shoal.wire.errors import Misuse

TREE = {"a": b"alpha", "in": {"b": b"beta"}, "void": {}}


@pytest.fixture
def content(make_content: Any) -> Any:
    link = make_content.Link
    return make_content({**TREE, "l": link("a")})


def test_forgetting_keeps_finished_data(lab: Any, content: Any, read_tree: Any) -> None:
    copy_id = lab.fetch(content, Path("/d/out"))
    before = read_tree(lab.disk, Path("/d/out"))
    assert lab.store.remove_copy(copy_id).deleted == ()
    assert read_tree(lab.disk, Path("/d/out")) == before
    assert lab.store.copies() == []
    assert lab.store.contents() == []
    assert lab.store.node(content.cid) is None


def test_unfinished_data_goes(lab: Any, content: Any) -> None:
    writer = lab.begin(content, Path("/d/out"))
    lab.write(writer, content, [0])
    copy = lab.store.copies()[0]
    assert lab.store.remove_copy(copy.id).deleted == (copy.place,)
    assert lab.disk.folder(Path("/d")).names() == []


def test_a_foreign_working_path_stays(lab: Any, content: Any, read_tree: Any) -> None:
    copy = lab.store.begin_fetch(content.cid, Path("/d/out"), 0.0)
    lab.put(copy.place, {"foreign": b"1"})
    assert lab.store.remove_copy(copy.id).kept == (copy.place,)
    assert read_tree(lab.disk, copy.place) == {"foreign": b"1"}


def test_data_is_deleted_on_request(lab: Any, content: Any) -> None:
    copy_id = lab.fetch(content, Path("/d/out"))
    assert lab.store.remove_copy(copy_id, delete_data=True).deleted == (Path("/d/out"),)
    assert lab.disk.folder(Path("/d")).names() == []


def test_shared_data_is_deleted_on_request_too(lab: Any, make_content: Any) -> None:
    content = make_content(TREE)
    lab.put(Path("/d/mine"), TREE)
    copy_id = lab.share(content, Path("/d/mine"))
    lab.store.remove_copy(copy_id, delete_data=True)
    assert lab.disk.folder(Path("/d")).names() == []


def test_what_was_changed_or_added_is_not_ours(lab: Any, content: Any, read_tree: Any) -> None:
    copy_id = lab.fetch(content, Path("/d/out"))
    folder = lab.disk.folder(Path("/d/out"))
    folder.open("a", writable=True).pwrite(b"EDITED", 0)
    folder.remove("l")
    folder.make_link("l", "elsewhere")
    folder.folder("in").create("mine").pwrite(b"1", 0)
    removed = lab.store.remove_copy(copy_id, delete_data=True)
    assert removed.kept == (Path("/d/out"),)
    kept = read_tree(lab.disk, Path("/d/out"))
    assert kept == {"a": b"EDITED", "in": {"mine": b"1"}, "l": type(kept["l"])("elsewhere")}


def test_the_last_copy_takes_its_content_along(lab: Any, content: Any) -> None:
    first = lab.fetch(content, Path("/d/one"))
    second = lab.fetch(content, Path("/d/two"))
    with pytest.raises(Misuse):
        lab.store.forget(content.cid)
    lab.store.remove_copy(first)
    assert lab.store.content(content.cid) is not None
    lab.store.remove_copy(second)
    assert lab.store.content(content.cid) is None
    with pytest.raises(KeyError):
        lab.store.remove_copy(second)


def test_a_link_in_the_way_of_deleting_is_not_followed(
    real_lab: Any, tmp_path: Path, content: Any
) -> None:
    copy_id = real_lab.fetch(content, tmp_path / "out")
    other = tmp_path / "other"
    (tmp_path / "out" / "in").rename(other)
    (tmp_path / "out" / "in").symlink_to(other)
    removed = real_lab.store.remove_copy(copy_id, delete_data=True)
    assert removed.kept == (tmp_path / "out",)
    assert (other / "b").read_bytes() == b"beta"
    assert (tmp_path / "out" / "in").is_symlink()


def test_pausing_and_resuming(lab: Any, content: Any) -> None:
    writer = lab.begin(content, Path("/d/out"))
    copy = lab.store.copies()[0]
    lab.store.pause(copy.id)
    assert lab.reopen().copy(copy.id).state == "paused"
    lab.store.resume(copy.id)
    assert lab.store.copy(copy.id).state == "fetching"
    finished = lab.fetch(content, Path("/d/two"))
    with pytest.raises(Misuse):
        lab.store.pause(finished)
    assert writer is not None


def test_a_removal_while_the_same_files_are_imported_is_noticed(
    lab: Any, make_content: Any
) -> None:
    inner = {"film": b"a" * ((1 << 20) + 1)}
    old, new = make_content({"in": inner, "x": b"1"}), make_content({"in": inner, "y": b"2"})
    lab.put(Path("/d/new"), {"in": inner, "y": b"2"})
    copy_id = lab.fetch(old, Path("/d/old"))
    shared = set(old.nodes) & set(new.nodes)
    lab.store.add_nodes((cid, new.nodes[cid]) for cid in shared)
    lab.store.remove_copy(copy_id)
    store = lab.store
    store.add_nodes((cid, block) for cid, block in new.nodes.items() if cid not in shared)
    store.ensure_content(new.cid)
    store.add_entries(new.cid, new.entries)
    store.index_complete(new.cid, new.size, len(new.pieces))
    with pytest.raises(Damaged):
        store.add_shared_copy(new.cid, Path("/d/new"), [], 1.0)
    lab.share(new, Path("/d/new"))
