"""Python's collector of cycles, while a network of millions of objects is built and run."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

YOUNG: Final = 50_000
"""New objects after which it looks at these; Python's 700 are a few requests (measured with 1000
nodes: a tenth of the time)."""


@contextmanager
def rare_collections() -> Iterator[None]:
    """Let the collector look rarely: what a network is made of lives as long as it does.

    It looks once before, since a network that is done with hangs together and goes in no other way.
    """
    gc.collect()
    before = gc.get_threshold()
    gc.set_threshold(YOUNG, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
