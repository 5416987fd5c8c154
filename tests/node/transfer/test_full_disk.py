"""Disks that are full or break in the middle of a fetch."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from shoal.node.errors import ShoalError
from shoal.simulations import faults
from shoal.simulations.world import World
from shoal.wire.ids import Cid

Start = Callable[..., Awaitable[Any]]
SomeBytes = Callable[..., bytes]
MIB = 1 << 20


def failing(disk: Any, operation: str, code: int, times: int = 10**9, after: int = 0) -> None:
    """Let an operation on the files of a fetch fail so often, after so many good ones."""
    left = [after, times]

    def on_operation(name: str, _: str) -> None:
        if name != operation:
            return
        if left[0]:
            left[0] -= 1
        elif left[1]:
            left[1] -= 1
            raise OSError(code, os.strerror(code))

    disk.on_operation = on_operation


def waiting(machine: Any) -> str | None:
    """Return why the one fetch of a machine waits."""
    (fetch, _), *others = machine.node.transfers.fetches.values()
    assert not others
    reason = fetch.snapshot().waiting
    return None if reason is None else reason.kind


async def becomes(machine: Any, kind: str, seconds: float = 60) -> None:
    with trio.fail_after(seconds):
        while waiting(machine) != kind:  # noqa: ASYNC110 (nothing tells us)
            await trio.sleep(0.1)


async def slow_share(world: World, start: Start, data: bytes) -> tuple[Any, Any, str]:
    alice, bob = await start("alice"), await start("bob")
    alice.write("film", data)
    cid = await alice.share("film")
    faults.set_access(world.network, "alice", up=1e6)
    return alice, bob, cid


@pytest.mark.parametrize("operation", ["pwrite", "fdatasync", "sync", "rename"])
async def test_a_fetch_pauses_on_a_full_disk_and_goes_on_when_there_is_room(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes, operation: str
) -> None:
    data = some_bytes(6 * MIB + 5)
    alice, bob, cid = await slow_share(world, start, data)
    done: list[Any] = []

    async def get() -> None:
        done.append(await bob.get(cid, alice, patience=None))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(get)
        await trio.sleep(3)
        failing(bob.disk, operation, errno.ENOSPC)
        await becomes(bob, "disk full")
        await trio.sleep(100)
        assert not done
        bob.disk.on_operation = None

    assert bob.read("got") == data
    assert done[0].bytes == len(data)
    bob.assert_nothing_reserved()


async def test_after_a_failed_sync_what_it_may_have_lost_is_fetched_again(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    """Linux drops the pages that it could not write, and the next sync succeeds."""
    data = some_bytes(6 * MIB)
    alice, bob, cid = await slow_share(world, start, data)

    def forgetful(name: str, file: str) -> None:
        if name == "fdatasync" and file.startswith(".shoal-") and not lost:
            lost.append(file)
            node = bob.disk.folder(bob.write("x", b"").parent).open(file)._node
            node.data[:] = node.durable.ljust(len(node.data), b"\0")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    lost: list[str] = []
    bob.disk.on_operation = forgetful

    complete = await bob.get(cid, alice, patience=None)

    assert lost
    assert bob.read("got") == data
    assert complete.bytes == len(data)
    assert complete.wasted_bytes > 0
    bob.assert_nothing_reserved()


@pytest.mark.parametrize("operation", ["pwrite", "fdatasync"])
async def test_a_disk_that_breaks_ends_the_fetch_with_its_error(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes, operation: str
) -> None:
    data = some_bytes(6 * MIB)
    alice, bob, cid = await slow_share(world, start, data)
    failing(bob.disk, operation, errno.EIO, after=2)

    with pytest.raises(ShoalError) as caught:
        await bob.get(cid, alice)

    assert caught.value.code == 5
    bob.assert_nothing_reserved()
    bob.disk.on_operation = None
    await bob.get(cid, alice)  # the node lives, and the next try goes on
    assert bob.read("got") == data


async def test_too_little_room_is_said_at_once(
    autojump_clock: object, start: Start, some_bytes: SomeBytes
) -> None:
    alice, bob = await start("alice"), await start("bob", 4 * MIB)
    alice.write("film", some_bytes(6 * MIB))
    cid = await alice.share("film")

    with pytest.raises(ShoalError) as caught:
        await bob.get(cid, alice)

    assert caught.value.code == 5
    assert "free" in str(caught.value)
    bob.assert_nothing_reserved()


async def test_a_disk_filled_by_others_pauses_until_they_clean_up(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    data = some_bytes(8 * MIB)
    alice, bob, cid = await slow_share(world, start, data)
    bob.disk.capacity = 10 * MIB
    done: list[Any] = []

    async def get() -> None:
        done.append(await bob.get(cid, alice, patience=None))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(get)
        await trio.sleep(2.5)
        bob.disk.folder(bob.write("other", b"").parent).open("other").pwrite(bytes(4 * MIB), 0)
        await becomes(bob, "disk full")
        await trio.sleep(5)  # for what was on its way
        asked = alice.node.host.statistics()
        await trio.sleep(60)
        assert alice.node.host.statistics().bytes_out - asked.bytes_out < 20_000  # nothing wasted
        folder = bob.disk.folder(bob.write("x", b"").parent)
        folder.remove("other")
        folder.sync()

    assert bob.read("got") == data
    assert Cid.parse(cid) == Cid.parse(done[0].cid)
    bob.assert_nothing_reserved()
