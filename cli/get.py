"""`shoal get`: fetch a content, verified."""

from __future__ import annotations

from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import trio

from ..node.client import Client, Links, Order
from ..node.errors import Interrupted, NodeStopped, ShoalError
from ..node.events import Complete, Event, Progress
from ..node.link import Link, parse_peers
from .session import Session, run
from .settings import NamedPath, Settings, common_options, node_options, peer_option

PAUSE_SECONDS = 10.0
"""How long pausing may take after Ctrl-C: the last batch is synced to disk."""


@click.command("get")
@click.argument("target", metavar="CID|LINK")
@click.option(
    "-o", "--output", type=NamedPath(path_type=Path), metavar="PATH",
    help="Where to; a folder that exists gets the content inside. [default: the current folder]",
)  # fmt: skip
@peer_option("Ask this peer, too. May be repeated.")
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), metavar="S",
    help="Longest time without a new byte. [default: 60 until somebody has it, then unlimited]",
)  # fmt: skip
@click.option(
    "--links", type=click.Choice(["inside", "all", "none"]), default="inside", show_default=True,
    help="Which symbolic links of the content to make: those that stay inside it, all or none.",
)  # fmt: skip
@click.option(
    "--only", multiple=True, metavar="GLOB",
    help="Fetch only this: a file's or folder's name anywhere ('*.csv'), or a path from the root "
    "('docs/**/*.csv'). May be repeated; a later get adds to it, without --only all the rest.",
)  # fmt: skip
@click.option(
    "--order", type=click.Choice(["rarest", "sequential"]), default="rarest", show_default=True,
    help="Rarest pieces first, or from the front on, to look into it early.",
)  # fmt: skip
@node_options
@common_options
@click.pass_obj
def get_command(
    settings: Settings,
    /,
    target: str,
    output: Path | None,
    peers: tuple[str, ...],
    timeout: float | None,
    links: Links,
    only: tuple[str, ...],
    order: Order,
    **flags: Any,
) -> int:
    """Fetch the content CID, or the one that LINK names, and verify it.

    Run again after an interruption, it goes on where it was. A node that runs with the same home
    does the work, and serves what it has fetched.
    """

    async def work(session: Session) -> None:
        Link.parse(target)
        parse_peers([*peers, *flags["bootstrap"]])
        fetch = _Fetch(target, output, peers, timeout, links, only, order)
        while not await fetch.run(session, flags):
            session.output.say("the process that fetched this has ended; going on")

    return run(settings, work)


@dataclass(frozen=True)
class _Fetch:
    """What to fetch, and how."""

    target: str
    output: Path | None
    peers: tuple[str, ...]
    timeout: float | None
    links: Links
    only: tuple[str, ...]
    order: Order

    async def run(self, session: Session, flags: dict[str, Any]) -> bool:
        """Fetch; return False if a node that is not ours ended too early, but we may go on."""
        async with session.working_node("get", flags) as worker:
            last: Progress | Complete | None = None
            operation = worker.client.get(
                self.target,
                self.output,
                peers=[*self.peers, *(flags["bootstrap"] if worker.handed else ())],
                timeout=self.timeout,
                links=self.links,
                only=self.only,
                order=self.order,
                leave="continue",
            )
            with session.interruptible() as scope:
                try:
                    async with aclosing(aiter(operation)) as events:
                        async for event in events:
                            last = _tell(session, event) or last
                except NodeStopped:
                    if not worker.passing:
                        raise
                    return False
            if scope.cancelled_caught and not isinstance(last, Complete):
                await _pause(worker.client, str(Link.parse(self.target).cid), last)
        return True


def _tell(session: Session, event: Event) -> Progress | Complete | None:
    """Tell an event, and return it if it says how far the fetch is."""
    if isinstance(event, Complete):
        event = replace(event, seconds=session.settings.elapsed)
    session.tell(event)
    return event if isinstance(event, Progress | Complete) else None


async def _pause(client: Client, cid: str, last: Progress | None) -> None:
    """Pause the fetch that Ctrl-C interrupted, and say so."""
    paused = False
    # An error: it had not begun, or its node is gone.
    with trio.move_on_after(PAUSE_SECONDS), suppress(ShoalError):
        paused = bool(await client.pause(cid, last.path if last else None))
    if paused:
        raise Interrupted(f"paused; to go on, run it again, or: shoal resume {cid}")
    raise Interrupted("interrupted; what was fetched is kept, run it again to go on")
