"""The frames of yamux: a header of 12 bytes, followed by the payload in data frames only."""

from __future__ import annotations

import struct
from typing import Final

HEADER: Final = struct.Struct(">BBHII")
"""Version, type, flags, stream id, length (or the value of a frame without payload)."""

HEADER_BYTES: Final = HEADER.size

MAX_FRAME: Final = 65507
"""Payload of a data frame that we send: with its header it fills one Noise frame."""

DATA, WINDOW, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8

NORMAL, PROTOCOL_ERROR, INTERNAL_ERROR = range(3)
"""Reasons of a GO_AWAY."""


def cut(batch: memoryview, length: int, stream_id: int, start: int) -> int:
    """Remove a stream's data frames that begin at or behind `start`; return the new length.

    Args:
        batch: Whole frames, as laid out to be sent.
        length: Bytes of it that are in use.
        stream_id: Whose frames.
        start: Where the first of them begins.
    """
    at = kept = 0
    while at < length:
        _, kind, _, whose, value = HEADER.unpack_from(batch, at)
        end = at + HEADER_BYTES + (value if kind == DATA else 0)
        if kind != DATA or whose != stream_id or at < start:
            if kept != at:
                batch[kept : kept + end - at] = batch[at:end]
            kept += end - at
        at = end
    return kept
