"""Limits as their owner sets them: at once, for a scope, over a restart."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from shoal import Node
from shoal.node.config import Config
from shoal.node.errors import NotFound, UsageError
from shoal.node.events import Limit
from shoal.wire.ids import Cid

from .conftest import HOME

Start = Callable[..., Awaitable[Any]]
SomeBytes = Callable[..., bytes]
MB = 1_000_000


async def test_limits_are_shown_changed_and_kept_over_a_restart(
    autojump_clock: object, start: Start, some_bytes: SomeBytes
) -> None:
    alice = await start("alice")
    alice.write("film", some_bytes(1000))
    cid = await alice.share("film")
    assert await alice.node.limit() == [
        Limit("node", None, None, None),
        Limit("peer", None, None, None),
    ]
    assert await alice.node.limit(up="2MB") == [Limit("node", None, 2 * MB, None)]
    assert await alice.node.limit(each_peer=True, down="1MB") == [Limit("peer", None, None, MB)]
    assert await alice.node.limit(f"shoal:{cid}", up="3kB", down="none") == [
        Limit("content", cid, 3000, None)
    ]
    for _ in range(2):
        assert await alice.node.limit() == [
            Limit("node", None, 2 * MB, None),
            Limit("peer", None, None, MB),
            Limit("content", cid, 3000, None),
        ]
        up, down = alice.node.transfers.limits.up, alice.node.transfers.limits.down
        assert not up.free
        assert not down.free
        assert sorted(bucket.rate for bucket in up.of_content(Cid.parse(cid))) == [3000, 2 * MB]
        assert down.of_peer(alice.node.peer_id).rate == MB
        await alice.stop()
        await alice.start()


async def test_a_limit_set_goes_before_the_settings_until_it_is_default(
    autojump_clock: object, start: Start
) -> None:
    alice = await start("alice", up_limit="5MB")
    assert (await alice.node.limit())[0].up == 5 * MB
    assert (await alice.node.limit(up="none"))[0].up is None
    assert alice.node.transfers.limits.up.free
    assert (await alice.node.limit(up="default"))[0].up == 5 * MB
    assert not alice.node.transfers.limits.up.free


async def test_a_limit_set_while_bytes_flow_slows_them_and_lifted_frees_them(
    autojump_clock: object, start: Start, some_bytes: SomeBytes
) -> None:
    alice, bob = [await start(name) for name in ("alice", "bob")]
    alice.write("film", some_bytes(8 * MB))
    cid = await alice.share("film")
    await alice.node.limit(up="1MB")
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bob.get, cid, alice)
        await trio.sleep(3)
        assert (await bob.node.ls())[0].state != "complete"
        await alice.node.limit(up="none")
    assert 3 <= trio.current_time() - begun <= 4


async def test_a_contents_limit_goes_with_its_last_copy(
    autojump_clock: object, start: Start, some_bytes: SomeBytes
) -> None:
    alice = await start("alice")
    alice.write("film", some_bytes(1000))
    cid = await alice.share("film")
    await alice.node.limit(cid, up="1MB")
    await alice.node.rm(cid)
    assert len(await alice.node.limit()) == 2
    assert alice.node.transfers.limits.up.free


async def test_mistakes_change_nothing_and_say_what_is_right(
    autojump_clock: object, start: Start
) -> None:
    alice = await start("alice")
    nobody = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
    with pytest.raises(UsageError, match="500kB"):
        await alice.node.limit(up="1MB", down="fast")
    with pytest.raises(UsageError, match="each peer"):
        await alice.node.limit(nobody, each_peer=True)
    with pytest.raises(UsageError):
        await alice.node.limit("film")
    with pytest.raises(NotFound, match="shoal ls"):
        await alice.node.limit(nobody, up="1MB")
    assert (await alice.node.limit())[0] == Limit("node", None, None, None)


async def test_limits_can_be_set_without_a_network(autojump_clock: object, start: Start) -> None:
    alice = await start("alice")
    await alice.stop()
    environment = alice.world.environment("alice", disk=alice.disk)
    async with Node(HOME, config=Config(), offline=True, environment=environment) as node:
        assert await node.limit(up="1MB") == [Limit("node", None, MB, None)]
    await alice.start()
    assert not alice.node.transfers.limits.up.free
