"""Compiled loops where numba is there; the same functions in plain Python where it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

try:
    import numba
except ImportError:  # the extra `simulate` is not installed in full
    numba = None


def compiled(function: F) -> F:
    """Compile a function of arrays when it is first called, and keep the machine code on disk.

    Only what means the same in plain Python may stand in it: no overflow, no set, no dictionary.
    """
    if numba is None:
        return function
    made: F = numba.njit(cache=True)(function)
    return made
