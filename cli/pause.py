"""`shoal pause`: let the fetches of a content stand still."""

from __future__ import annotations

import click

from .copies import cid_of, copy_arguments, whole_path
from .session import Session, run
from .settings import Settings, common_options


@click.command("pause")
@copy_arguments
@common_options
@click.pass_obj
def pause_command(settings: Settings, /, target: str, path: str | None) -> int:
    """Pause the fetches of a content, or only the one to PATH; its pieces are kept."""

    async def work(session: Session) -> None:
        cid = cid_of(target)
        async with session.running_node() as client:
            for paused in await client.pause(cid, whole_path(path)):
                session.tell(paused)

    return run(settings, work)
