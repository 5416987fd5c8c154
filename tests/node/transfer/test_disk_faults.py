"""Every way in which a disk or the database fails while a fetch runs, and what comes of it.

Whatever happens: nothing is claimed that is not there, the node lives, its owner is told in one
sentence, and the next try goes on where this one came to.
"""

from __future__ import annotations

import errno
import hashlib
import random
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from shoal.node.errors import ShoalError
from shoal.simulations import disk_faults, faults
from shoal.simulations.disk import MemoryDisk
from shoal.simulations.world import World
from shoal.storage.model import PieceTable
from shoal.storage.reader import CopyReader
from shoal.storage.store import Store

Start = Callable[..., Awaitable[Any]]
SomeBytes = Callable[..., bytes]
Fault = Callable[[MemoryDisk], None]
MIB = 1 << 20
HOME = Path("/home")
RATE = 2 * MIB
LATEST_SECONDS = 2.5
"""A verified piece is claimed after at most two batches of a second, and a look at the clock."""


def claimed(store: Store) -> int:
    """Check every claimed piece of every copy; return their bytes."""
    size = 0
    buffer = memoryview(bytearray(MIB))
    for copy in store.copies():
        content = store.content(copy.cid)
        if content is None or content.pieces is None:
            continue
        table = store.piece_table(copy.cid, 0)
        assert isinstance(table, PieceTable)
        reader = CopyReader(store, copy.id)
        for piece in store.bits(copy.id).search(1):
            if table.lengths[piece] == 0:  # an empty file is made at the end
                continue
            length = reader.read(table, piece, buffer)
            assert hashlib.sha256(buffer[:length]).digest() == table.digest(piece)
            size += length
    return size


def claimed_after_power_cut(disk: MemoryDisk, chance: random.Random) -> int:
    """Check what a power cut at this moment would leave; return the bytes that are claimed."""
    left = disk.after_power_cut(chance)
    store = Store.open(HOME, left, 1.0)
    try:
        return claimed(store)
    finally:
        store.close()
        left.close()


def waiting(machine: Any) -> str | None:
    (fetch, _), *others = machine.node.transfers.fetches.values()
    assert not others
    reason = fetch.snapshot().waiting
    return None if reason is None else str(reason.kind)


async def becomes(machine: Any, kind: str, seconds: float = 60) -> None:
    with trio.fail_after(seconds):
        while waiting(machine) != kind:  # noqa: ASYNC110 (nothing tells us)
            await trio.sleep(0.1)


@pytest.fixture
def contents(some_bytes: SomeBytes) -> dict[str, bytes]:
    files = {"album/film": some_bytes(5 * MIB + 77), "album/empty": b""}
    return files | {f"album/{n:02}": some_bytes(3000, n) for n in range(30)}


@pytest.fixture
async def pair(world: World, start: Start, contents: dict[str, bytes]) -> tuple[Any, Any, str]:
    """A machine that shares a folder through a thin line, and one that will fetch it."""
    alice, bob = await start("alice"), await start("bob")
    for name, data in contents.items():
        alice.write(name, data)
    cid = await alice.share("album")
    faults.set_access(world.network, "alice", up=float(RATE))
    return alice, bob, cid


async def fetched(bob: Any, alice: Any, cid: str, contents: dict[str, bytes]) -> Any:
    """Fetch to the end and check the outcome."""
    complete = await bob.get(cid, alice)
    assert bob.tree("got") == {n.removeprefix("album/"): data for n, data in contents.items()}
    bob.assert_nothing_reserved()
    return complete


async def test_a_power_cut_at_any_time_leaves_what_is_claimed(
    autojump_clock: object, pair: tuple[Any, Any, str], contents: dict[str, bytes], start: Start
) -> None:
    alice, bob, cid = pair
    chance = random.Random(1)
    verified: list[int] = []
    kept: list[int] = []
    done = trio.Event()

    async def get() -> None:
        await fetched(bob, alice, cid, contents)
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(get)
        while not done.is_set():
            running = list(bob.node.transfers.fetches.values())
            verified.append(running[0][0].done_bytes if running else 0)
            kept.append(claimed_after_power_cut(bob.disk, chance))
            await trio.sleep(0.1)

    size = sum(map(len, contents.values()))
    assert kept[-1] == size or claimed_after_power_cut(bob.disk, chance) == size
    assert any(0 < amount < size for amount in kept)
    for earlier, amount in zip(verified, kept[int(LATEST_SECONDS * 10) :], strict=False):
        assert amount >= earlier


async def test_a_fetch_goes_on_after_a_power_cut_without_what_is_claimed(
    autojump_clock: object,
    pair: tuple[Any, Any, str],
    contents: dict[str, bytes],
    start: Start,
    world: World,
) -> None:
    alice, bob, cid = pair
    size = sum(map(len, contents.values()))
    held = 0
    for seed, moment in enumerate((2.6, 0.7, 1.3)):
        with trio.move_on_after(moment):
            await bob.get(cid, alice)
        left = bob.disk.after_power_cut(random.Random(seed))
        bob.die()
        bob = await start(f"bob{seed}", disk=left)
        held = claimed(bob.node.store)
        assert held > 0
    complete = await fetched(bob, alice, cid, contents)
    assert sum(source.bytes for source in complete.sources) == size - held


@pytest.mark.parametrize("operation", ["pwrite", "fdatasync", "sync_all", "create"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
async def test_no_room_pauses_with_its_reason(
    autojump_clock: object,
    pair: tuple[Any, Any, str],
    contents: dict[str, bytes],
    operation: str,
    code: int,
) -> None:
    alice, bob, cid = pair
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetched, bob, alice, cid, contents)
        await trio.sleep(0.8)
        disk_faults.fail(bob.disk, operation, code)
        await becomes(bob, "disk full")
        await trio.sleep(30)
        claimed(bob.node.store)
        bob.disk.on_operation = None


BROKEN: dict[str, tuple[Fault, str]] = {
    "write": (lambda disk: disk_faults.fail(disk, "pwrite", errno.EIO), "error"),
    "sync": (lambda disk: disk_faults.fail_syncs(disk, errno.EIO), "error"),
    "sync once": (lambda disk: disk_faults.fail_syncs(disk, errno.EIO, 1), "error"),
    "sync all": (lambda disk: disk_faults.fail(disk, "sync_all", errno.EIO), "error"),
    "create": (lambda disk: disk_faults.fail(disk, "create", errno.EIO), "error"),
    "rename": (lambda disk: disk_faults.fail(disk, "rename", errno.EIO), "error"),
    "read-only": (disk_faults.make_read_only, "read-only"),
    "open files": (disk_faults.limit_open_files, "open files"),
}


@pytest.mark.parametrize("fault", BROKEN)
async def test_a_broken_disk_ends_the_fetch_in_one_sentence(
    autojump_clock: object, pair: tuple[Any, Any, str], contents: dict[str, bytes], fault: str
) -> None:
    alice, bob, cid = pair
    break_it, word = BROKEN[fault]
    ended: list[ShoalError] = []

    async def get() -> None:
        with pytest.raises(ShoalError) as caught:
            await bob.get(cid, alice)
        ended.append(caught.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(get)
        await trio.sleep(1.2)
        break_it(bob.disk)
    bob.disk.on_operation = None

    assert ended[0].code == 5
    assert "got" in str(ended[0])
    assert word in str(ended[0])
    assert "\n" not in str(ended[0])
    bob.assert_nothing_reserved()
    bob.disk.drop_unsynced()  # what no sync has kept may be gone
    claimed(bob.node.store)
    await fetched(bob, alice, cid, contents)  # the node lives


async def test_a_slow_disk_is_said_and_holds_up_nobody_else(
    autojump_clock: object, pair: tuple[Any, Any, str], contents: dict[str, bytes]
) -> None:
    alice, bob, cid = pair
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetched, bob, alice, cid, contents)
        await trio.sleep(1.2)
        disk_faults.slow_down(bob.disk, "pwrite", 30.0, times=3)
        await becomes(bob, "syncing")  # all has come, and waits for the disk
        for _ in range(10):
            with trio.fail_after(1.0):
                await alice.node.host.ping(bob.node.peer_id)
                (status,) = (e for e in await bob.node.status() if e.event == "status")
            assert (status.running, status.fetching) == (True, 1)
            await trio.sleep(1)
        assert waiting(bob) == "syncing"


# The database


async def test_a_database_without_room_pauses_the_fetch(
    autojump_clock: object, pair: tuple[Any, Any, str], contents: dict[str, bytes]
) -> None:
    alice, bob, cid = pair
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetched, bob, alice, cid, contents)
        await trio.sleep(1.2)
        disk_faults.fail_sql(bob.disk, "COMMIT", sqlite3.SQLITE_FULL)
        await becomes(bob, "disk full")
        asked = alice.node.host.statistics().bytes_out
        await trio.sleep(60)
        assert waiting(bob) == "disk full"
        assert alice.node.host.statistics().bytes_out - asked < 3 * RATE  # what was under way
        bob.disk.on_operation = None


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        (sqlite3.SQLITE_IOERR, 5),
        (sqlite3.SQLITE_READONLY, 5),
        (sqlite3.SQLITE_CORRUPT, 5),
        (sqlite3.SQLITE_BUSY, 6),
    ],
)
@pytest.mark.parametrize("word", ["COMMIT", "INSERT", "SELECT", "BEGIN"])
async def test_a_database_that_fails_ends_the_fetch_and_not_the_node(
    autojump_clock: object,
    pair: tuple[Any, Any, str],
    contents: dict[str, bytes],
    word: str,
    code: int,
    exit_code: int,
) -> None:
    alice, bob, cid = pair
    ended: list[ShoalError] = []

    async def get() -> None:
        with pytest.raises(ShoalError) as caught:
            await bob.get(cid, alice)
        ended.append(caught.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(get)
        await trio.sleep(1.2)
        disk_faults.fail_sql(bob.disk, word, code)
    bob.disk.on_operation = None

    assert ended[0].code == exit_code
    assert "database" in str(ended[0])
    bob.assert_nothing_reserved()
    await trio.sleep(60)
    with trio.fail_after(5):
        await alice.node.host.ping(bob.node.peer_id)
    claimed(bob.node.store)
    if code == sqlite3.SQLITE_CORRUPT:  # mended at the next start
        await bob.stop()
        await bob.start()
        assert any("moved to" in problem for problem in bob.node.problems)
    await fetched(bob, alice, cid, contents)
