"""File names that strangers chose."""

from __future__ import annotations

from typing import Final

from .errors import ContentRefused

MAX_NAME_BYTES: Final = 255
"""Longest name that the usual file systems hold (NAME_MAX)."""

_FORBIDDEN: Final = frozenset("/\\\0")


def safe_component(name: str) -> None:
    """Check that a name is one plain component of a path.

    Raises:
        ContentRefused: It is empty, `.`, `..`, too long, or has a slash, a backslash or a NUL.
    """
    if name in ("", ".", ".."):
        raise ContentRefused(f"an entry is named {name!r}, which could lead out of its folder")
    if not _FORBIDDEN.isdisjoint(name):
        raise ContentRefused(f"the name {name[:80]!r} has a slash, a backslash or a NUL in it")
    if len(name) > MAX_NAME_BYTES or len(name.encode()) > MAX_NAME_BYTES:
        raise ContentRefused(f"the name {name[:80]!r}… is over {MAX_NAME_BYTES} bytes long")
