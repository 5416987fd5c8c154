"""`shoal doctor`: how far others can reach this node, rung by rung."""

from __future__ import annotations

from typing import Any

import click

from .session import Session, run
from .settings import Settings, common_options, node_options


@click.command("doctor")
@click.option(
    "--timeout",
    type=click.FloatRange(0),
    default=30.0,
    metavar="SECONDS",
    help="How long to wait for what is not known yet. [default: 30]",
)
@node_options
@common_options
@click.pass_obj
def doctor_command(settings: Settings, /, timeout: float, **flags: Any) -> int:
    """Find out how far others can reach this node, and what to do about it.

    It asks the running node of this home, or starts one for the time of the examination. Each line
    is a rung of a ladder, the lowest first, with a verdict and, where something is missing, the
    next step.
    """

    async def work(session: Session) -> None:
        async with session.working_node("share", flags) as worker:
            if not session.settings.json:
                session.output.say(f"examining for up to {timeout:.0f} s…")
            for rung in await worker.client.doctor(timeout):
                session.tell(rung)

    return run(settings, work)
