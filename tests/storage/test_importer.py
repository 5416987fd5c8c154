from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoal.storage import importer
from shoal.storage.disk import RealDisk
from shoal.storage.errors import DiskFault, FileChanged, FileMissing
from shoal.storage.filesystem import DiskFile, FileStat, Folder
from shoal.storage.importer import (
    ImportCancelled,
    Imported,
    ImportOptions,
    Unshareable,
    hash_path,
)
from shoal.storage.model import CopyState
from shoal.storage.store import Store
from shoal.wire.blocks import CHUNK
from shoal.wire.ids import BLAKE3, Cid
from shoal.wire.walk import Entry, EntryKind, Walk

NOW = 4e9  # far behind every time stamp of these tests, so that every hash is cached


class Meddler:
    """A real disk whose files count what is read, and change when told to."""

    def __init__(self) -> None:
        self.disk = RealDisk()
        self.read = 0
        self.opened: list[str] = []
        self.after_read: Callable[[str], None] = lambda name: None

    def folder(self, path: Path, create_mode: int | None = None) -> Folder:
        return MeddledFolder(self.disk.folder(path, create_mode), self)  # type: ignore[return-value]

    def stat(self, path: Path) -> FileStat:
        return self.disk.stat(path)


class MeddledFolder:
    def __init__(self, folder: Folder, meddler: Meddler) -> None:
        self._folder = folder
        self._meddler = meddler

    def __getattr__(self, name: str) -> Any:
        return getattr(self._folder, name)

    def folder(self, name: str) -> MeddledFolder:
        return MeddledFolder(self._folder.folder(name), self._meddler)

    def open(self, name: str) -> MeddledFile:
        self._meddler.opened.append(name)
        return MeddledFile(self._folder.open(name), name, self._meddler)


class MeddledFile:
    def __init__(self, file: DiskFile, name: str, meddler: Meddler) -> None:
        self._file = file
        self._name = name
        self._meddler = meddler

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def preadv(self, buffers: list[memoryview], offset: int) -> int:
        count = self._file.preadv(buffers, offset)
        self._meddler.read += count
        self._meddler.after_read(self._name)
        return count


@pytest.fixture
def disk() -> Meddler:
    return Meddler()


@pytest.fixture
def store(tmp_path: Path) -> Any:
    home = tmp_path / "home"
    home.mkdir(0o700)
    store = Store.open(home, RealDisk(), NOW)
    yield store
    store.close()


@pytest.fixture
def share(disk: Meddler, store: Store) -> Callable[..., Imported]:
    def share(path: Path, keep: bool = True, **options: Any) -> Imported:
        wanted = ImportOptions(**options)
        kept = store if keep else None
        return hash_path(path, kept, disk=disk, now=NOW, options=wanted)  # type: ignore[arg-type]

    return share


def walk(store: Store, root: Cid) -> list[Entry]:
    found: list[Entry] = []
    steps = Walk(root)
    while not steps.over:
        for cid in steps.wanted():
            block = store.node(cid)
            assert block is not None
            steps.feed(cid, block)
        found += steps.drain()
    return found


def entries(store: Store, root: Cid) -> list[Entry]:
    return store.entries(root, 0, 1 << 20)


TREE = {
    "a.txt": b"hello world",
    "empty": b"",
    "nothing": {},
    ".hidden": b"seen",
    "big.bin": bytes(3 * CHUNK + 17),
    "sub": {"deep": {"x": b"x" * CHUNK, "y": b"y" * (CHUNK + 1)}, "again.txt": b"hello world"},
}


def test_what_is_registered_is_what_a_walk_finds(
    tmp_path: Path, share: Callable[..., Imported], store: Store, write_tree: Any
) -> None:
    path = tmp_path / "data"
    write_tree(path, TREE)
    (path / "link").symlink_to("sub/deep")
    done = share(path)
    assert entries(store, done.cid) == walk(store, done.cid)
    assert (done.name, done.path, done.files) == ("data", path, 7)
    assert done.size == sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
    assert done.entries == len(list(path.rglob("*"))) + 1
    content = store.content(done.cid)
    assert content is not None
    assert content.index_complete
    assert (content.name, content.size, content.pieces) == ("data", done.size, done.pieces)
    assert done.copy is not None
    assert done.copy.state is CopyState.SHARED
    assert done.copy.path == path
    assert store.bits(done.copy.id).all()
    assert store.has_nodes(done.cid)
    assert list(store.verify(done.copy.id))[-1].good == done.pieces


tree_names = st.text("abé .-", min_size=1, max_size=4).filter(lambda n: n not in (".", ".."))
tree_files = st.sampled_from([b"", b"x", b"hello world", b"z" * CHUNK, b"w" * (2 * CHUNK + 1)])
trees = st.dictionaries(
    tree_names,
    st.recursive(tree_files, lambda t: st.dictionaries(tree_names, t, max_size=4), max_leaves=8),
    max_size=5,
)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(trees, st.integers(1, 3))
def test_any_tree_is_registered_as_it_is_walked(
    tmp_path_factory: pytest.TempPathFactory,
    store: Store,
    write_tree: Any,
    make_content: Any,
    tree: dict[str, Any],
    workers: int,
) -> None:
    path = tmp_path_factory.mktemp("trees") / "tree"
    write_tree(path, tree)
    options = ImportOptions(workers=workers)
    done = hash_path(path, store, disk=RealDisk(), now=NOW, options=options)
    content = make_content(tree)
    assert done.cid == content.cid
    assert entries(store, done.cid) == content.entries == walk(store, done.cid)
    assert done.pieces == len(content.pieces)


def test_a_folder_of_many_files_becomes_a_trie(
    tmp_path: Path, share: Callable[..., Imported], store: Store
) -> None:
    path = tmp_path / "many"
    path.mkdir()
    for i in range(3000):
        (path / f"{'long name to reach the threshold ' * 2}{i:05}").write_bytes(b"%d" % i)
    done = share(path)
    found = entries(store, done.cid)
    assert found == walk(store, done.cid)
    assert [entry.path for entry in found] != sorted(entry.path for entry in found)


def test_a_single_file(tmp_path: Path, share: Callable[..., Imported], store: Store) -> None:
    path = tmp_path / "hello.txt"
    path.write_bytes(b"hello world")
    done = share(path)
    assert str(done.cid) == "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
    assert (done.name, done.size, done.pieces, done.entries) == ("hello.txt", 11, 1, 1)
    entry = Entry(0, "", EntryKind.FILE, done.cid, 11, 0, 1)
    assert entries(store, done.cid) == [entry]


def test_an_empty_file_and_an_empty_folder(tmp_path: Path, share: Callable[..., Imported]) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    file, folder = share(tmp_path / "empty"), share(tmp_path / "folder")
    assert str(file.cid) == "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
    assert str(folder.cid) == "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"
    assert (file.size, file.pieces, folder.size, folder.pieces) == (0, 1, 0, 0)


def test_hash_only_needs_no_home_and_gives_the_same_cid(
    tmp_path: Path, share: Callable[..., Imported], store: Store, write_tree: Any
) -> None:
    write_tree(tmp_path / "data", TREE)
    alone = share(tmp_path / "data", keep=False)
    assert alone.copy is None
    assert store.contents() == []
    assert share(tmp_path / "data").cid == alone.cid


def test_blake3_hashes_leaves_and_nodes(
    tmp_path: Path, share: Callable[..., Imported], store: Store, write_tree: Any
) -> None:
    write_tree(tmp_path / "data", TREE)
    done = share(tmp_path / "data", hash_code=BLAKE3)
    found = walk(store, done.cid)
    assert entries(store, done.cid) == found
    assert {entry.cid.hash_code for entry in found} == {BLAKE3}
    assert done.copy is not None
    assert list(store.verify(done.copy.id))[-1].good == done.pieces
    assert share(tmp_path / "data").cid != done.cid


# The hash cache


def test_sharing_again_reads_nothing(
    tmp_path: Path, share: Callable[..., Imported], disk: Meddler, write_tree: Any
) -> None:
    write_tree(tmp_path / "data", TREE)
    first = share(tmp_path / "data")
    assert disk.read == first.size
    disk.opened.clear()
    assert share(tmp_path / "data").copy == first.copy
    os.rename(tmp_path / "data" / "sub", tmp_path / "data" / "moved")
    assert share(tmp_path / "data").cid != first.cid
    assert disk.opened == []
    # Another hash function is another hash.
    share(tmp_path / "data", hash_code=BLAKE3)
    assert disk.read == 2 * first.size


def test_only_what_changed_is_read_again(
    tmp_path: Path, share: Callable[..., Imported], disk: Meddler, write_tree: Any
) -> None:
    write_tree(tmp_path / "data", TREE)
    first = share(tmp_path / "data")
    disk.opened.clear()
    (tmp_path / "data" / "a.txt").write_bytes(b"HELLO WORLD")
    assert share(tmp_path / "data").cid != first.cid
    assert disk.opened == ["a.txt"]


def test_a_file_changed_a_moment_ago_is_not_cached(
    tmp_path: Path, disk: Meddler, store: Store
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    now = path.stat().st_ctime + 0.001
    for _ in range(2):
        hash_path(path, store, disk=disk, now=now)  # type: ignore[arg-type]
    assert disk.opened == ["file", "file"]


# What is taken, and what is refused


def test_hidden_entries_are_taken_unless_told_otherwise(
    tmp_path: Path, share: Callable[..., Imported], store: Store, write_tree: Any
) -> None:
    write_tree(tmp_path / "data", {".git": {"config": b"1"}, "a": {".b": b"2", "c": b"3"}})
    every = {entry.path for entry in entries(store, share(tmp_path / "data").cid)}
    assert every == {"", ".git", ".git/config", "a", "a/.b", "a/c"}
    seen = {entry.path for entry in entries(store, share(tmp_path / "data", hidden=False).cid)}
    assert seen == {"", "a", "a/c"}


def test_a_hidden_root_was_asked_for(tmp_path: Path, share: Callable[..., Imported]) -> None:
    (tmp_path / ".file").write_bytes(b"x")
    assert share(tmp_path / ".file", hidden=False).size == 1


def test_links_are_data(tmp_path: Path, share: Callable[..., Imported], store: Store) -> None:
    path = tmp_path / "data"
    path.mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    targets = {"out": "../secret", "abs": "/etc/passwd", "none": "missing", "loop": "."}
    for name, target in targets.items():
        (path / name).symlink_to(target)
    done = share(path)
    links = {e.path: e.target for e in entries(store, done.cid) if e.kind is EntryKind.SYMLINK}
    assert links == targets
    assert (done.size, done.pieces, done.files) == (0, 0, 0)


def test_a_link_as_root_is_refused_with_its_target(
    tmp_path: Path, share: Callable[..., Imported]
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(Unshareable, match=r"share what it points to: .*real"):
        share(tmp_path / "link")
    assert share(tmp_path / "link" / ".." / "real").name == "real"


def test_special_files_are_refused_by_name_and_never_opened(
    tmp_path: Path, share: Callable[..., Imported], disk: Meddler, store: Store
) -> None:
    path = tmp_path / "data"
    path.mkdir()
    (path / "a").write_bytes(b"a")
    os.mkfifo(path / "pipe")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path / "sock"))
        with pytest.raises(Unshareable, match="data/pipe is a FIFO") as refused:
            share(path)
        assert refused.value.exit_code == 5
        assert store.contents() == []
        done = share(path, skip_special=True)
    assert done.skipped == ("pipe", "sock")
    assert disk.opened == ["a"]
    with pytest.raises(Unshareable, match="FIFO"):
        share(path / "pipe", skip_special=True)


@pytest.mark.parametrize(
    ("name", "why"), [(b"\xff", "not UTF-8"), (b"a\\b", "backslash")], ids=["utf8", "backslash"]
)
def test_names_that_nobody_would_take_are_refused(
    tmp_path: Path, share: Callable[..., Imported], name: bytes, why: str
) -> None:
    (tmp_path / "data" / "inner").mkdir(parents=True)
    (tmp_path / "data" / "inner" / os.fsdecode(name)).write_bytes(b"")
    with pytest.raises(Unshareable, match=why) as refused:
        share(tmp_path / "data")
    assert "data/inner" in str(refused.value)


def test_names_are_kept_as_they_are(
    tmp_path: Path, share: Callable[..., Imported], store: Store
) -> None:
    """One name composed, one decomposed: no normalisation, so they stay two."""
    (tmp_path / "data").mkdir()
    names = {"\u00e9", "e\u0301"}
    for name in names:
        (tmp_path / "data" / name).write_bytes(b"")
    found = entries(store, share(tmp_path / "data").cid)
    assert {entry.path for entry in found[1:]} == names


def test_too_deep_a_tree_is_refused(tmp_path: Path, share: Callable[..., Imported]) -> None:
    (tmp_path / "data").joinpath(*["d"] * 33).mkdir(parents=True)
    with pytest.raises(Unshareable, match="deeper than 32"):
        share(tmp_path / "data")


@pytest.mark.parametrize("name", ["missing", "missing/below"])
def test_a_missing_path(tmp_path: Path, share: Callable[..., Imported], name: str) -> None:
    with pytest.raises(FileMissing, match="missing"):
        share(tmp_path / name)


class Forbidden(MeddledFolder):
    def open(self, name: str) -> MeddledFile:
        if name == "no":
            raise PermissionError(errno.EACCES, "Permission denied")
        return super().open(name)

    def folder(self, name: str) -> MeddledFolder:
        return Forbidden(self._folder.folder(name), self._meddler)


def test_an_unreadable_file_ends_it_and_nothing_is_shared(
    tmp_path: Path,
    disk: Meddler,
    store: Store,
    write_tree: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_tree(tmp_path / "data", {"sub": {"yes": b"1", "no": b"2"}})
    monkeypatch.setattr(disk, "folder", lambda path: Forbidden(disk.disk.folder(path), disk))
    with pytest.raises(DiskFault, match=r"reading .*data/sub/no: Permission denied") as refused:
        hash_path(tmp_path / "data", store, disk=disk, now=NOW)  # type: ignore[arg-type]
    assert refused.value.exit_code == 5
    assert store.contents() == []
    assert store.copies() == []


def test_the_home_is_never_shared_along_with_what_lies_around_it(
    tmp_path: Path, share: Callable[..., Imported], store: Store
) -> None:
    (tmp_path / "other").mkdir()
    home = tmp_path / "home"
    for path in (tmp_path, home):
        with pytest.raises(Unshareable, match="home folder of shoal"):
            share(path, private=home)
    assert store.contents() == []
    assert share(tmp_path / "other", private=home).files == 0
    assert share(tmp_path / "other", private=tmp_path / "missing").files == 0


# Files that change


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("size", [100, 5 * CHUNK])
@pytest.mark.parametrize("change", ["write", "grow", "shrink", "outgrow"])
def test_a_file_that_changes_once_is_hashed_again(
    tmp_path: Path,
    share: Callable[..., Imported],
    store: Store,
    disk: Meddler,
    size: int,
    change: str,
    workers: int,
) -> None:
    path = tmp_path / "data"
    path.mkdir()
    (path / "f").write_bytes(b"1" * size)
    changes = iter([change])

    def meddle(name: str) -> None:
        kind = next(changes, None)
        match kind:
            case "write":
                (path / "f").write_bytes(b"2" * size)
            case "grow":
                (path / "f").write_bytes(b"2" * (size + 1))
            case "shrink":
                (path / "f").write_bytes(b"2" * (size // 2))
            case "outgrow":
                (path / "f").write_bytes(b"2" * (size + 2 * CHUNK))
        if kind is not None:  # the clock of the file system may not have ticked
            os.utime(path / "f", ns=(0, 1))

    disk.after_read = meddle
    done = share(path, workers=workers)
    disk.after_read = lambda name: None
    assert done.size == (path / "f").stat().st_size
    assert entries(store, done.cid) == walk(store, done.cid)
    assert done.cid == share(path, keep=False).cid


@pytest.mark.parametrize("size", [100, 5 * CHUNK])
def test_a_file_that_keeps_changing_is_refused(
    tmp_path: Path, share: Callable[..., Imported], store: Store, disk: Meddler, size: int
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"1" * size)
    ticks = iter(range(10**6))
    disk.after_read = lambda name: os.utime(path, ns=(0, next(ticks)))
    with pytest.raises(FileChanged, match="f changes while it is read") as refused:
        share(path)
    assert refused.value.exit_code == 5
    assert store.contents() == []


def test_a_file_that_vanishes_is_missing(
    tmp_path: Path, share: Callable[..., Imported], disk: Meddler, write_tree: Any
) -> None:
    write_tree(tmp_path / "data", {"a": b"1", "b": b"2"})
    disk.after_read = lambda name: (tmp_path / "data" / "b").unlink(missing_ok=True)
    with pytest.raises(FileMissing, match="data/b"):
        share(tmp_path / "data", workers=1)


def test_a_link_put_in_a_folders_place_is_not_followed(
    tmp_path: Path, share: Callable[..., Imported], disk: Meddler, write_tree: Any
) -> None:
    write_tree(tmp_path / "elsewhere", {"f": b"secret"})
    write_tree(tmp_path / "data", {"a": b"1" * (CHUNK + 1), "b": {"f": b"2"}})

    def swap(name: str) -> None:
        if (tmp_path / "data" / "b").is_symlink():
            return
        os.rename(tmp_path / "data" / "b", tmp_path / "gone")
        (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere")

    disk.after_read = swap
    with pytest.raises(DiskFault):
        share(tmp_path / "data", workers=1)
    assert "secret" not in disk.opened


# Progress, cancelling, memory


@pytest.mark.parametrize("workers", [1, 3])
def test_progress_rises_to_all(tmp_path: Path, store: Store, write_tree: Any, workers: int) -> None:
    write_tree(tmp_path / "data", TREE)
    told: list[tuple[int, int, int]] = []

    def tell(*progress: int) -> None:
        told.append(progress)  # type: ignore[arg-type]

    options = ImportOptions(workers=workers)
    for _ in range(2):  # the second time from the cache
        told.clear()
        done = hash_path(
            tmp_path / "data", store, disk=RealDisk(), now=NOW, options=options, progress=tell
        )
        assert told[0] == (0, done.size, 0)
        assert told[-1] == (done.size, done.size, done.files)
        assert told == sorted(told)


def test_cancelling_registers_nothing_but_keeps_what_was_hashed(
    tmp_path: Path, store: Store, disk: Meddler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "HASHED_BATCH", 1)
    monkeypatch.setattr(importer, "BATCH_FILES", 1)
    path = tmp_path / "data"
    path.mkdir()
    for name in "abcd":
        (path / name).write_bytes(name.encode())
    options = ImportOptions(workers=1)

    def run(cancelled: Callable[[], bool]) -> Imported:
        return hash_path(
            path,
            store,
            disk=disk,  # type: ignore[arg-type]
            now=NOW,
            options=options,
            cancelled=cancelled,
        )

    with pytest.raises(ImportCancelled):
        run(lambda: len(disk.opened) >= 2)
    assert store.contents() == []
    assert disk.opened == ["a", "b"]
    run(lambda: False)
    assert disk.opened == ["a", "b", "c", "d"]


def test_a_crowd_of_workers_reads_ahead_only_so_far(
    tmp_path: Path, disk: Meddler, store: Store
) -> None:
    """Jobs wait for their results to be taken, so a file of terabytes needs no more memory."""
    path = tmp_path / "big"
    with open(path, "wb") as file:
        file.truncate(400 * CHUNK)
    seen: list[int] = []

    def tell(done: int, total: int, files: int) -> None:
        seen.append(disk.read - done)

    options = ImportOptions(workers=2)
    done = hash_path(
        path, store, disk=disk, now=NOW, options=options, progress=tell  # type: ignore[arg-type]
    )  # fmt: skip
    assert done.size == disk.read == 400 * CHUNK
    assert max(seen) <= (3 * 2 + 1 + 1) * 16 * CHUNK


def test_modes_and_times_do_not_change_the_cid(
    tmp_path: Path, share: Callable[..., Imported], write_tree: Any
) -> None:
    write_tree(tmp_path / "data", {"a": b"1"})
    first = share(tmp_path / "data").cid
    os.chmod(tmp_path / "data" / "a", stat.S_IRUSR)
    os.utime(tmp_path / "data" / "a", (1, 1))
    assert share(tmp_path / "data").cid == first
