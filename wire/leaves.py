"""From the root of a file to the hashes of its leaves, without holding the whole tree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .ids import Cid


@dataclass(frozen=True, slots=True)
class Missing:
    """Inner nodes that must be had first."""

    cids: list[Cid]


def leaf_range(
    root: Cid, size: int, first: int, count: int, node: Callable[[Cid], bytes | None]
) -> list[bytes] | Missing:
    """Return the 32-byte digests of the leaves `first` to `first + count` of a file.

    Args:
        root: The file's CID; a raw one is its own only leaf.
        size: Bytes of the file, as its entry says.
        first: Number of the first leaf within the file.
        count: How many leaves; the range must lie inside the file.
        node: Looks up a verified inner node by its CID; None if we do not have it.

    Raises:
        ContentRefused: The file does not have the profile's exact shape.
    """
    raise NotImplementedError
