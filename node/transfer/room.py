"""Waiting for room on a disk that got full while a fetch ran."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from ...storage.errors import StorageError

if TYPE_CHECKING:
    from .transfers import Transfers

FULL_SECONDS = 5.0
"""How often it is looked whether there is room again."""

PROBE_SECONDS = 600.0
"""After so long the fetch goes on though there seems to be too little room: what is in the way may
be bytes of its own that a failed sync has left."""


class Room:
    """Whether a fetch has room on its disk.

    Args:
        transfers: For tasks and the store.
        done: Set when the fetch has ended.
    """

    def __init__(self, transfers: Transfers, done: trio.Event) -> None:
        self._transfers = transfers
        self._done = done
        self.full: str | None = None
        """Why nothing is asked for, in words; None = there is room."""
        self.check: Callable[[], None] | None = None
        """Raises a StorageError if what is missing does not fit."""

    def missing(self, why: str) -> None:
        """Ask for nothing until there is room for all that is missing."""
        if self.full is None:
            self._transfers.later(self._wait)
        self.full = why

    async def _wait(self) -> None:
        patience = trio.current_time() + PROBE_SECONDS
        while not self._done.is_set():
            with trio.move_on_after(FULL_SECONDS):
                await self._done.wait()
            try:
                if self.check is not None:
                    await self._transfers.blocking(self.check)
            except StorageError as error:
                self.full = str(error)
                if trio.current_time() < patience:
                    continue
            self.full = None
            return
