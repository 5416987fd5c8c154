"""Folders of many small files: served and written many at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from shoal.node.errors import ShoalError

Start = Callable[..., Awaitable[Any]]
FOLDERS, FILES = 20, 25


def put_files(machine: Any) -> dict[str, bytes]:
    files = {
        f"part {part}/{number:03}": b"%d of %d " % (number, part) * (number + 1)
        for part in range(FOLDERS)
        for number in range(FILES)
    }
    files["part 0/large"] = bytes(range(256)) * 5000
    files["part 1/empty"] = b""
    for name, data in files.items():
        machine.write(f"album/{name}", data)
    return files


def files_of(tree: dict[str, Any]) -> dict[str, bytes]:
    return {name: data for name, data in tree.items() if isinstance(data, bytes)}


@pytest.mark.parametrize("cores", [1, 8])
async def test_many_small_files_come_out_as_they_went_in(
    autojump_clock: object, start: Start, cores: int
) -> None:
    alice, bob = await start("alice"), await start("bob")
    bob.node.transfers.cores = cores
    files = put_files(alice)
    cid = await alice.share("album")
    complete = await bob.get(cid, alice)
    assert files_of(bob.tree("got")) == files
    assert complete.wasted_bytes == 0
    assert sum(source.pieces for source in complete.sources) <= len(files) + 1
    bob.assert_nothing_reserved()


async def test_a_small_file_that_was_changed_is_withdrawn_and_the_others_come(
    autojump_clock: object, start: Start
) -> None:
    alice, carol, bob = await start("alice"), await start("carol"), await start("bob")
    files = put_files(alice)
    put_files(carol)
    cid = await alice.share("album")
    assert await carol.share("album") == cid
    alice.write("album/part 3/007", b"something else")

    with pytest.raises(ShoalError):
        await bob.get(cid, alice, patience=60)
    held = alice.node.store.bits(alice.node.store.copies()[0].id)
    assert held.count(0) == 1
    await bob.get(cid, alice, carol)

    assert files_of(bob.tree("got")) == files
