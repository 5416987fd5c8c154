"""Frames with an unsigned varint length in front, as most libp2p protocols use them."""

from __future__ import annotations

from . import varint
from .errors import PeerFault


def frame(payload: bytes) -> bytes:
    """Return the payload with its length in front."""
    return varint.encode(len(payload)) + payload


class DelimitedReader:
    """Cuts a byte stream into frames; holds at most one unfinished frame.

    Args:
        limit: Longest payload in bytes; a longer one is refused when its length is read.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Take bytes; return the payloads that are whole now.

        Raises:
            PeerFault: A length is malformed or over the limit.
        """
        buffer = self._buffer
        buffer += data
        frames: list[bytes] = []
        at = 0
        while True:
            found = varint.decode_prefix(buffer, at)
            if found is None:
                break
            length, start = found
            if length > self._limit:
                raise PeerFault("frame-too-long", f"{length} bytes, at most {self._limit}")
            if len(buffer) - start < length:
                break
            frames.append(bytes(buffer[start : start + length]))
            at = start + length
        del buffer[:at]
        return frames

    @property
    def remainder(self) -> bytes:
        """The bytes behind the last whole frame."""
        return bytes(self._buffer)

    def finish(self) -> None:
        """Take note that the stream has ended.

        Raises:
            PeerFault: It ended inside a frame.
        """
        if self._buffer:
            raise PeerFault("frame-truncated")
