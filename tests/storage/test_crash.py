"""Power cuts and failing disks, at every single operation of a fetch."""

from __future__ import annotations

import errno
import hashlib
import signal
import sqlite3
import subprocess
import sys
from copy import copy as duplicate
from pathlib import Path
from random import Random
from typing import Any

import pytest

from shoal.simulations.disk import MemoryDisk
from shoal.storage.disk import RealDisk
from shoal.storage.errors import StorageError
from shoal.storage.model import CopyState
from shoal.storage.reader import CopyReader
from shoal.storage.store import Store

PIECE = 1 << 20
OUT = Path("/d/out")


class PowerCut(Exception):
    """The power is cut in the middle of an operation."""


def stop_at(disk: MemoryDisk, number: int, error: Exception) -> list[str]:
    """Let the operation with this number fail; return the list of what was done."""
    done: list[str] = []

    def before(operation: str, name: str) -> None:
        in_database = operation == "sql"
        if isinstance(error, (OSError, sqlite3.Error)):
            if in_database != isinstance(error, sqlite3.Error):
                return
        elif in_database and not name.startswith(("BEGIN", "COMMIT", "INSERT", "UPDATE")):
            return  # whether the power is cut before or after a question makes no difference
        done.append(operation)
        if len(done) == number:
            raise duplicate(error)  # else its traceback would keep every disk

    disk.on_operation = before
    return done


def claimed_bytes_are_there(store: Any) -> int:
    """Check every claimed piece of every copy; return how many there are."""
    count = 0
    for copy in store.copies():
        reader = CopyReader(store, copy.id)
        if store.content(copy.cid).pieces is None:
            assert not store.bits(copy.id).any()
            continue
        table = store.piece_table(copy.cid, 0)
        for piece in store.bits(copy.id).search(1):
            buffer = memoryview(bytearray(PIECE))
            length = reader.read(table, piece, buffer)
            assert hashlib.sha256(buffer[:length]).digest() == table.digest(piece), piece
            count += 1
    return count


def fetch_in_steps(lab: Any, content: Any) -> None:
    """Fetch what is missing, one piece a batch, and finish."""
    copy = lab.store.begin_fetch(content.cid, OUT, lab.now)
    if copy.state is CopyState.COMPLETE:
        return
    writer = lab.begin(content, OUT)
    for piece in lab.store.bits(copy.id).search(0):
        if content.pieces[piece]:
            lab.write(writer, content, [piece])
    writer.finish()


@pytest.fixture(params=["file", "folder"])
def content(request: pytest.FixtureRequest, make_content: Any) -> Any:
    if request.param == "file":
        return make_content(b"1" * PIECE + b"2" * 99)
    link = make_content.Link
    return make_content(
        {"a": b"a" * PIECE + b"aa", "e": b"", "in": {"b": b"b", "l": link("../a")}, "void": {}}
    )


@pytest.mark.parametrize("torn", [False, True])
def test_a_power_cut_anywhere_costs_no_claimed_piece(
    open_lab: Any, content: Any, read_tree: Any, torn: bool
) -> None:
    number = 0
    expected = None
    while True:
        number += 1
        disk = MemoryDisk()
        lab = open_lab(disk, Path("/home"))
        stop_at(disk, number, PowerCut())
        try:
            fetch_in_steps(lab, content)
            over = True
        except PowerCut:
            over = False
        disk.on_operation = None
        disk.crash(Random(number) if torn else None)
        lab.store = Store.open(lab.home, disk, 2.0)
        claimed_bytes_are_there(lab.store)
        fetch_in_steps(lab, content)
        assert len(lab.store.copies()) == 1
        made = read_tree(disk, OUT)
        expected = expected or made
        assert made == expected
        assert disk.folder(OUT.parent).names() == ["out"]
        lab.store.close()
        disk.close()
        if over:
            break
    assert number > 20


def test_the_tree_after_all_cuts_is_the_content(lab: Any, content: Any, read_tree: Any) -> None:
    fetch_in_steps(lab, content)
    assert claimed_bytes_are_there(lab.store) == len(content.pieces)
    made = read_tree(lab.disk, OUT)
    assert made == content.files[0] if isinstance(made, bytes) else made["void"] == {}


def sqlite_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("simulated")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "broken"),
        OSError(errno.ENOSPC, "full"),
        sqlite_error(sqlite3.SQLITE_FULL),
        sqlite_error(sqlite3.SQLITE_BUSY),
    ],
    ids=str,
)
def test_an_error_at_any_operation_is_said_and_can_be_retried(
    open_lab: Any, content: Any, read_tree: Any, error: Exception
) -> None:
    number = 0
    expected = None
    while True:
        number += 1
        disk = MemoryDisk()
        lab = open_lab(disk, Path("/home"))
        stop_at(disk, number, error)
        try:
            fetch_in_steps(lab, content)
            failed = False
        except StorageError:
            failed = True
        over = not failed and number > 40
        disk.on_operation = None
        lab.store.begin_fetch(content.cid, OUT, lab.now)
        claimed_bytes_are_there(lab.store)
        fetch_in_steps(lab, content)
        made = read_tree(disk, OUT)
        expected = expected or made
        assert made == expected
        lab.store.close()
        disk.close()
        if over:
            break


def test_finish_can_be_repeated_after_an_error_at_each_of_its_steps(
    open_lab: Any, content: Any, read_tree: Any
) -> None:
    number, failures = 0, 0
    while True:
        number += 1
        disk = MemoryDisk()
        lab = open_lab(disk, Path("/home"))
        writer = lab.begin(content, OUT)
        lab.write(writer, content, [i for i, data in enumerate(content.pieces) if data])
        done = stop_at(disk, number, OSError(errno.EIO, "broken"))
        try:
            writer.finish()
        except StorageError:
            failures += 1
            disk.on_operation = None
            writer.finish()
        disk.on_operation = None
        assert lab.store.copies()[0].state is CopyState.COMPLETE
        assert disk.folder(OUT.parent).names() == ["out"]
        assert lab.reopen().problems == []
        lab.store.close()
        disk.close()
        if len(done) < number:
            break
    assert failures >= 5


WRITER = """
import sys
from copy import copy as duplicate
from pathlib import Path
from shoal.storage.disk import RealDisk
from shoal.storage.store import Store
from shoal.storage.writer import CopyWriter
from shoal.wire.ids import Cid

home, out, cid, pieces = Path(sys.argv[1]), Path(sys.argv[2]), Cid.parse(sys.argv[3]), sys.argv[4]
store = Store.open(home, RealDisk(), 1.0)
copy = store.begin_fetch(cid, out, 1.0)
writer = CopyWriter(store, copy.id)
writer.prepare()
print("ready", flush=True)
for piece in range(int(pieces)):
    writer.write(0, piece << 20, bytes((piece,)) * (1 << 20))
    writer.sync()
    store.set_bits(copy.id, [piece])
    print(piece, flush=True)
"""


@pytest.mark.parametrize("until", [0, 3, 7])
def test_a_killed_process_leaves_what_it_claimed(
    open_lab: Any, make_content: Any, tmp_path: Path, until: int
) -> None:
    content = make_content(b"".join(bytes((piece,)) * PIECE for piece in range(200)))
    lab = open_lab(RealDisk(), tmp_path / "home")
    lab.store.begin_fetch(content.cid, tmp_path / "out", 1.0)
    lab.learn(content)
    lab.store.close()
    arguments = [str(tmp_path / "home"), str(tmp_path / "out"), str(content.cid), "200"]
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == str(until):
                break
        process.send_signal(signal.SIGKILL)
    lab.store = Store.open(tmp_path / "home", RealDisk(), 2.0)
    assert lab.store.problems == []
    assert claimed_bytes_are_there(lab.store) >= until + 1
    writer = lab.begin(content, tmp_path / "out")
    lab.write(writer, content, list(lab.store.bits(1).search(0)))
    writer.finish()
    assert (tmp_path / "out").read_bytes() == content.files[0]
