"""Names that a file system cannot tell apart, and links that would leave their content."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from ..wire.walk import Entry
from .errors import NameCollision
from .filesystem import Folder

_PROBE: Final = ".shoal-Prob\u00e9"


def refuse_collisions(folder: Folder, entries: Iterable[Entry]) -> None:
    """Raise NameCollision if two entries would be one file in this folder's file system.

    Only where upper and lower case are one is every name looked at (about 70 bytes of memory for
    each); what differs in Unicode normalisation only counts as equal there, too.
    """
    if not merges_names(folder):
        return
    seen: dict[int, str] = {}
    for entry in entries:
        folded = hash(unicodedata.normalize("NFC", entry.path.casefold()))
        if folded in seen:
            raise NameCollision(
                f"{seen[folded]!r} and {entry.path!r} would be one file on this disk, which "
                "does not tell upper and lower case apart: choose another disk with -o"
            )
        seen[folded] = entry.path


def merges_names(folder: Folder) -> bool:
    """Try whether a file system takes different names for one: by case, or by normalisation."""
    with suppress(FileExistsError):  # a crash left it
        folder.create(_PROBE)
    try:
        return any(
            _there(folder, name)
            for name in (_PROBE.swapcase(), unicodedata.normalize("NFD", _PROBE))
        )
    finally:
        folder.remove(_PROBE)


def _there(folder: Folder, name: str) -> bool:
    try:
        folder.stat(name)
    except FileNotFoundError:
        return False
    return True


def stays_inside(path: str, target: str) -> bool:
    """Return whether a link at `path` (within its content) leads to a place in the content.

    Steps up are only taken at the target's beginning, where they pass real folders; behind a name
    (`a/../b`) they could start from wherever a link called `a` leads.
    """
    steps = [step for step in target.split("/") if step not in ("", ".")]
    if target.startswith("/") or not target:
        return False
    ups = 0
    while ups < len(steps) and steps[ups] == "..":
        ups += 1
    return ".." not in steps[ups:] and ups <= path.count("/") and path != ""
