"""Opening a home: a damaged database is set aside; database, journal and disk are made to agree.

The journal is never ahead of the database but in two ways: a removal that a crash cut short (it
stands in the journal first), and copies that a lost database does not know.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..wire.errors import InvalidText
from ..wire.ids import Cid
from .copy_files import signed_stat
from .database import DATABASE_NAME, Connection, open_database
from .errors import Damaged, disk_errors
from .filesystem import Disk, FileKind, Folder
from .model import Announce, Copy, CopyState

if TYPE_CHECKING:
    from .store import Store

MAX_PROBLEMS: Final = 200
"""Sentences about what was found at start; the last says how many more there are."""

_LOST_REASON: Final = "the database was lost: its files are to be hashed again"


def open_or_set_aside(
    disk: Disk, home: Path, folder: Folder, known_damaged: bool
) -> tuple[Connection, list[str]]:
    """Open the database; one that is damaged is moved aside and a new one begun."""
    path = home / DATABASE_NAME
    try:
        if known_damaged:
            raise Damaged("the database was found damaged when it was last used")
        return open_database(disk, path, _size(folder)), []
    except Damaged as damage:
        aside = _set_aside(folder)
        problem = (
            f"{damage}. It was moved to {home / aside}; copies are found again by "
            "copies.jsonl, hashes, bans and remembered peers are lost"
        )
        return open_database(disk, path, 0), [problem]


def _size(folder: Folder) -> int:
    try:
        return folder.stat(DATABASE_NAME).size
    except FileNotFoundError:
        return 0


def _set_aside(folder: Folder) -> str:
    """Move the database and its side files to names that are free; return the database's."""
    with disk_errors("moving the damaged database aside"):
        names = set(folder.names())
        number = 1
        while any(name.startswith(f"{DATABASE_NAME}.damaged-{number}") for name in names):
            number += 1
        aside = f"{DATABASE_NAME}.damaged-{number}"
        for suffix in ("", "-wal", "-shm"):
            if DATABASE_NAME + suffix in names:
                folder.rename(DATABASE_NAME + suffix, folder, aside + suffix)
        folder.sync()
    return aside


def reconcile(store: Store, now: float) -> list[str]:
    """Bring database, journal and disk to agree; return what had to be said."""
    problems: list[str] = []
    copies: list[Copy] = []
    for copy in store.copies():
        if copy.id in store.journal.removed:
            store.remove_copy(copy.id)  # a crash came in between
            continue
        if _is_behind(store, copy):
            store.copy_rows.finish_unseen(copy.id, _LOST_REASON)
            problems.append(f"the database is older than copies.jsonl: {copy.path} is hashed again")
            copy = store.copy_rows.get(copy.id) or copy
        copies.append(copy)
        if copy.id not in store.journal.copies:
            store.journal.added(copy, now)
    problems += _recover_lost(store, {copy.id for copy in copies})
    problems += _check_places(store, copies)
    if store.journal.damaged:
        problems.insert(0, f"{store.journal.damaged} lines of copies.jsonl cannot be read")
    if len(problems) > MAX_PROBLEMS:
        problems[MAX_PROBLEMS - 1 :] = [f"and {len(problems) - MAX_PROBLEMS + 1} more problems"]
    return problems


def _is_behind(store: Store, copy: Copy) -> bool:
    """Return whether the journal knows that a copy was finished, and the database does not.

    The journal learns of it last, so the database's last changes were lost (its -wal file).
    """
    noted = store.journal.copies.get(copy.id)
    return (
        noted is not None
        and noted.state is CopyState.COMPLETE
        and not copy.finished
        and not _exists(store, copy.place)
        and _exists(store, copy.path)
    )


def _recover_lost(store: Store, known: set[int]) -> list[str]:
    """Add what only the journal knows; its bits are lost, its bytes probably not."""
    lost = [entry for entry in store.journal.copies.values() if entry.id not in known]
    store.copy_rows.skip_ids(max([0, *store.journal.copies, *store.journal.removed]))
    recovered = 0
    for entry in sorted(lost, key=lambda entry: -entry.id):
        try:
            cid = Cid.parse(entry.cid)
        except InvalidText:
            store.journal.damaged += 1
            continue
        if store.copy_rows.at(cid, Path(entry.path)) is not None:
            store.journal.drop(entry.id)  # of two for one place, the older was removed
            continue
        copy = Copy(
            *(entry.id, cid, Path(entry.path), entry.state, None, True, entry.tag),
            *(entry.only, entry.order),
        )
        store.ensure_content(cid, copy.path.name)
        state = copy.state
        if not copy.finished and not _exists(store, copy.place) and _exists(store, copy.path):
            state = CopyState.COMPLETE  # it was moved, and that was not yet written down
        unfinished = state in (CopyState.FETCHING, CopyState.PAUSED)
        reason = None if unfinished else _LOST_REASON
        store.set_announce(cid, store.journal.announce.get(str(cid), Announce.BLINDED))
        store.copy_rows.insert_known(replace(copy, reason=reason), state, entry.added)
        recovered += 1
    if not recovered:
        return []
    return [
        f"the database did not know {recovered} of the copies in copies.jsonl: "
        "they are hashed again, or fetched on"
    ]


def _is_empty(store: Store, place: Path) -> bool:
    with disk_errors(f"looking at {place}"):
        found = store.disk.stat(place)
        if found.kind is FileKind.FOLDER:
            return not store.disk.folder(place).names()
    return found.size == 0


def _exists(store: Store, path: Path) -> bool:
    try:
        store.disk.stat(path)
    except OSError:
        return False
    return True


def _check_places(store: Store, copies: Iterable[Copy]) -> list[str]:
    """Look for every copy's root, by one stat each."""
    problems: list[str] = []
    lost = store.copy_rows.lost()
    for copy in copies:
        if not copy.finished:
            problems += _ask_recheck(store, copy) or check_unfinished(store, copy)
        elif (
            not store.copy_rows.check_root(copy, copy.id in lost)
            and copy.state is not CopyState.DEGRADED
        ):
            problems.append(
                f"{copy.path} is gone: it is not served; if it comes back, it is again after a "
                f"restart, and shoal rm {copy.cid} forgets it"
            )
    return problems


def _ask_recheck(store: Store, copy: Copy) -> list[str]:
    """Have a working path hashed that the database does not remember to have made.

    It remembers before anything is written there, so its last changes were lost (its -wal file).
    Only a name with the home's tag is trusted so far, and only at start.
    """
    if (
        copy.recheck
        or not copy.tag
        or store.working_inode(copy.id) is not None
        or not _exists(store, copy.place)
        or _is_empty(store, copy.place)
    ):
        return []
    store.copy_rows.ask_recheck(copy.id)
    return [f"{copy.place} holds more than the database knows: it is hashed again"]


def check_unfinished(store: Store, copy: Copy) -> list[str]:
    """Find an unfinished copy at its working path, or at its final one after a crash.

    A crash or an error came after the move and before its commit: that is done now.
    """
    if _exists(store, copy.place) or copy.recheck:
        return []
    ours = store.working_inode(copy.id)
    if ours is None:
        return []
    try:
        moved = signed_stat(store.disk.stat(copy.path)).inode == ours
    except OSError:
        moved = False
    if moved and (copy.only is not None or copy.reopened):
        return []  # more may be wanted than is there: the fetch takes it back, and finds out
    if moved:
        with disk_errors(f"finishing {copy.path}"):
            store.disk.folder(copy.path.parent).sync()
        store.finish_copy(copy.id)
        return store.check_copy(copy.id)
    if held := store.copy_rows.lose_root(copy.id):
        return [f"the unfinished {copy.place} is gone: {held} pieces of it are fetched again"]
    return []
