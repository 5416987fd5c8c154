"""Randomness that a seed and a name decide: the same for the same, in every process."""

from __future__ import annotations

import hashlib
import random


class SeededRandom:
    """A `RandomSource` for one node.

    Secrets are numbered, so that the answer depends on how many were asked for before; streams
    depend on their name alone.

    Args:
        seed: Of the whole simulation.
        owner: The node's name.
    """

    def __init__(self, seed: int, owner: str) -> None:
        self._root = hashlib.sha256(f"{seed}/{owner}".encode()).digest()
        self._secrets = 0

    def stream(self, name: str) -> random.Random:
        """Return a source for `name`, from its beginning."""
        return random.Random(hashlib.sha256(self._root + b"stream " + name.encode()).digest())

    def secret(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        self._secrets += 1
        label = b"secret %d" % self._secrets
        return hashlib.shake_256(self._root + label).digest(count)
