"""Compiled loops where numba is there; the same functions in plain Python where it is not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

F = TypeVar("F", bound=Callable[..., Any])

try:
    import numba
except ImportError:  # the extra `simulate` is not installed in full
    numba = None


def _sources() -> str:
    """Return a digest of all modules beside this one.

    numba keeps machine code by the file of the outermost function; it would miss that a function
    which that one calls has changed in another file.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


if numba is not None and not numba.config.CACHE_DIR:
    numba.config.CACHE_DIR = str(
        platformdirs.user_cache_path("shoal", appauthor=False) / "numba" / _sources()
    )


def compiled(function: F) -> F:
    """Compile a function of arrays when it is first called, and keep the machine code on disk.

    Only what means the same in plain Python may stand in it: no overflow, no set, no dictionary.
    """
    if numba is None:
        return function
    made: F = numba.njit(cache=True)(function)
    return made
