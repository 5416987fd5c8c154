"""`shoal status`: the node and its fetches."""

from __future__ import annotations

import click

from .session import Session, run
from .settings import Settings, common_options


@click.command("status")
@common_options
@click.pass_obj
def status_command(settings: Settings, /) -> int:
    """Show the node, what it shares and fetches, and why a fetch waits."""

    async def work(session: Session) -> None:
        async with session.any_node() as client:
            for event in await client.status():
                session.tell(event)

    return run(settings, work)
