"""`shoal up`: run a node until it is stopped."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import click

from ..node.events import Listening
from .session import Session, run
from .settings import Settings, common_options, node_options


@click.command("up")
@node_options
@common_options
@click.pass_obj
def up_command(settings: Settings, /, **flags: Any) -> int:
    """Run a node until it is stopped.

    It seeds every copy of its home, goes on with the fetches that nobody paused, takes over what
    `share` and `get` with the same home ask for, and answers others in the DHT.
    """

    async def work(session: Session) -> None:
        async with session.own_node("up", flags) as node:
            who = await node.id()
            session.tell(Listening(who.peer_id, who.addrs))
            with session.interruptible():
                async with aclosing(node.events()) as events:
                    async for event in events:
                        session.tell(event)

    return run(settings, work)
