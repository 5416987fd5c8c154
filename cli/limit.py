"""`shoal limit`: how many bytes a second may come and go."""

from __future__ import annotations

import click

from .copies import cid_of
from .session import Session, run
from .settings import Settings, common_options


@click.command("limit")
@click.argument("target", metavar="[CID]", required=False)
@click.option("--up", metavar="RATE", help="Send at most so much.")
@click.option("--down", metavar="RATE", help="Fetch at most so much.")
@click.option("--each-peer", is_flag=True, help="To and from each peer, instead of all together.")
@common_options
@click.pass_obj
def limit_command(
    settings: Settings, /, target: str | None, up: str | None, down: str | None, each_peer: bool
) -> int:
    """Limit the bytes a second of the node, of a content, or of each peer.

    RATE is as 500kB, 10MB or 1.5MiB a second, none for no limit, or default for what the settings
    say. It holds at once and stays over a restart. Without a rate the limits are shown.
    """

    async def work(session: Session) -> None:
        cid = None if target is None else cid_of(target)
        async with session.any_node() as client:
            for row in await client.limit(cid, each_peer=each_peer, up=up, down=down):
                session.tell(row)

    return run(settings, work)
