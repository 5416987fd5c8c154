"""`shoal id`: who this node is."""

from __future__ import annotations

import click

from .session import Session, run
from .settings import Settings, common_options


@click.command("id")
@common_options
@click.pass_obj
def id_command(settings: Settings, /) -> int:
    """Show the peer id of this home, and where its node can be reached."""

    async def work(session: Session) -> None:
        async with session.any_node() as client:
            session.tell(await client.id())

    return run(settings, work)
