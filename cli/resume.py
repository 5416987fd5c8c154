"""`shoal resume`: go on with paused fetches."""

from __future__ import annotations

import click

from .copies import cid_of, copy_arguments, whole_path
from .session import Session, run
from .settings import Settings, common_options


@click.command("resume")
@copy_arguments
@common_options
@click.pass_obj
def resume_command(settings: Settings, /, target: str, path: str | None) -> int:
    """Go on with the paused fetches of a content, or only the one to PATH."""

    async def work(session: Session) -> None:
        cid = cid_of(target)
        async with session.running_node() as client:
            for resumed in await client.resume(cid, whole_path(path)):
                session.tell(resumed)

    return run(settings, work)
