"""Which entries of a content are wanted: patterns, as `get --only` takes them.

A pattern without a slash is a name at any depth; one with a slash is a path from the content's
root, in which `**` stands for any number of folders. Either takes a folder with all that is below.
`*`, `?` and `[…]` match within one name, and case counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import translate
from typing import Final, Protocol

from bitarray import bitarray
from bitarray.util import zeros

from ..wire.errors import InvalidText
from ..wire.ids import Cid
from ..wire.walk import Entry, EntryKind
from .errors import NothingMatches
from .model import Content

MAX_PATTERNS: Final = 256
"""Of one copy; those of later calls are added to the earlier ones."""

MAX_PATTERN: Final = 4096
"""Characters: no path is longer."""

BATCH: Final = 1024
"""Entries looked at between two questions to the database."""

NAMED: Final = 8
"""Entries that are named when a pattern matches nothing."""

_Parts = tuple[re.Pattern[str] | None, ...]
"""A pattern for each name of a path; None = any number of names."""


class Known(Protocol):
    """What is asked of the index."""

    def content(self, cid: Cid) -> Content | None:
        """See `Store.content`."""

    def entries(self, cid: Cid, first: int, limit: int) -> list[Entry]:
        """See `Store.entries`."""
        ...


class Choice:
    """The patterns of one copy; see the top of the file.

    Args:
        patterns: At least one.

    Raises:
        InvalidText: One is empty, or there are too many.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        if len(patterns) > MAX_PATTERNS:
            raise InvalidText(f"more than {MAX_PATTERNS} patterns for one content: use wider ones")
        self._patterns = [(pattern, *_compiled(pattern)) for pattern in patterns]
        self.used: set[str] = set()
        """Patterns that have matched something."""

    def takes(self, path: str) -> bool:
        """Return whether an entry is wanted, by its path within the content."""
        names = path.split("/")
        taken = False
        for pattern, anywhere, parts in self._patterns:
            if taken and pattern in self.used:
                continue
            if any(_one(parts, name) for name in names) if anywhere else _leads(parts, names):
                self.used.add(pattern)
                taken = True
        return taken


def _compiled(pattern: str) -> tuple[bool, _Parts]:
    trimmed = pattern.removeprefix("./").strip("/")
    if not trimmed or len(pattern) > MAX_PATTERN or "\0" in pattern:
        raise InvalidText(f"{pattern[:40]!r} names no file: give a name or path such as '*.txt'")
    parts = tuple(
        None if name == "**" else re.compile(translate(name)) for name in trimmed.split("/")
    )
    anywhere = len(parts) == 1 and parts[0] is not None and not pattern.startswith(("/", "./"))
    return anywhere, parts


def _one(parts: _Parts, name: str) -> bool:
    return parts[0] is not None and parts[0].match(name) is not None


def _leads(parts: _Parts, names: Sequence[str]) -> bool:
    """Return whether a pattern matches a path, or a folder above it."""
    reached = {0}
    for name in names:
        ahead: set[int] = set()
        for at in _skipped(parts, reached):
            part = parts[at] if at < len(parts) else None
            if at == len(parts):
                return True
            if part is None:
                ahead.add(at)
            elif part.match(name):
                ahead.add(at + 1)
        reached = ahead
    return any(at == len(parts) for at in _skipped(parts, reached))


def _skipped(parts: _Parts, reached: Iterable[int]) -> Iterator[int]:
    """Yield the places in a pattern, and those behind each `**`, which may stand for nothing."""
    for at in reached:
        yield at
        while at < len(parts) and parts[at] is None:
            at += 1
            yield at


class Chosen:
    """What the patterns of a copy come to.

    Attributes:
        pieces: Those of the wanted files.
        size: Bytes of the wanted files.
    """

    def __init__(self, pieces: bitarray, size: int) -> None:
        self.pieces = pieces
        self.size = size


def chosen_of(store: Known, cid: Cid, only: Sequence[str] | None) -> Chosen | None:
    """Return what patterns come to in a content.

    None = everything is wanted, or its index is not complete.

    Raises:
        InvalidText: A pattern cannot be.
        NothingMatches: A pattern takes nothing, or the content is a single file.
    """
    content = store.content(cid)
    if only is None or content is None or not content.index_complete or content.pieces is None:
        return None
    choice = Choice(only)
    pieces, size = zeros(content.pieces, "big"), 0
    tops: list[str] = []
    for entry in entries_of(store, cid):
        if not entry.path:
            if entry.kind is not EntryKind.DIRECTORY:
                raise NothingMatches("the content is a single file: leave --only away to get it")
            continue
        if "/" not in entry.path and len(tops) <= NAMED:
            tops.append(entry.path)
        if choice.takes(entry.path) and entry.kind is EntryKind.FILE:
            pieces[entry.first_piece : entry.first_piece + entry.pieces] = 1
            size += max(0, entry.size)
    for pattern in only:
        if pattern not in choice.used:
            raise NothingMatches(f"nothing in the content matches {pattern!r}: {_listed(tops)}")
    return Chosen(pieces, size)


def _listed(tops: Sequence[str]) -> str:
    if not tops:
        return "it is an empty folder"
    more = ", and more" if len(tops) > NAMED else ""
    return f"it holds {', '.join(repr(name) for name in tops[:NAMED])}{more}"


def entries_of(store: Known, cid: Cid, only: Sequence[str] | None = None) -> Iterator[Entry]:
    """Yield the entries of a content in order: all, or the root and those that are wanted."""
    choice = Choice(only) if only is not None else None
    first = 0
    while batch := store.entries(cid, first, BATCH):
        for entry in batch:
            if choice is None or not entry.path or choice.takes(entry.path):
                yield entry
        first += len(batch)
