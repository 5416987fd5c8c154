"""Buffers for arriving pieces: one pool per node, bounded by bytes.

A request reserves what it may bring; a buffer is taken when a piece's header arrives and given back
when the piece has been written. So a buffer is always there when an honest peer sends.
"""

from __future__ import annotations

from mmap import mmap

from ...wire.swarm import MAX_PIECE

POOL_BYTES = 64 << 20
"""Bytes of pieces on their way from request to disk, in the process."""

KEPT_BUFFERS = 64
"""Free buffers of a whole piece that are kept for the next."""

BIG = MAX_PIECE // 2
"""Pieces longer than this get a kept buffer; shorter ones one of their own size."""


class Pool:
    """See the top of the file."""

    def __init__(self, limit: int = POOL_BYTES) -> None:
        self._limit = limit
        self._free: list[mmap] = []
        self.reserved = 0
        """Bytes that requests under way may bring."""
        self.used = 0
        """Bytes of buffers that are out."""
        self._scratch: bytearray | None = None

    @property
    def room(self) -> int:
        """Bytes that may still be reserved."""
        return self._limit - self.reserved - self.used

    def reserve(self, count: int) -> None:
        """Take bytes for a request."""
        self.reserved += count

    def release(self, count: int) -> None:
        """Give back what a request reserved."""
        self.reserved -= count

    def take(self, length: int) -> memoryview:
        """Return a buffer of `length` bytes."""
        self.used += length
        if length <= BIG:
            return memoryview(bytearray(length))
        # Anonymous memory begins with a page: such a buffer can go to the disk directly.
        buffer = self._free.pop() if self._free else mmap(-1, MAX_PIECE)
        return memoryview(buffer)[:length]

    def give(self, view: memoryview) -> None:
        """Take a buffer back; nobody may use it any more."""
        length = len(view)
        self.used -= length
        if length > BIG and len(self._free) < KEPT_BUFFERS and isinstance(view.obj, mmap):
            self._free.append(view.obj)

    def scratch(self, length: int) -> memoryview:
        """Return room for bytes that nobody wants; shared, never read."""
        if self._scratch is None:
            self._scratch = bytearray(MAX_PIECE)
        return memoryview(self._scratch)[:length]

    def shrink(self) -> None:
        """Let go of the free buffers: no fetch runs."""
        self._free.clear()
        self._scratch = None
