"""Ids of nodes: the first 64 bits of their keys, sorted, without duplicates."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from .compiled import Word, kernel, whole

ID_BITS: Final = 64
"""Bits of a key that the model keeps; two of 10^9 random ids agree in them with odds of 3 %,
and are drawn again then."""

MAX_NODES: Final = 1 << 32
"""Nodes whose numbers fit into the 32 bits of the directory."""

BLOCK_IDS: Final = 16
"""Mean ids in one block of the directory, searched by halving."""

DRAWN_AT_ONCE: Final = 1 << 14
"""Mean ids drawn and sorted together, so that the sorting stays in the cache."""

_ONE = np.uint64(1)
_ZERO = np.uint64(0)


def stream(seed: int, purpose: str) -> np.random.Generator:
    """Return a random source that the seed and a purpose decide."""
    return np.random.Generator(
        np.random.PCG64(np.random.SeedSequence([seed, *purpose.encode("ascii")]))
    )


def random_ids(count: int, seed: int) -> NDArray[np.uint64]:
    """Return `count` different random ids, sorted.

    The key space is cut into equal blocks; how many ids fall into each is drawn first, then each
    block is drawn and sorted by itself. So 10^9 ids need no more memory than they take.
    """
    if not 0 < count < MAX_NODES:
        raise ValueError(f"{count} nodes: the model takes 1 to {MAX_NODES - 1}")
    chance = stream(seed, "ids")
    bits = max(0, (count // DRAWN_AT_ONCE).bit_length() - 1)
    sizes = chance.multinomial(count, np.full(1 << bits, 1.0 / (1 << bits)))
    ids = np.empty(count, np.uint64)
    at = 0
    for block, size in enumerate(sizes):
        ids[at : at + size] = _block(chance, block << (ID_BITS - bits), ID_BITS - bits, int(size))
        at += int(size)
    return ids


def _block(chance: np.random.Generator, start: int, bits: int, size: int) -> NDArray[np.uint64]:
    """Draw different ids of one range of the key space, sorted."""
    while True:
        last = (1 << bits) - 1
        drawn = chance.integers(0, last, size, dtype=np.uint64, endpoint=True)
        drawn.sort()
        if size < 2 or bool(np.all(drawn[1:] != drawn[:-1])):
            drawn += np.uint64(start)
            return drawn


def prefixes(keys: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the first 64 bits of keys that are rows of 32 bytes, in their order."""
    return np.ascontiguousarray(keys[:, :8]).view(">u8").reshape(-1).astype(np.uint64)


def check_sorted(ids: NDArray[np.uint64]) -> None:
    """Make sure that ids are sorted and different.

    Raises:
        ValueError: They are not; two keys may agree in their first 64 bits.
    """
    if not bool(np.all(ids[1:] > ids[:-1])):
        raise ValueError("ids must be sorted and different")


def directory_of(ids: NDArray[np.uint64]) -> tuple[NDArray[np.uint32], np.uint64]:
    """Return where each block of the key space begins, and the shift from an id to its block."""
    bits = max(1, (len(ids) // BLOCK_IDS).bit_length())
    starts = np.empty((1 << bits) + 1, np.uint32)
    step = 1 << 20  # blocks at once: the boundaries are 8 bytes each
    for first in range(0, 1 << bits, step):
        edges = np.arange(first, min(first + step, 1 << bits), dtype=np.uint64)
        edges <<= np.uint64(ID_BITS - bits)
        starts[first : first + len(edges)] = np.searchsorted(ids, edges)
    starts[-1] = len(ids)
    return starts, np.uint64(ID_BITS - bits)


@kernel
def first_from(
    ids: NDArray[np.uint64], directory: NDArray[np.uint32], shift: Word, word: Word
) -> int:
    """Return the number of the first id that is not below `word`."""
    block = whole(word >> shift)
    low = whole(directory[block])
    high = whole(directory[block + 1])
    while low < high:
        middle = (low + high) >> 1
        if ids[middle] < word:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def range_of(
    ids: NDArray[np.uint64], directory: NDArray[np.uint32], shift: Word, word: Word, bits: int
) -> tuple[int, int]:
    """Return the numbers [first, end) of the ids that share `bits` leading bits with a word."""
    if bits <= 0:
        return 0, len(ids)
    if bits >= ID_BITS:
        first = first_from(ids, directory, shift, word)
        return first, first + (1 if first < len(ids) and ids[first] == word else 0)
    low_bits = np.uint64(ID_BITS - bits)
    start = (word >> low_bits) << low_bits
    end = start + (_ONE << low_bits)
    first = first_from(ids, directory, shift, start)
    if end == _ZERO:
        return first, len(ids)
    return first, first_from(ids, directory, shift, end)
