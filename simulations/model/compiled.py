"""Compiles the loops of the model with numba, and keeps what was compiled.

Without numba, or with `NUMBA_DISABLE_JIT=1`, the same functions run as plain Python: slow, but a
test compares both. Compiled code is kept in a folder named by a digest of all sources with kernels,
since numba itself looks only at the file of a function, not at those that it calls.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar, cast

import numpy as np
from platformdirs import user_cache_path

F = TypeVar("F", bound=Callable[..., Any])

Word: TypeAlias = Any
"""An unsigned 64-bit number in compiled code, where types are numba's and not mypy's."""

whole: Final = cast(Callable[[Any], int], np.int64)
"""Makes a signed 64-bit number, which is what an int is in compiled code."""

DIGEST_CHARS: Final = 16
"""Length of the name of the folder with compiled code."""


def _sources_digest() -> str:
    found = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        source = path.read_bytes()
        if b"@kernel" in source or b"@entry" in source:
            found.update(source)
    return found.hexdigest()[:DIGEST_CHARS]


def _compiler() -> Callable[..., Any] | None:
    """Return numba's compiler, or None if it is missing or switched off."""
    try:
        import numba
    except ImportError:
        return None
    settings: Any = numba.config
    if settings.DISABLE_JIT:
        return None
    if "NUMBA_CACHE_DIR" not in os.environ:
        folder = user_cache_path("shoal") / "compiled" / _sources_digest()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            pass  # numba looks for a place of its own
        else:
            settings.CACHE_DIR = str(folder)
    njit: Callable[..., Any] = numba.njit
    return njit


_njit = _compiler()

IS_COMPILED: Final = _njit is not None
"""Whether the loops run as machine code."""


def kernel(function: F) -> F:
    """Compile a function that others call; it must not make arrays.

    It counts no references: whoever called it holds all arrays. Counting them, at each call that
    hands on a tuple of arrays, took two thirds of a lookup's time.
    """
    if _njit is None:
        return function
    compiled: F = _njit(cache=True, nogil=True, _nrt=False)(function)
    return compiled


def entry(function: F) -> F:
    """Compile a function that Python calls, or that makes arrays.

    As plain Python it lets 64-bit words wrap, as machine code does.
    """
    if _njit is None:
        return np.errstate(over="ignore")(function)
    compiled: F = _njit(cache=True, nogil=True)(function)
    return compiled


# Words: hashes of numbers, and leading zeros.

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)
_S11 = np.uint64(11)
_S32 = np.uint64(32)
_ZERO: Final = np.uint64(0)


@kernel
def mix(word: Word) -> Word:
    """Return a word that looks random (the finaliser of SplitMix64)."""
    word = word + _GOLDEN
    word = (word ^ (word >> _S30)) * _FIRST
    word = (word ^ (word >> _S27)) * _SECOND
    return word ^ (word >> _S31)


@kernel
def draw(seed: Word, what: int, one: int, other: int) -> Word:
    """Return a random word that the seed, a purpose and two numbers decide."""
    word = mix(seed ^ np.uint64(what))
    word = mix(word ^ np.uint64(one))
    return mix(word ^ np.uint64(other))


@kernel
def share_of(word: Word) -> float:
    """Return a number in [0, 1) made of a random word."""
    return float(word >> _S11) * (1.0 / 9007199254740992.0)


@kernel
def below(word: Word, count: int) -> int:
    """Return a number below `count` (at most 2^32) made of a random word."""
    return whole(((word >> _S32) * np.uint64(count)) >> _S32)


@kernel
def leading_zeros(word: Word) -> int:
    """Return how many leading bits of a word are zero (64 for zero)."""
    if word == _ZERO:
        return 64
    found = 0
    for step in (32, 16, 8, 4, 2, 1):
        if word >> np.uint64(64 - step) == _ZERO:
            found += step
            word = word << np.uint64(step)
    return found
