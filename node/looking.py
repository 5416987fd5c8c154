"""What one asks of a node besides moving data: lists, states, checks, the DHT."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING

from ..storage import model
from ..storage.model import CopyState
from ..wire.addresses import with_peer
from ..wire.ids import Cid, PeerId
from . import limiting
from .errors import NoNode, NotFound, Refused
from .events import (
    Contact,
    Copy,
    FoundPeer,
    Lookup,
    Paused,
    Peer,
    Provider,
    Removed,
    Resumed,
    Status,
    Time,
    Verified,
    Verifying,
)
from .events_reach import Rung
from .getting import find_cid, paused_progress, progress_of
from .sharing import announced_as, announced_multihash, link_to

if TYPE_CHECKING:
    from .app import Node
    from .events import Progress


async def ls(node: Node) -> list[Copy]:
    """Return all copies."""

    def read() -> list[tuple[model.Copy, model.Content | None, int]]:
        return [
            (copy, node.store.content(copy.cid), sum(node.store.bit_counts(copy.id)))
            for copy in node.store.copies()
        ]

    rows = []
    for copy, content, held in await node.blocking(read):
        size = content.size if content is not None else None
        pieces = content.pieces if content is not None else None
        done = size if size is not None and held == pieces else None
        if done is None and size is not None and pieces:
            done = min(size, size * held // pieces)
        rows.append(
            Copy(
                cid=str(copy.cid),
                path=str(copy.path),
                state=str(copy.state),
                name=copy.path.name,
                size=size,
                pieces=pieces,
                pieces_done=held,
                done_bytes=done,
                link=str(link_to(node, copy.cid, copy.path.name)),
                problem=copy.reason,
                only=copy.only or (),
            )
        )
    return rows


async def status(node: Node) -> list[Status | Progress]:
    """Return the node's state, then its fetches."""
    copies = await node.blocking(node.store.copies)
    contents = await node.blocking(node.store.contents)
    sizes = {content.cid: content.size or 0 for content in contents}
    finished = [copy for copy in copies if copy.finished]
    problems = tuple(node.problems)
    common = {
        "peer_id": str(node.peer_id),
        "home": str(node.home_path),
        "contents": len(contents),
        "copies": len(copies),
        "fetching": sum(copy.state is CopyState.FETCHING for copy in copies),
        "size": sum(sizes.get(copy.cid, 0) for copy in finished),
        "problems": problems,
    }
    if node.offline:
        return [Status(running=False, **common)]  # type: ignore[arg-type]
    statistics = node.host.statistics()
    dht = node.dht.statistics()
    relay = node.nat.relay.statistics() if node.nat.relay is not None else None
    rate = sum(fetch.snapshot().rate for fetch, _ in node.transfers.fetches.values())
    whole = Status(
        running=True,
        addrs=node.addrs(),
        started=Time(node.started) if node.started is not None else None,
        connections=statistics.connections,
        dht_mode=dht.mode,
        dht_peers=dht.contacts,
        bytes_in=statistics.bytes_in,
        bytes_out=statistics.bytes_out,
        rate_in=rate,
        faults=dict(sorted(statistics.faults.items())),
        reachability=node.nat.reachability,
        nat=node.nat.mapping,
        relays=tuple(str(place.relay) for place in node.nat.keeper.places()),
        paths=dict(Counter(connection.path.word for connection in node.host.connections())),
        transports=dict(Counter(connection.transport for connection in node.host.connections())),
        relaying=relay.circuits if relay is not None else None,
        relayed_bytes=relay.bytes if relay is not None else None,
        relay_left=node.nat.relay.left_today if node.nat.relay is not None else None,
        refused=node.nat.refused(),
        **common,  # type: ignore[arg-type]
    )
    paused = [copy for copy in copies if copy.state is CopyState.PAUSED]
    standing = []
    for copy in paused:
        content = await node.blocking(node.store.content, copy.cid)
        held = sum(await node.blocking(node.store.bit_counts, copy.id))
        standing.append(paused_progress(copy, content, held))
    running = [progress_of(fetch) for fetch, _ in node.transfers.fetches.values()]
    return [whole, *running, *standing]


async def doctor(node: Node, seconds: float) -> list[Rung]:
    """Return how far others can reach us, and what to do about it.

    Raises:
        NoNode: The home was opened without a network.
    """
    if node.offline:
        raise NoNode("no node runs: start one with shoal up")
    return await node.reaching.examine(seconds)


async def peers(node: Node) -> list[Peer]:
    """Return the connections."""
    return [
        Peer(
            peer_id=str(connection.peer_id),
            addr=str(connection.remote),
            direction=connection.direction,
            path=connection.path.word,
            transport=connection.transport,
            limited=connection.limited,
            agent=connection.info.agent_version if connection.info is not None else None,
            rtt=connection.rtt,
            bytes_in=connection.bytes_in,
            bytes_out=connection.bytes_out,
            opened=Time(connection.opened_at),
            protocols=connection.info.protocols if connection.info is not None else (),
        )
        for connection in node.host.connections()
    ]


async def _chosen(node: Node, text: str, path: Path | None) -> list[model.Copy]:
    """Return the copies of a content, or the one at `path`.

    Raises:
        NotFound: There is none.
    """
    cid = find_cid(text)
    copies = await node.blocking(node.store.copies, cid)
    if path is not None:
        copies = [copy for copy in copies if copy.path == path]
    if not copies:
        where = f" at {path}" if path is not None else ""
        raise NotFound(f"there is no copy of {cid}{where} here: shoal ls shows what there is")
    return copies


async def rm(node: Node, text: str, path: Path | None, delete_data: bool) -> list[Removed]:
    """Forget copies."""
    removed = []
    for copy in await _chosen(node, text, path):
        content = await node.blocking(node.store.content, copy.cid)
        if not node.offline:
            await node.stop_fetch(copy.id)
        gone = await node.blocking(node.store.remove_copy, copy.id, delete_data)
        removed.append(Removed(str(copy.cid), str(copy.path), bool(gone.deleted)))
        left = await node.blocking(node.store.copies, copy.cid)
        if not left:
            await limiting.forget(node, copy.cid)
        if node.offline:
            continue
        await node.transfers.content_changed(copy.cid)
        key = announced_as(content) if content is not None else None
        if not left and key is not None:
            await node.dht.withdraw(key)
    return removed


async def verify(
    node: Node, text: str, path: Path | None
) -> AsyncGenerator[Verifying | Verified, None]:
    """Hash copies again."""
    for copy in await _chosen(node, text, path):
        content = await node.blocking(node.store.content, copy.cid)
        if content is None or not content.index_complete:
            continue
        work = await node.blocking(node.store.verify, copy.id)
        size, last = content.size, None
        while True:
            step = await node.environment.run_blocking(next, work, None)
            if step is None:
                break
            last = step
            done = size * step.done // max(1, step.pieces) if size is not None else 0
            yield Verifying(str(copy.cid), str(copy.path), done, size)
        now = await node.blocking(node.store.copy, copy.id)
        if last is not None and now is not None:
            if not node.offline:
                await node.transfers.content_changed(copy.cid)
            bad = last.done - last.good if now.finished else 0
            yield Verified(str(copy.cid), str(copy.path), last.good, bad, str(now.state))


async def pause(node: Node, text: str, path: Path | None) -> list[Paused]:
    """Pause fetches."""
    copies = [copy for copy in await _chosen(node, text, path) if not copy.finished]
    if not copies:
        raise Refused("nothing to pause: this content is not being fetched")
    for copy in copies:
        await node.stop_fetch(copy.id)
        now = await node.blocking(node.store.copy, copy.id)
        if now is not None and not now.finished:
            await node.blocking(node.store.pause, copy.id)
    return [Paused(str(copy.cid), str(copy.path)) for copy in copies]


async def resume(node: Node, text: str, path: Path | None) -> list[Resumed]:
    """Go on with paused fetches."""
    copies = [copy for copy in await _chosen(node, text, path) if not copy.finished]
    if not copies:
        raise Refused("nothing to resume: this content is not paused")
    for copy in copies:
        await node.blocking(node.store.resume, copy.id)
        await node.transfers.fetch(copy)
    return [Resumed(str(copy.cid), str(copy.path)) for copy in copies]


async def find_peer(node: Node, text: str) -> FoundPeer:
    """Look up a peer's addresses."""
    peer = PeerId.parse(text)
    if peer == node.peer_id:
        return FoundPeer(str(peer), node.addrs())
    found = await node.dht.look_for_peer(peer)
    if not found.addrs:
        why = f": {found.nothing}" if found.nothing is not None else ""
        raise NotFound(f"no address of {peer} was found ({found.asked} nodes asked){why}")
    return FoundPeer(str(peer), tuple(str(with_peer(addr, peer)) for addr in found.addrs))


async def find_providers(node: Node, text: str) -> AsyncGenerator[Provider | Lookup, None]:
    """Look up who announced a content, under its blinded key and under its plain hash."""
    cid: Cid = find_cid(text)
    asked = 0
    seen: set[PeerId] = set()
    for public in (False, True):
        async with node.dht.find_providers(announced_multihash(cid, public)) as search:
            async for provider in search:
                if provider.peer_id not in seen:
                    seen.add(provider.peer_id)
                    addrs = tuple(str(with_peer(a, provider.peer_id)) for a in provider.addrs)
                    yield Provider(str(cid), str(provider.peer_id), addrs)
        asked += search.asked
    yield Lookup(str(cid), asked, len(seen))


async def table(node: Node) -> list[Contact]:
    """Return the routing table."""
    return [
        Contact(
            str(row.peer_id),
            tuple(str(with_peer(addr, row.peer_id)) for addr in row.addrs),
            row.bucket,
            Time(row.seen),
        )
        for row in node.dht.table()
    ]
