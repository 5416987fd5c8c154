"""`shoal peers`: the connections of the running node."""

from __future__ import annotations

import click

from .session import Session, run
from .settings import Settings, common_options


@click.command("peers")
@common_options
@click.pass_obj
def peers_command(settings: Settings, /) -> int:
    """List the connections of the running node."""

    async def work(session: Session) -> None:
        async with session.running_node() as client:
            for peer in await client.peers():
                session.tell(peer)

    return run(settings, work)
