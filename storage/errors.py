"""What can go wrong with the disk or the home folder, in words for its owner.

The command line maps `exit_code` to its own exit code: 2 = asked for wrongly, 5 = disk or file,
6 = busy or refused.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


class StorageError(Exception):
    """Base of the errors of this folder; its text says what happened and what to do."""

    exit_code: ClassVar[int] = 5


class DiskFull(StorageError):
    """There is no room (ENOSPC or EDQUOT), or it is known beforehand that there will not be."""


class DiskFault(StorageError):
    """The disk or file system failed (EIO, read-only, unplugged), or forbids the access."""


class FileMissing(StorageError):
    """A file or folder that should be there is not."""


class FileChanged(StorageError):
    """A file is no longer the one that was hashed."""


class NameCollision(StorageError):
    """Two entries would be one on this file system, or a foreign file stands in the way."""


class Damaged(StorageError):
    """The database or another file of the home is damaged."""


class DestinationExists(StorageError):
    """Where a fetch should write, something else is already."""

    exit_code: ClassVar[int] = 6


class NothingMatches(StorageError):
    """Patterns of wanted files match nothing in the content."""

    exit_code: ClassVar[int] = 2


class HomeBusy(StorageError):
    """Another process uses this home folder."""

    exit_code: ClassVar[int] = 6


_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Turn an OSError inside the block into a StorageError that begins with `doing`."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, doing) from error


def storage_error(error: OSError, doing: str) -> StorageError:
    """Return the StorageError that stands for `error`; `doing` reads like "writing /a/b"."""
    if error.errno in _FULL:
        return DiskFull(f"{doing}: the disk is full; make room, then go on")
    if error.errno == errno.ENOENT:
        return FileMissing(f"{doing}: it does not exist")
    if error.errno == errno.EEXIST:
        return DestinationExists(f"{doing}: something is there already")
    if error.errno == errno.EROFS:
        return DiskFault(f"{doing}: the disk is read-only; see why, or choose another place")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return DiskFault(f"{doing}: too many open files; raise the limit (ulimit -n) and try again")
    return DiskFault(f"{doing}: {error.strerror or error}")
