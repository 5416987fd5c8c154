"""Two machines behind one router meet without help, and stay on their own network."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from natlab.lab import Lab
from natlab.town import Host, Town, can_be_found, get, share, until, write_file

pytestmark = pytest.mark.processes

FILE_BYTES = 16 << 20


async def paths_of_a_get(sharer: Host, getter: Host, town: Town, name: str) -> list[str]:
    """Move a file by hash; return the paths between the two at its end, the best first."""
    file = town.folder / name
    digest = await trio.to_thread.run_sync(partial(write_file, file, FILE_BYTES))
    cid = await share(sharer, file)
    got = await get(getter, cid, town.folder / f"got-{name}", town=town)
    assert got.sha256 == digest
    return [str(row.path) for row in await getter.connections(sharer.peer_id)]


async def test_nothing_but_a_home_network(lab: Lab) -> None:
    """No node to join at, no relay: only the switch between them."""
    town = Town(lab, lab.folder)
    try:
        first = lab.restricted("desk")
        assert first.box is not None
        second = lab.host(first.box, "sofa")
        sharer = await trio.to_thread.run_sync(town.start, first, "restricted")
        getter = await trio.to_thread.run_sync(town.start, second, "restricted")
        paths = await paths_of_a_get(sharer, getter, town, "album")
        assert paths[0] == "lan"
    finally:
        town.close()


async def test_the_home_network_is_taken_although_the_world_knows_both(town: Town) -> None:
    """Both are seen at one public address, and a relay leads to them, too."""
    assert town.relay is not None
    first = town.lab.restricted("attic")
    assert first.box is not None
    second = town.lab.host(first.box, "cellar")
    via = ("--via", town.relay.address)
    sharer = await trio.to_thread.run_sync(
        partial(town.start, first, "restricted", *town.join, *via)
    )
    getter = await trio.to_thread.run_sync(partial(town.start, second, "restricted", *town.join))
    await until("the sharer has its relay", partial(can_be_found, sharer, town.relay.peer_id))
    paths = await paths_of_a_get(sharer, getter, town, "film")
    assert paths[0] == "lan"
