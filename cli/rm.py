"""`shoal rm`: forget a copy."""

from __future__ import annotations

import click

from .copies import cid_of, copy_arguments, whole_path
from .session import Session, run
from .settings import Settings, common_options


@click.command("rm")
@copy_arguments
@click.option("--delete-data", is_flag=True, help="Delete the shared or finished files, too.")
@common_options
@click.pass_obj
def rm_command(settings: Settings, /, target: str, path: str | None, delete_data: bool) -> int:
    """Forget the copies of a content, or only the one at PATH.

    An unfinished fetch loses its working files. Shared and finished files stay.
    """

    async def work(session: Session) -> None:
        cid = cid_of(target)
        async with session.any_node() as client:
            for removed in await client.rm(cid, whole_path(path), delete_data=delete_data):
                session.tell(removed)

    return run(settings, work)
