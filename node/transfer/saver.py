"""From verified bytes to claimed pieces: bytes, then sync, then bits.

Pieces are written in worker threads as they come. A batch closes at 64 MiB or after a second; while
one is synced and committed the next fills, and no third begins. So a crash costs at most two
batches and what is in flight, and nothing that the database claims is missing.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio
from blake3 import blake3

from ...storage.errors import DiskFull, StorageError
from ...storage.writer import CopyWriter
from ...wire.ids import BLAKE3

if TYPE_CHECKING:
    from .link import Link
    from .transfers import Transfers

BATCH_BYTES = 64 << 20
BATCH_SECONDS = 1.0
"""Design: a batch closes at 64 MiB or 1 s, whichever comes first."""

JOB_BYTES = 1 << 20
"""Bytes written by one call in a worker thread, or the one piece that is longer."""

LEAST_WRITERS = 2
MAX_WRITERS = 4
"""Worker threads that write for one fetch: they wait for the disk more than they work."""


def digest_of(data: memoryview, hash_code: int) -> bytes:
    """Return the 32-byte digest of a piece."""
    if hash_code == BLAKE3:
        return blake3(data).digest()
    return hashlib.sha256(data).digest()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a piece goes."""

    piece: int
    ordinal: int
    offset: int


@dataclass(frozen=True, slots=True)
class Arrived:
    """A piece on its way to disk."""

    places: tuple[Place, ...]
    """All places with these bytes; the first is the one that was asked for."""
    data: memoryview
    link: Link | None
    """Who sent it; None = copied here."""
    digest: bytes | None
    """To be checked by the writer; None = checked already."""
    hash_code: int


class Saver:
    """Writes, syncs and commits for one fetch.

    Args:
        transfers: For threads and the store.
        writer: The copy's files.
        copy_id: Which copy.
        saved: Told of pieces that are claimed durably now.
        right: Told of a piece whose hash is right (only if `Arrived.digest` was given).
        wrong: Told of a piece whose hash is wrong (likewise).
        lost: Told of pieces that could not be written, and why.
        freed: Told that buffers are free again.
    """

    def __init__(
        self,
        transfers: Transfers,
        writer: CopyWriter,
        copy_id: int,
        *,
        saved: Callable[[Sequence[int]], None],
        right: Callable[[Arrived], None],
        wrong: Callable[[Arrived], None],
        lost: Callable[[Sequence[int], DiskFull], None],
        freed: Callable[[], None],
    ) -> None:
        self._transfers = transfers
        self._writer = writer
        self._copy_id = copy_id
        self._saved = saved
        self._right = right
        self._wrong = wrong
        self._lost = lost
        self._freed = freed
        self._queue: deque[Arrived] = deque()  # bounded by the pool
        self._ready = trio.Event()
        self._batch: list[int] = []
        self._batch_bytes = 0
        self._close_batch = trio.Event()
        self._room = trio.Event()
        self._busy = 0
        self._idle = trio.Event()
        self._progressed = trio.Event()
        self.failure: StorageError | None = None

    @property
    def pending(self) -> int:
        """Pieces that are not claimed yet."""
        return len(self._queue) + self._busy + len(self._batch)

    def put(self, arrived: Arrived) -> None:
        """Take a piece; its buffer goes back to the pool when it is written."""
        self._queue.append(arrived)
        self._ready.set()

    def claim(self, pieces: Sequence[int]) -> None:
        """Claim pieces that need no bytes (empty files) with the next batch."""
        self._batch += pieces
        self._ready.set()

    async def run(self) -> None:
        """Write and commit until cancelled; ends with `failure` if the disk fails."""
        async with trio.open_nursery() as nursery:
            for _ in range(max(LEAST_WRITERS, min(MAX_WRITERS, self._transfers.cores - 1))):
                nursery.start_soon(self._write)
            nursery.start_soon(self._commit)

    async def flush(self) -> None:
        """Wait until everything that was put is claimed (or lost)."""
        while self.pending:
            self._close_batch.set()
            self._idle = trio.Event()
            with trio.move_on_after(BATCH_SECONDS):
                await self._idle.wait()

    async def wait_below(self, count: int) -> None:
        """Wait until at most `count` pieces are waiting to be written."""
        while len(self._queue) > count:
            self._progressed = trio.Event()
            await self._progressed.wait()

    async def _write(self) -> None:
        while True:
            while not self._queue:
                self._ready = trio.Event()
                await self._ready.wait()
            while self._batch_bytes >= BATCH_BYTES:
                self._close_batch.set()
                self._room = trio.Event()
                await self._room.wait()
            job = [self._queue.popleft()] if self._queue else []
            size = sum(len(item.data) for item in job)
            while self._queue and size + len(self._queue[0].data) <= JOB_BYTES:
                item = self._queue.popleft()
                size += len(item.data)
                job.append(item)
            if job:
                await self._do(job, size)

    async def _do(self, job: list[Arrived], size: int) -> None:
        self._busy += len(job)
        done: list[int] = []
        bad: list[Arrived] = []

        def work() -> None:
            for item in job:
                if item.digest is not None and digest_of(item.data, item.hash_code) != item.digest:
                    bad.append(item)
                    continue
                for place in item.places:
                    self._writer.write(place.ordinal, place.offset, item.data)
                    done.append(place.piece)

        full: DiskFull | None = None
        try:
            with trio.CancelScope(shield=True):  # the thread uses the buffers until it returns
                await self._transfers.blocking_io(work)
        except DiskFull as error:
            full = error
        except StorageError as error:
            self.failure = error
        finally:
            self._busy -= len(job)
            for item in job:
                if item.link is not None:
                    self._transfers.pool.give(item.data)
        self._batch += done
        self._batch_bytes += size
        self._progressed.set()
        written = set(done)
        for item in job:
            if item.digest is not None and item.places[0].piece in written:
                self._right(item)
        for item in bad:
            self._wrong(item)
        if full is not None or self.failure is not None:
            rejected = [p.piece for i in job for p in i.places if p.piece not in written]
            missing = [piece for piece in rejected if not _is_bad(piece, bad)]
            self._lost(missing, full or DiskFull(str(self.failure)))
        if self._batch_bytes >= BATCH_BYTES:
            self._close_batch.set()
        self._freed()

    async def _commit(self) -> None:
        while True:
            with trio.move_on_after(BATCH_SECONDS):
                await self._close_batch.wait()
            self._close_batch = trio.Event()
            batch, self._batch = self._batch, []
            self._batch_bytes = 0
            self._room.set()
            if batch:
                await self._commit_batch(batch)
            if not self.pending:
                self._idle.set()

    async def _commit_batch(self, batch: list[int]) -> None:
        self._busy += len(batch)
        try:
            with trio.CancelScope(shield=True):
                await self._transfers.blocking_io(self._writer.sync)
                await self._transfers.blocking(self._transfers.store.set_bits, self._copy_id, batch)
        except StorageError as error:
            self.failure = error
            self._lost(batch, DiskFull(str(error)))
            return
        finally:
            self._busy -= len(batch)
        self._saved(batch)


def _is_bad(piece: int, bad: Sequence[Arrived]) -> bool:
    return any(place.piece == piece for item in bad for place in item.places)
