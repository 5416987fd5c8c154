"""Pieces on their way in: each gets a buffer, and goes to be verified and written when it is whole.

A piece that nobody waits for any more is legal, and kept if it is of use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ...storage.model import UNKNOWN_LENGTH
from ...swarm.download import Download
from ...wire.errors import PeerFault
from ...wire.swarm import Piece
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
        # A stream carries one piece at a time.
        self._buffers: dict[Link, memoryview] = {}
        self._unwanted: set[Link] = set()

    def begins(self, link: Link, piece: Piece) -> memoryview:
        """Return the buffer for a piece.

        Raises:
            PeerFault: It was not asked for, or has another length.
        """
        if not link.may_come(piece.id, piece.index):
            raise PeerFault("swarm-unasked", f"piece {piece.index}")
        length = self._feeder.known_length(piece.index)
        if length is not None and length not in (UNKNOWN_LENGTH, piece.length):
            raise PeerFault("swarm-piece-length", f"{piece.length} instead of {length}")
        awaited = self._engine.begins(link.source, piece.id, piece.index)
        free = self._pool.room >= piece.length
        if not awaited and (length is None or self._engine.held[piece.index] or not free):
            self._unwanted.add(link)
            return self._pool.scratch(piece.length)
        view = self._buffers[link] = self._pool.take(piece.length)
        return view

    def ends(self, link: Link, piece: Piece) -> None:
        """Hand a whole piece on to be verified and written."""
        fetch, engine = self._fetch, self._engine
        if link in self._unwanted:
            self._unwanted.discard(link)
            fetch.wasted += piece.length
            return
        view = self._buffers.pop(link, None)
        if view is None:
            return
        found = self._feeder.find(piece.index)
        if found is None or engine.held[piece.index]:
            fetch.wasted += piece.length
            self._pool.give(view)
            engine.arrived(link.source, piece.id, piece.index, trio.current_time())
            return
        table, at = found
        digest, code = table.digest(piece.index), table.hash_codes[at]
        for drop in engine.arrived(link.source, piece.id, piece.index, trio.current_time()):
            fetch.drop(drop)
        places = self._feeder.places(piece.index)
        self._saver.put(Arrived(places, view, link, digest, code))

    def left(self, link: Link) -> None:
        """Forget what a peer was just sending."""
        self._unwanted.discard(link)
        view = self._buffers.pop(link, None)
        if view is not None:
            self._pool.give(view)

    def close(self) -> None:
        """Give all buffers back."""
        for link in list(self._buffers):
            self.left(link)
