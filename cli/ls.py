"""`shoal ls`: the copies of this home."""

from __future__ import annotations

import click

from .session import Session, run
from .settings import Settings, common_options


@click.command("ls")
@common_options
@click.pass_obj
def ls_command(settings: Settings, /) -> int:
    """List the copies of this home: content id, state, size, pieces, path."""

    async def work(session: Session) -> None:
        async with session.any_node() as client:
            for copy in await client.ls():
                session.tell(copy)

    return run(settings, work)
