"""`shoal verify`: hash the copies of a content again."""

from __future__ import annotations

from contextlib import aclosing

import click

from ..node.errors import IntegrityError
from ..node.events import Verified
from .copies import cid_of, copy_arguments, whole_path
from .session import Session, run
from .settings import Settings, common_options


@click.command("verify")
@copy_arguments
@common_options
@click.pass_obj
def verify_command(settings: Settings, /, target: str, path: str | None) -> int:
    """Hash the copies of a content again, or only the one at PATH; exit 4 if one is damaged."""

    async def work(session: Session) -> None:
        cid = cid_of(target)
        bad = 0
        async with (
            session.any_node() as client,
            aclosing(client.verify(cid, whole_path(path))) as events,
        ):
            async for event in events:
                session.tell(event)
                if isinstance(event, Verified):
                    bad += event.bad
        if bad:
            raise IntegrityError(
                f"{bad} pieces are missing or wrong; mend a fetched copy with: shoal get {cid}, "
                "share changed files again"
            )

    return run(settings, work)
