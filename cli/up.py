"""`shoal up`: run a node until it is stopped."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import click

from ..node.events import Listening
from .session import Session, run
from .settings import Settings, common_options, node_options


@click.command("up")
@click.option(
    "--relay", is_flag=True, help="Be a relay that carries whole transfers between others."
)
@click.option(
    "--relay-member",
    "relay_members",
    multiple=True,
    metavar="ID",
    help="Only this peer may be reached through the relay. May be repeated. [default: all]",
)
@click.option("--relay-quota", metavar="SIZE", help="Forward at most so much in a day, as 100GB.")
@node_options
@common_options
@click.pass_obj
def up_command(settings: Settings, /, relay: bool, **flags: Any) -> int:
    """Run a node until it is stopped.

    It seeds every copy of its home, goes on with the fetches that nobody paused, takes over what
    `share` and `get` with the same home ask for, and answers others in the DHT.
    """
    flags["relay"] = "own" if relay else None

    async def work(session: Session) -> None:
        async with session.own_node("up", flags) as node:
            who = await node.id()
            session.tell(Listening(who.peer_id, who.addrs))
            with session.interruptible():
                async with aclosing(node.events()) as events:
                    async for event in events:
                        session.tell(event)

    return run(settings, work)
