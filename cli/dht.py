"""`shoal dht`: look into the DHT through the running node."""

from __future__ import annotations

from contextlib import aclosing

import click

from ..node.errors import NotFound
from ..node.events import Lookup
from .copies import cid_of
from .session import Session, run
from .settings import Settings, common_options


@click.group("dht")
def dht_command() -> None:
    """Look into the DHT through the running node."""


@dht_command.command("find-peer")
@click.argument("peer_id", metavar="ID")
@common_options
@click.pass_obj
def find_peer(settings: Settings, /, peer_id: str) -> int:
    """Find the addresses of the peer ID."""

    async def work(session: Session) -> None:
        async with session.running_node() as client:
            session.tell(await client.dht_find_peer(peer_id))

    return run(settings, work)


@dht_command.command("find-providers")
@click.argument("target", metavar="CID")
@common_options
@click.pass_obj
def find_providers(settings: Settings, /, target: str) -> int:
    """Find who announced a content; exit 3 if nobody did."""

    async def work(session: Session) -> None:
        cid = cid_of(target)
        found = 0
        async with (
            session.running_node() as client,
            aclosing(client.dht_find_providers(cid)) as events,
        ):
            async for event in events:
                session.tell(event)
                if isinstance(event, Lookup):
                    found = event.found
        if not found:
            raise NotFound(f"nobody announced {cid}; ask its owner for a link with an address")

    return run(settings, work)


@dht_command.command("table")
@common_options
@click.pass_obj
def table(settings: Settings, /) -> int:
    """List the routing table."""

    async def work(session: Session) -> None:
        async with session.running_node() as client:
            for contact in await client.dht_table():
                session.tell(contact)

    return run(settings, work)
