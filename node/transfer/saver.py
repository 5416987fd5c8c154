"""From verified bytes to claimed pieces: bytes, then sync, then bits.

Pieces are written in worker threads as they come. A batch closes at 64 MiB or after a second; while
one is synced and committed the next fills, and no third begins. So a crash costs at most two
batches and what is in flight, and nothing that the database claims is missing. After a sync that
failed nothing written since the last good one is trusted: it is all wanted again.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import trio
from blake3 import blake3

from ...storage.errors import DiskFull, StorageError
from ...storage.writer import CopyWriter
from ...wire.ids import BLAKE3
from ...wire.immutable import immutable

if TYPE_CHECKING:
    from .link import Link
    from .transfers import Transfers

BATCH_BYTES = 64 << 20
BATCH_SECONDS = 1.0
"""Design: a batch closes at 64 MiB or 1 s, whichever comes first."""

JOB_BYTES = 4 << 20
"""Bytes written by one call in a worker thread, or the one piece that is longer."""

WAKE_BYTES = JOB_BYTES
WAKE_SECONDS = 0.02
"""A writer is woken for so many bytes, or at the end of a receive pass if none was for so long:
handing a job over costs more than what it does for a piece."""

STOP_SECONDS = 5.0
"""A fetch that is stopped has so long to claim what has arrived."""

LEAST_WRITERS = 2
MAX_WRITERS = 4
"""Worker threads that write for one fetch: they wait for the disk more than they work."""


def digest_of(data: memoryview, hash_code: int) -> bytes:
    """Return the 32-byte digest of a piece."""
    if hash_code == BLAKE3:
        return blake3(data).digest()
    return hashlib.sha256(data).digest()


@immutable
class Place:
    """Where a piece goes."""

    piece: int
    ordinal: int
    offset: int


@immutable
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
        commit: Claims pieces in the store (called in its lane).
        written: Told of pieces that are written: they can be read, though a crash may lose them.
        saved: Told of pieces that are claimed durably now.
        right: Told of a piece whose hash is right (only if `Arrived.digest` was given).
        wrong: Told of a piece whose hash is wrong (likewise).
        lost: Told of pieces that could not be written; if the disk is not merely full, `failure`
            says why and no more is written.
        freed: Told that buffers are free again.
    """

    def __init__(
        self,
        transfers: Transfers,
        writer: CopyWriter,
        commit: Callable[[Sequence[int]], None],
        *,
        written: Callable[[Sequence[int]], None],
        saved: Callable[[Sequence[int]], None],
        right: Callable[[Arrived], None],
        wrong: Callable[[Arrived], None],
        lost: Callable[[Sequence[int], StorageError], None],
        freed: Callable[[], None],
    ) -> None:
        self._transfers = transfers
        self._writer = writer
        self._commit_bits = commit
        self._written = written
        self._saved = saved
        self._right = right
        self._wrong = wrong
        self._lost = lost
        self._freed = freed
        self._queue: deque[Arrived] = deque()  # bounded by the pool
        self._waiting_bytes = 0  # put since a writer was last woken
        self._woken_at = 0.0
        self._ready = trio.lowlevel.ParkingLot()  # of idle writers
        self._batch: list[int] = []
        self._batch_bytes = 0
        self._close_batch = trio.Event()
        self._room = trio.lowlevel.ParkingLot()  # of writers that wait for the next batch
        self._era = 0  # counts the syncs that failed
        self._busy = 0
        self._draining = False  # somebody waits for the last pieces
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
        self._waiting_bytes += len(arrived.data)
        if self._waiting_bytes >= WAKE_BYTES:
            self.wake()

    def pass_done(self, now: float) -> None:
        """A receive pass is over (trio's clock): see whether a writer has been idle for long."""
        if now - self._woken_at >= WAKE_SECONDS:
            self.wake()

    def wake(self) -> None:
        """Let a writer begin with what was put so far, however little."""
        if self._queue:
            self._waiting_bytes = 0
            self._woken_at = trio.current_time()
            self._ready.unpark()

    def claim(self, pieces: Sequence[int]) -> None:
        """Claim pieces that need no bytes (empty files) with the next batch."""
        self._batch += pieces

    async def run(self) -> None:
        """Write and commit until cancelled; then claim what has arrived, within a bound."""
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(max(LEAST_WRITERS, min(MAX_WRITERS, self._transfers.cores - 1))):
                    nursery.start_soon(self._write)
                nursery.start_soon(self._commit)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(STOP_SECONDS):
                while self._queue and self.failure is None:
                    await self._do(*self._job())
                if self.failure is None:
                    await self._commit_batch()
            while self._queue:
                self._give(self._queue.popleft())

    async def flush(self) -> None:
        """Wait until everything that was put is claimed (or lost)."""
        self._draining = True
        try:
            while self.pending and self.failure is None:
                self.wake()
                self._close_batch.set()
                self._idle = trio.Event()
                with trio.move_on_after(BATCH_SECONDS):
                    await self._idle.wait()
        finally:
            self._draining = False

    async def wait_below(self, count: int) -> None:
        """Wait until at most `count` pieces are waiting to be written."""
        while len(self._queue) > count:
            self._progressed = trio.Event()
            await self._progressed.wait()

    async def _write(self) -> None:
        while True:
            if not self._queue:
                await self._ready.park()
            elif self._batch_bytes >= BATCH_BYTES:
                self._close_batch.set()
                await self._room.park()
            else:
                await self._do(*self._job())

    def _job(self) -> tuple[list[Arrived], int]:
        """Take from the queue what one call writes: one piece, or several small ones."""
        job = [self._queue.popleft()]
        size = len(job[0].data)
        while self._queue and size + len(self._queue[0].data) <= JOB_BYTES:
            job.append(self._queue.popleft())
            size += len(job[-1].data)
        return job, size

    def _give(self, item: Arrived) -> None:
        if item.link is not None:
            self._transfers.pool.give(item.data)

    async def _do(self, job: list[Arrived], size: int) -> None:
        self._busy += len(job)
        era = self._era
        done: list[int] = []
        bad: list[Arrived] = []
        good: list[Arrived] = []

        def work() -> None:
            for item in job:
                if item.digest is not None and digest_of(item.data, item.hash_code) != item.digest:
                    bad.append(item)
                    continue
                good.append(item)
            for run in _runs(good):
                first = run[0].places[0]
                self._writer.write(first.ordinal, first.offset, *(item.data for item in run))
                done.extend(item.places[0].piece for item in run)
                for item in run:
                    for place in item.places[1:]:
                        self._writer.write(place.ordinal, place.offset, item.data)
                        done.append(place.piece)

        failed: StorageError | None = None
        try:
            with trio.CancelScope(shield=True):  # the thread uses the buffers until it returns
                await self._transfers.blocking_io(work)
        except StorageError as error:
            failed = error
        finally:
            self._busy -= len(job)
            for item in job:
                self._give(item)
        written = set(done)
        for item in job:
            if item.digest is not None and item.places[0].piece in written:
                self._right(item)
        for item in bad:
            self._wrong(item)
        if failed is not None:
            wrong = {place.piece for item in bad for place in item.places}
            all_places = [place.piece for item in job for place in item.places]
            self._lose([p for p in all_places if p not in written and p not in wrong], failed)
        if era != self._era:  # a sync that failed meanwhile may have dropped these, too
            self._lose(done, DiskFull("the disk was full"))
        else:
            self._batch += done
            self._batch_bytes += size
            self._written(done)
        self._progressed.set()
        if self._batch_bytes >= BATCH_BYTES or (self._draining and not self._queue):
            self._close_batch.set()
        self._freed()

    def _lose(self, pieces: Sequence[int], error: StorageError) -> None:
        if not isinstance(error, DiskFull):
            self.failure = self.failure or error
        self._lost(pieces, error)

    async def _commit(self) -> None:
        while True:
            with trio.move_on_after(BATCH_SECONDS):
                await self._close_batch.wait()
            self._close_batch = trio.Event()
            await self._commit_batch()
            if not self.pending or self.failure is not None:
                self._idle.set()

    async def _commit_batch(self) -> None:
        """Sync and claim what has been written; the next batch fills meanwhile."""
        batch, self._batch = self._batch, []
        self._batch_bytes = 0
        self._room.unpark_all()
        if not batch:
            return
        count = len(batch)
        self._busy += count
        try:
            with trio.CancelScope(shield=True):
                await self._transfers.blocking_io(self._writer.sync)
                await self._transfers.blocking(self._commit_bits, batch)
        except StorageError as error:
            self._era += 1
            batch += self._batch
            self._batch, self._batch_bytes = [], 0
            self._room.unpark_all()
            self._lose(batch, error)
        else:
            self._saved(batch)
        finally:
            self._busy -= count


def _runs(items: Sequence[Arrived]) -> Iterator[list[Arrived]]:
    """Put together what is written by one call: pieces that follow one another in a file.

    For each call the thread must get the interpreter back, from a trio thread that is never idle.
    """
    run: list[Arrived] = []
    end = 0
    for item in items:
        place = item.places[0]
        if run and (run[0].places[0].ordinal, end) != (place.ordinal, place.offset):
            yield run
            run = []
        run.append(item)
        end = place.offset + len(item.data)
    if run:
        yield run
