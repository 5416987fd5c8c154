"""What goes wrong with disks, for `MemoryDisk.on_operation`."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from typing import Final

from .disk import MemoryDisk

FOR_EVER: Final = 1 << 60
"""As the number of times: until the fault is taken away."""


def fail(
    disk: MemoryDisk, operation: str, code: int, times: int = FOR_EVER, after: int = 0
) -> None:
    """Let an operation fail with an errno so many times, after so many good ones."""
    error = OSError(code, os.strerror(code))
    _fail_with(disk, lambda name, _: name == operation, error, times, after)


def make_read_only(disk: MemoryDisk) -> None:
    """Let everything that changes a file fail with EROFS: the kernel does so after an error."""
    changing = {"pwrite", "create", "make_folder", "make_link", "rename", "remove", "truncate"}
    error = OSError(errno.EROFS, os.strerror(errno.EROFS))
    _fail_with(disk, lambda name, _: name in changing, error, FOR_EVER, 0)


def limit_open_files(disk: MemoryDisk) -> None:
    """Let the process have no more files open (EMFILE); those that are open go on."""
    opening = {"open", "create", "folder", "make_folder"}
    error = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    _fail_with(disk, lambda name, _: name in opening, error, FOR_EVER, 0)


def fail_sql(disk: MemoryDisk, word: str, code: int, times: int = FOR_EVER, after: int = 0) -> None:
    """Let statements that begin with a word fail with a code of SQLite (`sqlite3.SQLITE_FULL`)."""
    error = sqlite3.OperationalError(f"simulated error {code}")
    error.sqlite_errorcode = code
    _fail_with(disk, lambda name, sql: name == "sql" and sql.startswith(word), error, times, after)


def fail_syncs(disk: MemoryDisk, code: int, times: int = FOR_EVER) -> None:
    """Let syncs of files fail, and forget what was not synced: the next one succeeds without it."""

    def forget() -> None:
        disk.drop_unsynced()

    error = OSError(code, os.strerror(code))
    _fail_with(disk, lambda name, _: name in ("fdatasync", "sync_all"), error, times, 0, forget)


def slow_down(disk: MemoryDisk, operation: str, seconds: float, times: int = FOR_EVER) -> None:
    """Let an operation take so long."""
    left = [times]

    def before(name: str, _: str) -> None:
        if name == operation and left[0]:
            left[0] -= 1
            disk.delay += seconds

    disk.on_operation = before


def _fail_with(
    disk: MemoryDisk,
    matches: Callable[[str, str], bool],
    error: Exception,
    times: int,
    after: int,
    then: Callable[[], None] = lambda: None,
) -> None:
    left = [after, times]

    def before(operation: str, name: str) -> None:
        if not matches(operation, name):
            return
        if left[0]:
            left[0] -= 1
        elif left[1]:
            left[1] -= 1
            then()
            raise error

    disk.on_operation = before
