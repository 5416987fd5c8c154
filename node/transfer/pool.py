"""Buffers for arriving pieces: one pool per node, bounded by bytes.

A request reserves what it may bring; a buffer is taken when a piece's header arrives and given back
when the piece has been written. So a buffer is always there when an honest peer sends.
"""

from __future__ import annotations

import ctypes

from ...wire.swarm import MAX_PIECE

POOL_BYTES = 64 << 20
"""Bytes of pieces on their way from request to disk, in the process."""

MAX_BUFFERS = 1024
"""Buffers that may be out before nothing more is asked for: small ones cost more than their bytes,
and wait longer, since making a file takes longer than to receive it."""

KEPT_BUFFERS = 64
"""Free buffers of a whole piece that are kept for the next."""

PAGE = 4096
"""A whole piece begins at a page, so that it can go to the disk past the page cache."""

BIG = MAX_PIECE // 2
"""Pieces longer than this get a kept buffer; shorter ones one of their own size."""


class Pool:
    """See the top of the file."""

    def __init__(self, limit: int = POOL_BYTES) -> None:
        self._limit = limit
        self._free: list[bytearray] = []
        self.reserved = 0
        """Bytes that requests under way may bring."""
        self.used = 0
        """Bytes of buffers that are out."""
        self._out = 0
        self._scratch: bytearray | None = None

    @property
    def room(self) -> int:
        """Bytes that may still be reserved."""
        if self._out >= MAX_BUFFERS:
            return 0
        return self._limit - self.reserved - self.used

    def reserve(self, count: int) -> None:
        """Take bytes for a request."""
        self.reserved += count

    def release(self, count: int) -> None:
        """Give back what a request reserved."""
        self.reserved -= count

    def take(self, length: int, pieces: int = 1) -> memoryview:
        """Return a buffer of `length` bytes, for one piece or several."""
        self.used += length
        self._out += pieces
        if length <= BIG:
            return memoryview(bytearray(length))
        return _aligned(self._free.pop() if self._free else bytearray(MAX_PIECE + PAGE), length)

    def give(self, view: memoryview, pieces: int = 1) -> None:
        """Take a buffer back; nobody may use it any more."""
        length = len(view)
        self.used -= length
        self._out -= pieces
        if length > BIG and len(self._free) < KEPT_BUFFERS and isinstance(view.obj, bytearray):
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


def _aligned(buffer: bytearray, length: int) -> memoryview:
    """Return `length` bytes of the buffer, from the first page that begins in it."""
    start = -ctypes.addressof(ctypes.c_char.from_buffer(buffer)) % PAGE
    return memoryview(buffer)[start : start + length]
