"""Unsigned varints (multiformats): LEB128, shortest form only, at most 9 bytes (63 bits)."""

from __future__ import annotations

from .errors import Misuse, PeerFault

MAX_BYTES = 9
"""Longest encoding (multiformats unsigned-varint specification)."""

MAX_VALUE = (1 << 63) - 1


def encode(value: int) -> bytes:
    """Return `value` (0 to 2^63 - 1) as a varint."""
    if 0 <= value < 0x80:
        return bytes((value,))
    if not 0 <= value <= MAX_VALUE:
        raise Misuse(f"a varint holds 0 to 2^63 - 1, not {value}")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_prefix(data: bytes | bytearray | memoryview, offset: int = 0) -> tuple[int, int] | None:
    """Read a varint at `offset`: (value, offset behind it), or None if more bytes are needed.

    Raises:
        PeerFault: The varint is over 9 bytes or not in its shortest form.
    """
    value = 0
    shift = 0
    position = offset
    end = len(data)
    while position < end:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and shift:
                raise PeerFault("varint-not-minimal")
            return value, position
        shift += 7
        if position - offset >= MAX_BYTES:
            raise PeerFault("varint-too-long")
    return None


def decode(data: bytes | bytearray | memoryview, offset: int = 0) -> tuple[int, int]:
    """Read a whole varint at `offset`: (value, offset behind it).

    Raises:
        PeerFault: The varint is cut off, over 9 bytes or not in its shortest form.
    """
    found = decode_prefix(data, offset)
    if found is None:
        raise PeerFault("varint-truncated")
    return found
