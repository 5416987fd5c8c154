"""Homes with any mixture of damage: nothing wrong is claimed, nothing of the user's is touched."""

from __future__ import annotations

import hashlib
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoal.storage.disk import RealDisk
from shoal.storage.errors import DestinationExists
from shoal.storage.model import CopyState, tag_text
from shoal.storage.reader import CopyReader
from shoal.storage.store import Store

PIECE = 1 << 20
PAGE = 4096
TREE = {"a": b"alpha", "b": b"B" * PIECE + b"C", "e": b"", "in": {"d": b"delta"}}
MINE = {"x": b"mine" * 1000, "y": {"z": b"z" * 5000}}

fractions = st.floats(0, 1, exclude_max=True)
database_damage = st.one_of(
    st.just(("none",)),
    st.just(("delete",)),
    st.tuples(st.just("truncate"), fractions),
    st.tuples(st.just("pages"), fractions, st.integers(1, 3), st.integers(0, 99)),
)
wal_damage = st.one_of(
    st.just(("none",)), st.just(("delete",)), st.tuples(st.just("truncate"), fractions)
)
journal_damage = st.one_of(
    st.just(("none",)),
    st.just(("delete",)),
    st.tuples(st.just("cut"), st.integers(1, 400)),
    st.tuples(st.just("garbage"), st.integers(0, 5), st.binary(max_size=60)),
    st.tuples(st.just("drop line"), st.integers(0, 5)),
    st.tuples(st.just("twice")),
)


def damage_file(path: Path, how: tuple[Any, ...]) -> None:
    match how:
        case ("delete",):
            path.unlink(missing_ok=True)
        case ("truncate", fraction) if path.exists():
            path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
        case ("pages", fraction, count, seed) if path.exists():
            data = path.read_bytes()
            at = int(len(data) // PAGE * fraction) * PAGE
            garbage = random.Random(seed).randbytes(PAGE * count)
            path.write_bytes((data[:at] + garbage + data[at + len(garbage) :])[: len(data)])


def damage_journal(path: Path, how: tuple[Any, ...]) -> None:
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    match how:
        case ("delete",):
            path.unlink()
        case ("cut", count):
            path.write_bytes(data[:-count])
        case ("garbage", at, garbage):
            path.write_bytes(b"".join([*lines[:at], garbage + b"\n", *lines[at:]]))
        case ("drop line", at):
            path.write_bytes(b"".join([*lines[:at], *lines[at + 1 :]]))
        case ("twice",):
            path.write_bytes(data + data)


def claimed(store: Store) -> int:
    """Check every claimed piece of every copy; return how many there are."""
    count = 0
    for copy in store.copies():
        content = store.content(copy.cid)
        if content is None or content.pieces is None or copy.recheck:
            continue
        store.check_copy(copy.id)
        table = store.piece_table(copy.cid, 0)
        reader = CopyReader(store, copy.id)
        for piece in store.bits(copy.id).search(1):
            if table.lengths[piece]:  # type: ignore[union-attr]
                buffer = memoryview(bytearray(PIECE))
                length = reader.read(table, piece, buffer)  # type: ignore[arg-type]
                digest = hashlib.sha256(buffer[:length]).digest()
                assert digest == table.digest(piece)  # type: ignore[union-attr]
            count += 1
    return count


def resume(lab: Any, content: Any, path: Path) -> None:
    """Get a content again, as a node does: what is missing is written, and it is finished."""
    try:
        copy = lab.store.begin_fetch(content.cid, path, 9.0)
    except DestinationExists:
        assert path.exists()  # it is whole, and a stranger to this home: nothing is overwritten
        return
    if copy.finished:
        return
    writer = lab.begin(content, path)
    missing = lab.store.bits(copy.id).search(0)
    lab.write(writer, content, [piece for piece in missing if content.pieces[piece]])
    writer.finish()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    database=database_damage,
    wal=wal_damage,
    journal=journal_damage,
    checkpoint_at=st.integers(0, 3),
)
def test_any_damage_is_mended(
    tmp_path: Path,
    open_lab: Any,
    make_content: Any,
    read_tree: Any,
    database: tuple[Any, ...],
    wal: tuple[Any, ...],
    journal: tuple[Any, ...],
    checkpoint_at: int,
) -> None:
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    before, home = open_lab(RealDisk(), folder / "before"), folder / "home"
    before.store.close()
    before.store = Store.open(before.home, before.disk, 1.0, tag_text(b"tagged"))
    mine, album, gone = (make_content(tree) for tree in (MINE, TREE, b"gone"))

    def checkpoint(step: int) -> None:
        """Bring the database file itself up to date; what comes later is in the -wal only."""
        if step == checkpoint_at:
            before.store._connection.rows("PRAGMA wal_checkpoint(TRUNCATE)")

    before.put(folder / "mine", MINE)
    before.share(mine, folder / "mine")
    checkpoint(1)
    before.fetch(album, folder / "whole")
    before.store.remove_copy(before.fetch(gone, folder / "gone"))
    checkpoint(2)
    writer = before.begin(album, folder / "half")
    before.write(writer, album, [0])
    checkpoint(3)
    before.write(writer, album, [2])
    shutil.copytree(before.home, home)  # as a power cut leaves it: the -wal is not merged
    before.store.close()
    damage_file(home / "shoal.db", database)
    damage_file(home / "shoal.db-wal", wal)
    (home / "shoal.db-shm").unlink(missing_ok=True)
    damage_journal(home / "copies.jsonl", journal)

    lab = open_lab(RealDisk(), home)
    try:
        claimed(lab.store)
        lab.reopen()
        claimed(lab.store)
        resume(lab, album, folder / "half")
        resume(lab, album, folder / "whole")
        lab.share(mine, folder / "mine")
        assert lab.store.copies(mine.cid)[-1].state is CopyState.SHARED
        lab.reopen()
        assert claimed(lab.store) >= len(mine.pieces)
        for name, tree in (("mine", MINE), ("half", TREE), ("whole", TREE), ("gone", b"gone")):
            assert read_tree(lab.disk, folder / name) == tree
    finally:
        lab.store.close()
        shutil.rmtree(folder)
