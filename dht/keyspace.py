"""The space in which peers and contents are near or far: 256-bit keys under XOR.

A peer's key is the SHA-256 of its id, a content's the SHA-256 of its multihash (kad-dht
specification). Distances are integers; the smaller, the nearer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, MutableSequence, Sequence
from typing import Any, Final, Protocol, TypeVar

T = TypeVar("T")

KEY_BITS: Final = 256
K: Final = 20
"""Bucket size, copies of a record and size of an answer (kad-dht specification)."""

MAX_PREIMAGE_BITS: Final = 15
"""Longest prefix for which a key is searched by trying: 2^16 hashes, under 0.1 s."""


class Draw(Protocol):
    """The randomness that the rules need; `random.Random` has it."""

    def randbytes(self, n: int, /) -> bytes:
        """Return `n` random bytes."""
        ...

    def uniform(self, a: float, b: float) -> float:
        """Return a number between `a` and `b`."""
        ...

    def shuffle(self, x: MutableSequence[Any]) -> None:
        """Bring a list into random order."""
        ...

    def sample(self, population: Sequence[T], k: int) -> list[T]:
        """Return `k` different members."""
        ...


def key_of(data: bytes) -> bytes:
    """Return the 32-byte place of a peer id's bytes, a multihash or a record key."""
    return hashlib.sha256(data).digest()


def distance(one: bytes, other: bytes) -> int:
    """Return the XOR distance of two keys."""
    return int.from_bytes(one, "big") ^ int.from_bytes(other, "big")


def common_prefix(one: bytes, other: bytes) -> int:
    """Return how many leading bits two keys share (0 to 256)."""
    return KEY_BITS - distance(one, other).bit_length()


def nearest(items: Iterable[T], target: bytes, key: Callable[[T], bytes]) -> list[T]:
    """Return the items sorted by the distance of their key to `target`."""
    aim = int.from_bytes(target, "big")
    return sorted(items, key=lambda item: int.from_bytes(key(item), "big") ^ aim)


def preimage(prefix: int, bits: int, draw: Draw) -> bytes:
    """Return 34 bytes, formed like a peer id, whose key begins with the given bits.

    FIND_NODE carries what is to be hashed, never the key itself, so a place in the key space can
    only be asked for by something that hashes to it.

    Args:
        prefix: The leading bits, as a number below 2^bits.
        bits: How many; more than `MAX_PREIMAGE_BITS` are cut to that many.
        draw: The random source.
    """
    if bits > MAX_PREIMAGE_BITS:
        prefix >>= bits - MAX_PREIMAGE_BITS
        bits = MAX_PREIMAGE_BITS
    shift = 16 - bits
    stem = b"\x12\x20" + draw.randbytes(28)
    number = int.from_bytes(draw.randbytes(4), "big")
    sha256 = hashlib.sha256
    while True:
        made = stem + (number & 0xFFFFFFFF).to_bytes(4, "big")
        digest = sha256(made).digest()
        if ((digest[0] << 8 | digest[1]) >> shift) == prefix:
            return made
        number += 1
