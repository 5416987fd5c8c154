"""The disk of the machine: `os` calls on file descriptors, with O_NOFOLLOW throughout.

What a disk is (`Disk`, `Folder`, `DiskFile`, `FileStat`) is said in `filesystem.py`.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import sqlite3
import stat as modes
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from .filesystem import Disk, DiskFile, FileKind, FileStat, Folder

__all__ = ["Disk", "DiskFile", "FileKind", "FileStat", "Folder", "RealDisk"]

_RENAME_NOREPLACE: Final = 1
"""Flag of Linux's renameat2(2)."""

_RENAME_EXCL: Final = 4
"""Flag of macOS's renameatx_np(2)."""

_UNSUPPORTED: Final = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP}
"""A kernel or file system without renameat2, RWF_NOWAIT or folder syncing answers with these."""

_NOWAIT: Final[int] = getattr(os, "RWF_NOWAIT", 0)
_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

_READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

DIRECT_BYTES: Final = 1 << 20
"""Writes of at least so many bytes bypass the page cache: whole pieces."""

BLOCK: Final = 4096
"""Alignment that O_DIRECT asks of length, offset and address (a page is always enough)."""

_DIRECT: Final[int] = getattr(os, "O_DIRECT", 0) if sys.platform == "linux" else 0
_DIRECT_FLAGS: Final = os.O_WRONLY | os.O_CLOEXEC | _DIRECT

BUSY_SECONDS: Final = 5.0
"""A database that another program (a backup, say) has locked is waited for so long."""

MAX_IOV: Final = 1024
"""Buffers that one preadv takes (IOV_MAX of Linux and macOS)."""


_FILE_KINDS: Final = {
    modes.S_IFREG: FileKind.FILE,
    modes.S_IFDIR: FileKind.FOLDER,
    modes.S_IFLNK: FileKind.LINK,
}


class _Handle:
    """One file descriptor, closed when dropped."""

    __slots__ = ("__weakref__", "_fd")

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    def fstat(self) -> FileStat:
        return file_stat(os.fstat(self._fd))


class RealFile(_Handle):
    """A regular file; see `DiskFile`."""

    __slots__ = ("_direct", "_nowait")

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._direct: int | None = None if _DIRECT else -1
        self._nowait = _NOWAIT != 0

    def preadv(
        self, buffers: Sequence[memoryview | bytearray], offset: int, nowait: bool = False
    ) -> int:
        """As `DiskFile.preadv`."""
        if nowait:
            if not self._nowait:
                return 0
            try:
                return os.preadv(self._fd, buffers[:MAX_IOV], offset, _NOWAIT)
            except BlockingIOError:
                return 0
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                self._nowait = False
                return 0
        if len(buffers) == 1:
            done = os.preadv(self._fd, buffers, offset)
            if done in (0, len(buffers[0])):
                return done
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        done = 0
        while views:
            count = os.preadv(self._fd, views[:MAX_IOV], offset + done)
            if count == 0:
                break
            done += count
            while views and count >= len(views[0]):
                count -= len(views.pop(0))
            if count:
                views[0] = views[0][count:]
        return done

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        """As `DiskFile.pwrite`; large aligned blocks go past the page cache."""
        large = len(data) >= DIRECT_BYTES and not (len(data) | offset) % BLOCK
        if large and self._direct != -1 and self._pwrite_direct([data], offset):
            return
        count = os.pwrite(self._fd, data, offset)
        if count < len(data):  # a signal, or the disk is full: the next call says which
            rest = memoryview(data).cast("B")
            while count < len(rest):
                count += os.pwrite(self._fd, rest[count:], offset + count)

    def pwritev(self, parts: Sequence[bytes | bytearray | memoryview], offset: int) -> None:
        """As `DiskFile.pwritev`; one call where the blocks go past the page cache."""
        large = all(len(part) >= DIRECT_BYTES and not len(part) % BLOCK for part in parts)
        several = 1 < len(parts) <= MAX_IOV and not offset % BLOCK
        if large and several and self._direct != -1 and self._pwrite_direct(parts, offset):
            return
        for part in parts:
            self.pwrite(part, offset)
            offset += len(part)

    def _pwrite_direct(self, parts: Sequence[bytes | bytearray | memoryview], offset: int) -> bool:
        """Write with O_DIRECT; False if the file system or a buffer's address does not allow it.

        A piece that was verified is not looked at again soon, and filling the page cache with new
        pages costs more than the disk does: measured two to three times the time of this.
        """
        try:
            if self._direct is None:
                self._direct = os.open(f"/proc/self/fd/{self._fd}", _DIRECT_FLAGS)
            return os.pwritev(self._direct, parts, offset) == sum(map(len, parts))
        except OSError as error:
            if error.errno not in (*_UNSUPPORTED, errno.ENOENT):
                raise
            if self._direct is not None and self._direct >= 0:
                os.close(self._direct)
            self._direct = -1
            return False

    def close(self) -> None:
        """Close both descriptors."""
        super().close()
        direct, self._direct = self._direct, -1
        if direct is not None and direct >= 0:
            os.close(direct)

    def fdatasync(self) -> None:
        """As `DiskFile.fdatasync`; on macOS the drive's own cache is flushed too."""
        if sys.platform == "darwin":
            fcntl.fcntl(self._fd, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(self._fd)

    def truncate(self, size: int) -> None:
        """As `DiskFile.truncate`."""
        os.ftruncate(self._fd, size)

    def lock(self) -> bool:
        """As `DiskFile.lock`."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class RealFolder(_Handle):
    """A directory; see `Folder`."""

    __slots__ = ()

    def names(self) -> list[str]:
        """As `Folder.names`."""
        return os.listdir(self._fd)

    def stat(self, name: str) -> FileStat:
        """As `Folder.stat`."""
        return file_stat(os.stat(_single(name), dir_fd=self._fd, follow_symlinks=False))

    def folder(self, name: str) -> RealFolder:
        """As `Folder.folder`."""
        return RealFolder(os.open(_single(name), _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=self._fd))

    def make_folder(self, name: str, mode: int = 0o777) -> RealFolder:
        """As `Folder.make_folder`."""
        os.mkdir(_single(name), mode, dir_fd=self._fd)
        return self.folder(name)

    def create(self, name: str, mode: int = 0o666) -> RealFile:
        """As `Folder.create`."""
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        return RealFile(os.open(_single(name), flags, mode, dir_fd=self._fd))

    def create_filled(self, name: str, data: bytes | bytearray | memoryview) -> FileStat:
        """As `Folder.create_filled`; once for each of very many files, so it is bare calls."""
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(_single(name), flags, 0o666, dir_fd=self._fd)
        try:
            count = os.write(fd, data)
            while count < len(data):  # a signal, or the disk is full: the next call says which
                count += os.write(fd, memoryview(data)[count:])
            return file_stat(os.fstat(fd))
        except BaseException:
            with suppress(OSError):
                os.unlink(name, dir_fd=self._fd)
            raise
        finally:
            os.close(fd)

    def read_part(self, name: str, offset: int, length: int) -> tuple[bytes, FileStat]:
        """As `Folder.read_part`."""
        fd = os.open(_single(name), _READ_FLAGS, dir_fd=self._fd)
        try:
            data = os.pread(fd, length, offset)  # a folder or FIFO refuses, and never blocks
            stat = file_stat(os.fstat(fd))
            if stat.kind is not FileKind.FILE:
                raise OSError(errno.EINVAL, "not a regular file", name)
            return data, stat
        finally:
            os.close(fd)

    def open(self, name: str, writable: bool = False) -> RealFile:
        """As `Folder.open`; O_NONBLOCK keeps a FIFO from holding us up until it is refused."""
        flags = os.O_RDWR if writable else os.O_RDONLY
        flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        file = RealFile(os.open(_single(name), flags, dir_fd=self._fd))
        if file.fstat().kind is not FileKind.FILE:
            raise OSError(errno.EINVAL, "not a regular file", name)
        return file

    def make_link(self, name: str, target: str) -> None:
        """As `Folder.make_link`."""
        os.symlink(target, _single(name), dir_fd=self._fd)

    def read_link(self, name: str) -> str:
        """As `Folder.read_link`."""
        return os.readlink(_single(name), dir_fd=self._fd)

    def rename(self, name: str, to: Folder, new_name: str, replace: bool = False) -> None:
        """As `Folder.rename`."""
        assert isinstance(to, RealFolder)
        source, target = _single(name), _single(new_name)
        if replace:
            os.replace(source, target, src_dir_fd=self._fd, dst_dir_fd=to._fd)
        elif not _rename_noreplace(self._fd, source, to._fd, target):
            self._rename_by_link(source, to, target)

    def _rename_by_link(self, name: str, to: RealFolder, new_name: str) -> None:
        """Move without replacing where the kernel has no call for it.

        link(2) never replaces. A folder cannot be linked: an empty one claims the name, and
        rename(2) replaces only an empty folder, so a foreign file in it makes that fail.
        """
        if self.stat(name).kind is FileKind.FOLDER:
            os.mkdir(new_name, dir_fd=to._fd)
            os.rename(name, new_name, src_dir_fd=self._fd, dst_dir_fd=to._fd)
            return
        os.link(name, new_name, src_dir_fd=self._fd, dst_dir_fd=to._fd, follow_symlinks=False)
        os.unlink(name, dir_fd=self._fd)

    def remove(self, name: str) -> None:
        """As `Folder.remove`."""
        os.unlink(_single(name), dir_fd=self._fd)

    def remove_folder(self, name: str) -> None:
        """As `Folder.remove_folder`."""
        os.rmdir(_single(name), dir_fd=self._fd)

    def make_private(self) -> None:
        """As `Folder.make_private`."""
        os.fchmod(self._fd, 0o700)

    def sync(self) -> None:
        """As `Folder.sync`; some file systems cannot sync a folder and need not."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise

    def sync_all(self) -> None:
        """As `Folder.sync_all`."""
        if _LIBC is not None and hasattr(_LIBC, "syncfs"):
            if _LIBC.syncfs(self._fd) != 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
        else:
            os.sync()

    def free_space(self) -> int:
        """As `Folder.free_space`."""
        room = os.fstatvfs(self._fd)
        return room.f_bavail * room.f_frsize


class RealDisk:
    """The disk of the machine; see `Disk`."""

    def folder(self, path: Path, create_mode: int | None = None) -> RealFolder:
        """As `Disk.folder`."""
        if create_mode is not None:
            missing = []
            place = path.absolute()
            while not place.exists():
                missing.append(place)
                place = place.parent
            for place in reversed(missing):
                place.mkdir(create_mode, exist_ok=True)
        return RealFolder(os.open(path, _FOLDER_FLAGS))

    def stat(self, path: Path) -> FileStat:
        """As `Disk.stat`."""
        return file_stat(os.lstat(path))

    def connect_database(self, path: Path) -> sqlite3.Connection:
        """As `Disk.connect_database`."""
        return sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS
        )


def file_stat(found: os.stat_result) -> FileStat:
    """Return the part of a stat result that we use."""
    kind = _FILE_KINDS.get(modes.S_IFMT(found.st_mode), FileKind.OTHER)
    return FileStat(
        kind, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    )


def _single(name: str) -> str:
    """Return the name if it is one component; a last line of defence, checked before this."""
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise OSError(errno.EINVAL, "not a single file name", name)
    return name


def _load_libc() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(None, use_errno=True)
    except (OSError, TypeError):
        return None


_LIBC: Final = _load_libc()


def _rename_noreplace(old_fd: int, old: str, new_fd: int, new: str) -> bool:
    """Rename by renameat2(2) or macOS's renameatx_np(2); False where there is no such call."""
    if _LIBC is not None and hasattr(_LIBC, "renameat2"):
        call, flag = _LIBC.renameat2, _RENAME_NOREPLACE
    elif _LIBC is not None and hasattr(_LIBC, "renameatx_np"):
        call, flag = _LIBC.renameatx_np, _RENAME_EXCL
    else:
        return False
    if call(old_fd, os.fsencode(old), new_fd, os.fsencode(new), flag) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), new)
