"""Pieces on their way in: they get a buffer, and go to be verified and written when they are whole.

Pieces that nobody waits for any more are legal, and kept if they are of use.
"""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from ...storage.model import UNKNOWN_LENGTH, PieceTable
from ...swarm.download import Download
from ...wire.errors import PeerFault
from ...wire.swarm import PieceRun
from .blocks import BlockFeeder
from .link import Link
from .saver import Arrived, Saver

if TYPE_CHECKING:
    from .fetch import Fetch


class Arrivals:
    """See the top of the file."""

    def __init__(self, fetch: Fetch, engine: Download, feeder: BlockFeeder, saver: Saver) -> None:
        self._fetch = fetch
        self._engine = engine
        self._feeder = feeder
        self._saver = saver
        self._pool = fetch.transfers.pool
        # A stream carries one frame at a time: the buffer, its pieces, and what they are.
        self._buffers: dict[Link, tuple[memoryview, int, PieceTable | None]] = {}
        self._unwanted: set[Link] = set()

    def begin(self, link: Link, run: PieceRun) -> memoryview:
        """Return the buffer for pieces.

        Raises:
            PeerFault: One was not asked for, or has another length.
        """
        if not link.may_come(run):
            raise PeerFault("swarm-unasked", f"piece {run.first}")
        count, size = len(run.lengths), sum(run.lengths)
        table = self._feeder.part(run.first, count)
        lengths = array("I", run.lengths)
        if table is not None and table.lengths != lengths:
            for expected, length in zip(table.lengths, lengths, strict=True):
                if expected not in (UNKNOWN_LENGTH, length):
                    raise PeerFault("swarm-piece-length", f"{length} instead of {expected}")
            table = replace(table, lengths=lengths)
        useful = table is not None and bool(self._engine.useful(run.first, count))
        awaited = self._engine.begins(link.source, run.id, run.first, count)
        if not awaited and not (useful and self._pool.room >= size):
            self._unwanted.add(link)
            return self._pool.scratch(size)
        view = self._pool.take(size, count)
        self._buffers[link] = (view, count, table)
        return view

    def end(self, link: Link, run: PieceRun) -> None:
        """Hand whole pieces on to be verified and written."""
        fetch, engine = self._fetch, self._engine
        if link in self._unwanted:
            self._unwanted.discard(link)
            fetch.wasted += sum(run.lengths)
            return
        if link not in self._buffers:
            return
        view, count, table = self._buffers.pop(link)
        useful = engine.useful(run.first, count)
        for drop in engine.arrived(link.source, run.id, run.first, trio.current_time(), count):
            fetch.drop(drop)
        if table is None:  # not known what they should be: they may come again
            for piece in useful:
                engine.failed(piece)
            useful = []
        skipped: frozenset[int] = frozenset()
        if len(useful) < count:
            skipped = frozenset(range(run.first, run.first + count)).difference(useful)
            fetch.wasted += sum(run.lengths[piece - run.first] for piece in skipped)
        if table is None or not useful:
            self._pool.give(view, count)
            return
        repeats = self._feeder.repeats(run.first, count)
        self._saver.put(Arrived(table, view, link, repeats, skipped))

    def left(self, link: Link) -> None:
        """Forget what a peer was just sending."""
        self._unwanted.discard(link)
        if link in self._buffers:
            view, count, _ = self._buffers.pop(link)
            self._pool.give(view, count)

    def close(self) -> None:
        """Give all buffers back."""
        for link in list(self._buffers):
            self.left(link)
