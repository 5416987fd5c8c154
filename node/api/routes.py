"""The requests of the control socket, and what each asks of the node.

Every answer is a row of events, one JSON object a line (NDJSON), the same as with `--json`. An
error before the first event is the answer's status and only line; later, it is the last line.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import get_args

from ..client import Client, Events, HashName, Links, OnLeave, Order
from ..events import Event
from .arguments import Arguments

Rows = AsyncGenerator[Event, None]
Route = Callable[[Client, Arguments], Rows]

HASHES: tuple[HashName, ...] = get_args(HashName)
LINKS: tuple[Links, ...] = get_args(Links)
ORDERS: tuple[Order, ...] = get_args(Order)
ON_LEAVE: tuple[OnLeave, ...] = get_args(OnLeave)


def _share(client: Client, asked: Arguments) -> Rows:
    path = asked.text("path")
    operation = client.share(
        path,
        hash_only=asked.flag("hash_only", False),
        public=asked.flag("public", False),
        announce=asked.flag("announce", True),
        hidden=asked.flag("hidden", True),
        skip_special=asked.flag("skip_special", False),
        peers=asked.texts("peers"),
        hash=asked.choice("hash", HASHES),
    )
    asked.done()
    return aiter(operation)


def _get(client: Client, asked: Arguments) -> Rows:
    operation = client.get(
        asked.text("target"),
        asked.text("destination"),
        peers=asked.texts("peers"),
        timeout=asked.seconds("timeout"),
        links=asked.choice("links", LINKS),
        only=asked.texts("only"),
        order=asked.choice("order", ORDERS),
        leave=asked.choice("leave", ON_LEAVE),
    )
    asked.done()
    return aiter(operation)


def _verify(client: Client, asked: Arguments) -> Rows:
    cid, path = asked.text("cid"), asked.maybe_text("path")
    asked.done()
    return _all(client.verify(cid, path))


def _find_providers(client: Client, asked: Arguments) -> Rows:
    cid = asked.text("cid")
    asked.done()
    return _all(client.dht_find_providers(cid))


def _events(client: Client, asked: Arguments) -> Rows:
    asked.done()
    return client.events()


async def _id(client: Client, asked: Arguments) -> Rows:
    asked.done()
    yield await client.id()


def _ls(client: Client, asked: Arguments) -> Rows:
    asked.done()
    return _rows(client.ls)


def _status(client: Client, asked: Arguments) -> Rows:
    asked.done()
    return _rows(client.status)


def _peers(client: Client, asked: Arguments) -> Rows:
    asked.done()
    return _rows(client.peers)


def _table(client: Client, asked: Arguments) -> Rows:
    asked.done()
    return _rows(client.dht_table)


async def _rm(client: Client, asked: Arguments) -> Rows:
    cid, path = asked.text("cid"), asked.maybe_text("path")
    delete_data = asked.flag("delete_data", False)
    asked.done()
    for row in await client.rm(cid, path, delete_data=delete_data):
        yield row


async def _pause(client: Client, asked: Arguments) -> Rows:
    cid, path = asked.text("cid"), asked.maybe_text("path")
    asked.done()
    for row in await client.pause(cid, path):
        yield row


async def _resume(client: Client, asked: Arguments) -> Rows:
    cid, path = asked.text("cid"), asked.maybe_text("path")
    asked.done()
    for row in await client.resume(cid, path):
        yield row


async def _limit(client: Client, asked: Arguments) -> Rows:
    cid, each_peer = asked.maybe_text("cid"), asked.flag("each_peer", False)
    up, down = asked.maybe_text("up"), asked.maybe_text("down")
    asked.done()
    for row in await client.limit(cid, each_peer=each_peer, up=up, down=down):
        yield row


async def _doctor(client: Client, asked: Arguments) -> Rows:
    seconds = asked.seconds("seconds")
    asked.done()
    for row in await client.doctor(seconds or 0.0):
        yield row


async def _find_peer(client: Client, asked: Arguments) -> Rows:
    peer_id = asked.text("peer_id")
    asked.done()
    yield await client.dht_find_peer(peer_id)


async def _stop(client: Client, asked: Arguments) -> Rows:
    asked.done()
    await client.stop()
    for row in list[Event]():
        yield row


QUERIES: dict[str, Route] = {
    "/v1/id": _id,
    "/v1/ls": _ls,
    "/v1/status": _status,
    "/v1/peers": _peers,
    "/v1/events": _events,
    "/v1/dht/table": _table,
}
"""GET: they look and change nothing."""

COMMANDS: dict[str, Route] = {
    "/v1/share": _share,
    "/v1/get": _get,
    "/v1/verify": _verify,
    "/v1/rm": _rm,
    "/v1/pause": _pause,
    "/v1/resume": _resume,
    "/v1/limit": _limit,
    "/v1/doctor": _doctor,
    "/v1/stop": _stop,
    "/v1/dht/find-peer": _find_peer,
    "/v1/dht/find-providers": _find_providers,
}
"""POST with a JSON object: the arguments of the method of `Client` by name."""


async def _rows(method: Callable[[], Awaitable[Sequence[Event]]]) -> Rows:
    for row in await method():
        yield row


async def _all(events: Events[Event]) -> Rows:
    async with aclosing(events):
        async for event in events:
            yield event
