"""`shoal share`: hash a file or folder where it lies, announce it and serve it."""

from __future__ import annotations

import os
from contextlib import aclosing
from pathlib import Path
from typing import Any

import click
import trio

from ..node.client import Client, HashName
from ..node.errors import Interrupted, NodeStopped
from ..node.events import Shared
from ..node.link import parse_peers
from .session import Session, run
from .settings import NamedPath, Settings, common_options, node_options, peer_option


@click.command("share")
@click.argument("path", type=NamedPath(path_type=Path))
@click.option("--hash-only", is_flag=True, help="Tell the content id; keep and serve nothing.")
@click.option("--public", is_flag=True, help="Announce the plain hash, as IPFS nodes do.")
@click.option("--no-announce", is_flag=True, help="Tell nobody; the link still works.")
@click.option("--no-hidden", is_flag=True, help="Leave out what begins with a dot.")
@click.option("--skip-special", is_flag=True, help="Leave out FIFOs, sockets and devices.")
@click.option(
    "--hash", "hash_name", type=click.Choice(["sha2-256", "blake3"]), default="sha2-256",
    show_default=True, help="The hash of pieces and folders.",
)  # fmt: skip
@peer_option("Stay connected with this peer, so that it can fetch. May be repeated.")
@node_options
@common_options
@click.pass_obj
def share_command(
    settings: Settings,
    /,
    path: Path,
    hash_only: bool,
    public: bool,
    no_announce: bool,
    no_hidden: bool,
    skip_special: bool,
    hash_name: HashName,
    peers: tuple[str, ...],
    **flags: Any,
) -> int:
    """Share the file or folder at PATH where it lies.

    It is hashed, announced and served; nothing is copied. A node that runs with the same home
    takes it over. Otherwise this command serves it until Ctrl-C.
    """
    options: dict[str, Any] = {
        "hash_only": hash_only,
        "public": public,
        "announce": not no_announce,
        "hidden": not no_hidden,
        "skip_special": skip_special,
        "hash": hash_name,
    }

    async def work(session: Session) -> None:
        parse_peers([*peers, *flags["bootstrap"]])
        if hash_only:
            async with session.any_node() as client:
                await _hash(session, client, path, {**options, "peers": []})
            return
        while not await _serve(session, path, peers, options, flags):
            session.output.say("the process that served this has ended; going on")

    return run(settings, work)


async def _serve(
    session: Session,
    path: Path,
    peers: tuple[str, ...],
    options: dict[str, Any],
    flags: dict[str, Any],
) -> bool:
    """Share, and stay while the content is served only because of us.

    Returns False if a node that is not ours ended, but we may go on: then all is hashed already.
    """
    async with session.working_node("share", flags) as worker:
        asked = [*peers, *(flags["bootstrap"] if worker.handed else ())]
        try:
            await _hash(session, worker.client, path, {**options, "peers": asked})
            if session.interrupted or (worker.handed and not worker.passing):
                return True
            session.output.say("serving it; leave this running, Ctrl-C stops it")
            with session.interruptible():
                if worker.passing:
                    await _until_stopped(worker.client)
                    return False
                await trio.sleep_forever()
        except NodeStopped:
            if not worker.passing:
                raise
            return False
    return True


async def _until_stopped(client: Client) -> None:
    async with aclosing(client.events()) as events:
        async for _ in events:
            pass


async def _hash(session: Session, client: Client, path: Path, options: dict[str, Any]) -> None:
    """Share, and tell its events; Ctrl-C counts as an interruption until `shared` is told."""
    shared = False
    with session.interruptible() as scope:
        async with aclosing(aiter(client.share(os.fspath(path), **options))) as events:
            async for event in events:
                shared = shared or isinstance(event, Shared)
                session.tell(event)
    if scope.cancelled_caught and not shared:
        raise Interrupted("interrupted; nothing is shared. What was hashed need not be again")
