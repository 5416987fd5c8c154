"""`get`: fetch a content to where it belongs, and say how it goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ..storage.errors import NothingMatches
from ..storage.model import Content, Copy, CopyState
from ..wire.errors import ContentRefused
from ..wire.ids import Cid
from ..wire.names import safe_component
from .client import Links, Order
from .errors import NotFound
from .events import Complete, Progress, Source
from .link import Link, PeerHint, parse_peers
from .operations import Teller
from .transfer.fetch import Fetch
from .transfer.standing import Snapshot
from .transfer.waiting import Kind

if TYPE_CHECKING:
    from .app import Node

PROGRESS_SECONDS = 0.25
"""How often `progress` is told."""

FIRST_ANSWER_SECONDS = 60.0
"""Without --timeout: how long until some provider must have answered."""

ANNOUNCE_AFTER = 60.0
"""A standalone get announces what it has after this long."""


async def get(
    node: Node,
    target: str,
    destination: Path | None,
    folder: Path,
    *,
    peers: tuple[str, ...],
    timeout: float | None,  # noqa: ASYNC109 (a rule of the fetch, not a cancel scope)
    links: Links,
    only: tuple[str, ...],
    order: Order,
    teller: Teller,
) -> None:
    """Do the work of `get`."""
    started = trio.current_time()
    link = Link.parse(target)
    hints: list[PeerHint] = [*parse_peers(peers), *link.peers]
    place = await _destination(node, link, destination, folder)
    wanted = only or None
    known = {copy.id: copy for copy in await _copies(node, link.cid)}
    if not any(c.path == place and c.finished and c.wants(wanted) for c in known.values()):
        node.refuse_hopeless(hints)
    now = node.environment.clock.now()
    copy = await node.blocking(node.store.begin_fetch, link.cid, place, now, wanted, order)
    if copy.finished:
        await _already(node, copy, started, teller)
        return
    if copy.state is CopyState.PAUSED:
        await node.blocking(node.store.resume, copy.id)
    fetch = await node.transfers.fetch(copy, hints, links)
    if node.purpose == "get":
        node.transfers.later(_announce_later, node, fetch)
    try:
        await follow(node, fetch, started, timeout, teller)
    except NothingMatches:  # known only now that the index is here
        before = known.get(copy.id)
        if before is None:
            await node.blocking(node.store.remove_copy, copy.id)
        else:
            await node.blocking(node.store.choose, copy.id, before.only, before.order, now)
        raise
    except NotFound:
        if copy.id not in known and not fetch.done_bytes and not fetch.done.is_set():
            # Nothing came: leave nothing behind (but what its owner has paused stays).
            await node.stop_fetch(copy.id)
            await node.blocking(node.store.remove_copy, copy.id)
        raise


async def _copies(node: Node, cid: Cid) -> list[Copy]:
    return await node.blocking(node.store.copies, cid)


async def _destination(node: Node, link: Link, destination: Path | None, folder: Path) -> Path:
    """Return the path that the content gets."""
    copies = await _copies(node, link.cid)
    if destination is None:
        unfinished = [copy for copy in copies if not copy.finished]
        if len(unfinished) == 1:
            return unfinished[0].path  # it goes on where it was begun
        return folder / _name(link)
    if any(copy.path == destination for copy in copies):
        return destination
    if await node.environment.run_blocking(destination.is_dir):
        return destination / _name(link)
    return destination


def _name(link: Link) -> str:
    """Return the name that a content gets when its owner gives none."""
    if link.name:
        try:
            safe_component(link.name)
        except ContentRefused:
            pass
        else:
            return link.name
    return str(link.cid)


async def _already(node: Node, copy: Copy, started: float, teller: Teller) -> None:
    content = await node.blocking(node.store.content, copy.cid)
    size = content.size if content is not None and content.size is not None else 0
    seconds = trio.current_time() - started
    await teller.tell(Complete(str(copy.cid), str(copy.path), size, seconds))


async def follow(
    node: Node,
    fetch: Fetch,
    started: float,
    timeout: float | None,  # noqa: ASYNC109 (see get)
    teller: Teller,
) -> None:
    """Tell how a fetch goes until it ends.

    Raises:
        NotFound: It has waited for too long.
    """
    while True:
        fetch.followers += 1
        try:
            await _until_done(node, fetch, timeout, teller)
        finally:
            fetch.followers -= 1
        if fetch.replaced is not None:
            await fetch.replaced.wait()
        if fetch.successor is None:
            break
        fetch = fetch.successor
    if fetch.failure is not None:
        raise fetch.failure
    if fetch.finished is None:
        raise NotFound(
            f"the fetch of {fetch.cid} was stopped; what it has is kept: run the same get again"
        )
    await teller.tell(progress_of(fetch))
    shot = fetch.snapshot()
    await teller.tell(
        Complete(
            cid=str(fetch.cid),
            path=str(fetch.finished.path),
            bytes=shot.total_bytes or shot.done_bytes,
            seconds=trio.current_time() - started,
            sources=_sources(shot),
            wasted_bytes=shot.wasted,
            banned=shot.banned,
            skipped_links=fetch.finished.skipped_links,
        )
    )


async def _until_done(
    node: Node,
    fetch: Fetch,
    timeout: float | None,  # noqa: ASYNC109 (see get)
    teller: Teller,
) -> None:
    begun = trio.current_time()
    with trio.move_on_after(PROGRESS_SECONDS):
        await fetch.loaded.wait()  # so that the first progress shows what is there already
    await teller.tell(progress_of(fetch))
    while not fetch.done.is_set():
        with trio.move_on_after(PROGRESS_SECONDS):
            await fetch.done.wait()
        if fetch.done.is_set():
            break
        teller.hint(progress_of(fetch))
        idle = trio.current_time() - max(begun, fetch.progress_at)
        limit = timeout
        if limit is None and not fetch.answered:
            limit = FIRST_ANSWER_SECONDS
        if limit is not None and idle >= limit and not fetch.copying_to_disk:
            raise NotFound(_why_late(node, fetch, limit))


def progress_of(fetch: Fetch) -> Progress:
    """Return how far a fetch is, as an event."""
    shot = fetch.snapshot()
    eta = None
    if shot.rate > 0 and shot.total_bytes is not None:
        eta = max(0, shot.total_bytes - shot.done_bytes) / shot.rate
    return Progress(
        cid=str(fetch.cid),
        done_bytes=shot.done_bytes,
        total_bytes=shot.total_bytes,
        pieces_done=shot.pieces_done,
        pieces=shot.pieces,
        rate=shot.rate,
        peers=shot.peers,
        eta=eta,
        waiting=shot.waiting.text if shot.waiting is not None else None,
        path=str(fetch.copy.path),
        sources=_sources(shot),
        waiting_kind=str(shot.waiting.kind) if shot.waiting is not None else None,
        waiting_seconds=shot.idle if shot.waiting is not None else None,
    )


def paused_progress(copy: Copy, content: Content | None, held: int) -> Progress:
    """Return how far a paused fetch is: `held` pieces."""
    size = content.size if content is not None else None
    pieces = content.pieces if content is not None else None
    return Progress(
        cid=str(copy.cid),
        done_bytes=min(size, size * held // pieces) if size is not None and pieces else 0,
        total_bytes=size,
        pieces_done=held,
        pieces=pieces,
        rate=0.0,
        peers=0,
        eta=None,
        waiting="paused: shoal resume lets it go on",
        path=str(copy.path),
        waiting_kind=str(Kind.PAUSED),
    )


def _sources(shot: Snapshot) -> tuple[Source, ...]:
    return tuple(Source(peer, count, pieces) for peer, count, pieces in shot.sources)


def _why_late(node: Node, fetch: Fetch, limit: float) -> str:
    """Say in one sentence why nothing came, and what to do."""
    reason = fetch.snapshot().waiting
    why = reason.text if reason is not None else "the peers send nothing"
    kept = "; what was fetched is kept" if fetch.done_bytes else ""
    if not fetch.answered:
        return (
            f"no provider of {fetch.cid} answered within {limit:.0f} s: {why}; check that "
            f"somebody shares it and is reachable, or name a peer with --peer{kept}"
        )
    return (
        f"nothing new of {fetch.cid} came for {limit:.0f} s: {why}{kept}: run the same get again "
        "when somebody shares it"
    )


async def _announce_later(node: Node, fetch: Fetch) -> None:
    """Announce a standalone fetch when it has run for a while: it serves what it has."""
    with trio.move_on_after(ANNOUNCE_AFTER):
        await fetch.done.wait()
        return
    await node.announce_content(fetch.cid)


def find_cid(text: str) -> Cid:
    """Return the CID that a link or text names."""
    return Link.parse(text).cid
