"""Hashing files on all cores, in order, with bounded memory.

Small files are hashed in batches, large ones in runs of leaves, so that one file of terabytes and
a million files of kilobytes both keep every core busy. A worker spends its time in two calls that
leave Python alone: read up to a MiB, hash it. Results come back in the order of the files.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from ..wire.blocks import CHUNK, digest_of, pieces_of
from ..wire.unixfs import Built, Emit, TreeBuilder
from .errors import FileChanged, disk_errors, storage_error
from .filesystem import DiskFile, FileStat, Folder

T = TypeVar("T")

RUN_LEAVES: Final = 16
"""Leaves of a large file that a worker hashes at a time."""

BATCH_FILES: Final = 64
BATCH_BYTES: Final = 8 << 20
"""Small files that a worker hashes at a time."""

AHEAD: Final = 3
"""Jobs for each worker that may be under way or waiting to be taken."""

_buffers = threading.local()


class Place:
    """Where a file lies."""

    __slots__ = ("base", "names")

    def __init__(self, base: str, names: tuple[str, ...]) -> None:
        self.base = base
        """Path of the scan's parent folder."""
        self.names = names
        """From there down, the file's own name last."""

    def __str__(self) -> str:
        return os.path.join(self.base, *self.names)


def worker_count() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class Lanes:
    """Runs jobs in threads and hands over their results in the order of the jobs.

    With one worker everything runs in the calling thread.
    """

    def __init__(self, workers: int) -> None:
        self._limit = AHEAD * workers
        self._pool = ThreadPoolExecutor(workers, "shoal-hash") if workers > 1 else None
        self._waiting: deque[Callable[[], None]] = deque()

    def run(self, job: Callable[[], T], done: Callable[[T], None]) -> None:
        """Run `job`, and `done` with its result in this thread, sooner or later."""
        if self._pool is None:
            done(job())
            return
        future: Future[T] = self._pool.submit(job)
        self._waiting.append(lambda: done(future.result()))
        while len(self._waiting) > self._limit:
            self._waiting.popleft()()

    def finish(self) -> None:
        """Take all results that are outstanding."""
        while self._waiting:
            self._waiting.popleft()()

    def close(self) -> None:
        """Drop what has not begun and wait for the rest."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def hash_batch(
    parent: Folder, places: Sequence[tuple[Place, FileStat]], code: int
) -> list[tuple[FileStat, bytes] | None]:
    """Hash files of at most one leaf, each with the stat with which it was found.

    Returns:
        (stat, digest) of each; None if it has grown beyond a leaf.
    """
    results: list[tuple[FileStat, bytes] | None] = []
    folder = parent
    above: tuple[str, ...] = ()
    for place, found in places:
        try:
            if place.names[:-1] != above:
                above = place.names[:-1]
                folder = open_folder(parent, above)
            file = folder.open(place.names[-1])
            results.append(_hash_small(file, place, found, code))
            file.close()
        except OSError as error:
            raise storage_error(error, f"reading {place}") from error
    return results


def _hash_small(
    file: DiskFile, place: Place, found: FileStat, code: int
) -> tuple[FileStat, bytes] | None:
    for stat in (found, None, None):
        stat = stat or file.fstat()
        if stat.size > CHUNK:
            return None
        view = _buffer()[: stat.size]
        if file.preadv([view], 0) == stat.size:
            digest = digest_of(code, view)
            if file.fstat() == stat:
                return stat, digest
    raise _changed(place)


def hash_run(
    file: DiskFile, place: Place, first: int, count: int, size: int, code: int
) -> list[bytes] | None:
    """Hash leaves `first` to `first + count` of an open file; None if it ends too early."""
    digests: list[bytes] = []
    buffer = _buffer()
    with disk_errors(f"reading {place}"):
        for leaf in range(first, first + count):
            view = buffer[: min(CHUNK, size - leaf * CHUNK)]
            if file.preadv([view], leaf * CHUNK) != len(view):
                return None
            digests.append(digest_of(code, view))
    return digests


class LargeFile:
    """A file of several leaves on its way through the lanes."""

    def __init__(self, parent: Folder, place: Place, code: int, emit: Emit) -> None:
        self._place = place
        self._code = code
        self._emit = emit
        with disk_errors(f"reading {place}"):
            self._file = open_folder(parent, place.names[:-1]).open(place.names[-1])
            self._stat = self._file.fstat()
        self._builder = TreeBuilder(emit, code)
        self._broken = False

    def runs(self) -> Iterator[Callable[[], list[bytes] | None]]:
        """Give out the jobs; each result goes to `take`, in order."""
        size = self._stat.size
        pieces = pieces_of(size)
        for first in range(0, pieces, RUN_LEAVES):
            count = min(RUN_LEAVES, pieces - first)
            yield partial(hash_run, self._file, self._place, first, count, size, self._code)

    def take(self, digests: list[bytes] | None) -> int:
        """Take the result of the next run; return its bytes."""
        if digests is None or self._broken:
            self._broken = True
            return 0
        before = self._builder.size
        for digest in digests:
            self._builder.add_leaf(
                digest, min(CHUNK, self._stat.size - self._builder.pieces * CHUNK)
            )
        return self._builder.size - before

    def finish(self) -> tuple[FileStat, Built]:
        """Return the file's stat and root; if it changed meanwhile, hash it once more.

        Raises:
            FileChanged: It changed again.
        """
        with disk_errors(f"reading {self._place}"):
            if self._broken or self._file.fstat() != self._stat:
                self._again()
            self._file.close()
        return self._stat, self._builder.finish()

    def _again(self) -> None:
        self._stat = self._file.fstat()
        self._builder = TreeBuilder(self._emit, self._code)
        self._broken = False
        for run in self.runs():
            self.take(run())
        if self._broken or self._file.fstat() != self._stat:
            raise _changed(self._place)


def open_folder(parent: Folder, names: Sequence[str]) -> Folder:
    """Open a folder some levels below a handle, following no links."""
    folder = parent
    for name in names:
        folder = folder.folder(name)
    return folder


def _buffer() -> memoryview:
    """Return this thread's buffer of one leaf."""
    if not hasattr(_buffers, "view"):
        _buffers.view = memoryview(bytearray(CHUNK))
    view: memoryview = _buffers.view
    return view


def _changed(place: Place) -> FileChanged:
    return FileChanged(f"{place} changes while it is read; share it when nobody writes to it")
