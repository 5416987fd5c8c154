"""The machine's disk and the one in memory keep the same contract."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoal.simulations.disk import MemoryDisk
from shoal.storage import disk as disk_module
from shoal.storage.disk import Disk, FileKind, Folder, RealDisk


@pytest.fixture(params=["real", "memory", "real without renameat2"])
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    if request.param == "memory":
        memory = MemoryDisk()
        yield memory
        memory.close()
        return
    if request.param != "real":
        monkeypatch.setattr(disk_module, "_rename_noreplace", lambda *_: False)
    yield RealDisk()


@pytest.fixture
def folder(disk: Disk, tmp_path: Path) -> Folder:
    return disk.folder(tmp_path, create_mode=0o700)


def content_of(folder: Folder, name: str) -> bytes:
    file = folder.open(name)
    data = bytearray(file.fstat().size)
    assert file.preadv([data], 0) == len(data)
    return bytes(data)


def test_bytes_come_back_and_holes_are_zeros(folder: Folder) -> None:
    file = folder.create("a")
    file.pwrite(b"tail", 10)
    file.pwrite(memoryview(b"head"), 0)
    file.fdatasync()
    assert content_of(folder, "a") == b"head" + bytes(6) + b"tail"
    first, second = bytearray(6), bytearray(20)
    assert file.preadv([first, memoryview(second)], 2) == 12
    assert bytes(first) == b"ad" + bytes(4)
    assert bytes(second[:6]) == bytes(2) + b"tail"
    assert file.preadv([bytearray(4)], 14) == 0


def test_reading_without_waiting_gives_a_prefix(folder: Folder) -> None:
    file = folder.create("a")
    file.pwrite(b"x" * 5000, 0)
    buffer = bytearray(5000)
    count = file.preadv([buffer], 0, nowait=True)
    assert bytes(buffer[:count]) == b"x" * count


def test_many_buffers_are_filled_by_one_call(folder: Folder) -> None:
    file = folder.create("a")
    data = os.urandom(3 * 2500)
    file.pwrite(data, 0)
    buffers = [bytearray(3) for _ in range(2500)]  # more than one preadv takes
    assert file.preadv(buffers, 0) == len(data)
    assert b"".join(buffers) == data


@pytest.mark.parametrize("size", [3, 1 << 20])  # the large ones go past the page cache
def test_several_parts_are_written_behind_one_another(folder: Folder, size: int) -> None:
    file = folder.create("a")
    data = os.urandom(4 * size)
    with mmap.mmap(-1, 4 * size) as aligned:
        aligned[:] = data
        with memoryview(aligned) as view:
            parts = [view[at : at + size] for at in range(0, 4 * size, size)]
            file.pwritev(parts[:3], size)
            file.pwritev(parts[3:], 0)
            del parts
    assert content_of(folder, "a") == data[3 * size :] + data[: 3 * size]


def test_truncating_cuts_and_extends(folder: Folder) -> None:
    file = folder.create("a")
    file.pwrite(b"12345", 0)
    file.truncate(2)
    file.truncate(4)
    assert content_of(folder, "a") == b"12\0\0"


def test_creating_never_opens_what_exists(folder: Folder) -> None:
    folder.create("a").pwrite(b"mine", 0)
    folder.make_link("link", "a")
    folder.make_folder("inner")
    for name in ("a", "link", "inner"):
        with pytest.raises(FileExistsError):
            folder.create(name)
        with pytest.raises(FileExistsError):
            folder.create_filled(name, b"theirs")
        with pytest.raises(FileExistsError):
            folder.make_folder(name)
        with pytest.raises(FileExistsError):
            folder.make_link(name, "x")
    assert content_of(folder, "a") == b"mine"


def test_a_small_file_is_made_and_read_by_one_call_each(folder: Folder) -> None:
    made = folder.create_filled("a", memoryview(b"0123456789"))
    assert made == folder.stat("a")
    assert (made.kind, made.size) == (FileKind.FILE, 10)
    assert folder.read_part("a", 2, 3) == (b"234", made)
    assert folder.read_part("a", 8, 9) == (b"89", made)
    assert folder.read_part("a", 10, 1) == (b"", made)


def test_links_are_never_followed(folder: Folder) -> None:
    folder.create("secret").pwrite(b"secret", 0)
    folder.make_folder("inner").create("b")
    folder.make_link("to_file", "secret")
    folder.make_link("to_folder", "inner")
    with pytest.raises(OSError, match=r".") as refused:
        folder.open("to_file")
    assert refused.value.errno == errno.ELOOP
    with pytest.raises(OSError, match=r".") as refused:
        folder.folder("to_folder")
    assert refused.value.errno in (errno.ELOOP, errno.ENOTDIR)
    for name in ("to_file", "to_folder"):
        with pytest.raises(OSError, match=r"."):
            folder.read_part(name, 0, 6)
    assert folder.stat("to_file").kind is FileKind.LINK
    assert folder.read_link("to_folder") == "inner"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "a\0b"])
def test_a_name_is_one_component(folder: Folder, name: str) -> None:
    for act in (folder.stat, folder.open, folder.create, folder.folder, folder.make_folder):
        with pytest.raises(OSError, match=r".") as refused:
            act(name)
        assert refused.value.errno == errno.EINVAL
    with pytest.raises(OSError, match=r"."):
        folder.create_filled(name, b"1")
    with pytest.raises(OSError, match=r"."):
        folder.read_part(name, 0, 1)


def test_only_regular_files_are_opened(folder: Folder) -> None:
    folder.make_folder("inner")
    with pytest.raises(OSError, match=r"."):
        folder.open("inner")
    with pytest.raises(OSError, match=r"."):
        folder.read_part("inner", 0, 1)
    with pytest.raises(FileNotFoundError):
        folder.open("nothing")
    with pytest.raises(FileNotFoundError):
        folder.read_part("nothing", 0, 1)


def test_a_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    folder = RealDisk().folder(tmp_path)
    assert folder.stat("pipe").kind is FileKind.OTHER
    with pytest.raises(OSError, match="not a regular file"):
        folder.open("pipe")


def test_renaming_never_replaces(folder: Folder) -> None:
    folder.create("a").pwrite(b"a", 0)
    folder.create("b").pwrite(b"b", 0)
    folder.make_folder("full").create("x")
    folder.make_folder("other").create("y")
    for name, new in (("a", "b"), ("full", "other"), ("full", "b")):
        with pytest.raises(OSError, match=r"."):
            folder.rename(name, folder, new)
    assert content_of(folder, "a") == b"a"
    assert content_of(folder, "b") == b"b"
    assert folder.folder("full").names() == ["x"]
    assert folder.folder("other").names() == ["y"]


def test_renaming_keeps_the_file(folder: Folder) -> None:
    file = folder.create("a")
    file.pwrite(b"a", 0)
    before = file.fstat()
    inner = folder.make_folder("inner")
    folder.rename("a", inner, "b")
    assert "a" not in folder.names()
    assert inner.stat("b").same_file(before)
    folder.rename("inner", folder, "moved")
    assert folder.folder("moved").names() == ["b"]
    folder.create("c")
    folder.folder("moved").rename("b", folder, "c", replace=True)
    assert content_of(folder, "c") == b"a"


def test_a_change_shows_in_the_stat(folder: Folder) -> None:
    file = folder.create("a")
    file.pwrite(b"1", 0)
    before = file.fstat()
    assert folder.stat("a") == before
    file.pwrite(b"22", 0)
    assert not file.fstat().same_file(before)


def test_removing(folder: Folder) -> None:
    folder.create("a")
    inner = folder.make_folder("inner")
    inner.create("b")
    folder.make_link("link", "inner")
    with pytest.raises(OSError, match=r"."):
        folder.remove_folder("inner")
    with pytest.raises(OSError, match=r"."):
        folder.remove("inner")
    inner.remove("b")
    folder.remove_folder("inner")
    folder.remove("link")
    folder.remove("a")
    assert folder.names() == []


def test_a_lock_has_one_holder(folder: Folder) -> None:
    first = folder.create("lock")
    second = folder.open("lock", writable=True)
    assert first.lock()
    assert not second.lock()
    first.close()
    assert second.lock()


def test_syncing_and_free_space(folder: Folder) -> None:
    folder.create("a").pwrite(b"1", 0)
    folder.sync()
    folder.sync_all()
    assert folder.free_space() > 0


def test_a_path_of_the_user_may_pass_links(disk: Disk, tmp_path: Path) -> None:
    folder = disk.folder(tmp_path, create_mode=0o700)
    folder.make_folder("real").create("x")
    folder.make_link("alias", "real")
    assert disk.folder(tmp_path / "alias").names() == ["x"]
    assert disk.stat(tmp_path / "alias").kind is FileKind.LINK
    assert disk.folder(tmp_path / "real" / ".." / "real").names() == ["x"]
    with pytest.raises(FileNotFoundError):
        disk.folder(tmp_path / "nothing")
    assert disk.folder(tmp_path / "new" / "newer", create_mode=0o755).names() == []


def test_a_dropped_file_stays_open_for_whoever_holds_it(tmp_path: Path) -> None:
    folder = RealDisk().folder(tmp_path)
    file = folder.create("a")
    file.pwrite(b"still", 0)
    held = file
    del file
    folder.remove("a")
    buffer = bytearray(5)
    assert held.preadv([buffer], 0) == 5
    number = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    del held
    if number:
        assert len(os.listdir("/proc/self/fd")) == number - 1


def test_a_power_cut_leaves_what_was_synced() -> None:
    disk = MemoryDisk()
    folder = disk.folder(Path("/d"), create_mode=0o700)
    file = folder.create("a")
    file.pwrite(b"durable", 0)
    file.fdatasync()
    folder.sync()
    file.pwrite(b"lost", 0)
    folder.create("nameless").fdatasync()
    disk.crash()
    with pytest.raises(OSError, match="power"):
        file.fstat()
    folder = disk.folder(Path("/d"))
    assert folder.names() == ["a"]
    assert content_of(folder, "a") == b"durable"


def test_of_a_file_that_does_not_fit_nothing_stays() -> None:
    disk = MemoryDisk(capacity=6)
    folder = disk.folder(Path("/d"), create_mode=0o700)
    with pytest.raises(OSError, match=r".") as refused:
        folder.create_filled("a", b"12345678")
    assert refused.value.errno == errno.ENOSPC
    assert folder.names() == []


def test_of_a_file_that_could_not_be_written_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = RealDisk().folder(tmp_path)
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match=r".") as refused:
        folder.create_filled("a", b"12345678")
    assert refused.value.errno == errno.ENOSPC
    assert folder.names() == []


def test_a_full_disk_takes_what_fits() -> None:
    disk = MemoryDisk(capacity=6)
    folder = disk.folder(Path("/d"), create_mode=0o700)
    file = folder.create("a")
    with pytest.raises(OSError, match=r".") as refused:
        file.pwrite(b"12345678", 0)
    assert refused.value.errno == errno.ENOSPC
    assert file.fstat().size == 6
    assert folder.free_space() == 0
