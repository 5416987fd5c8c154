"""How far a fetch is, and why nothing flows: what people look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio
from bitarray import bitarray

from ...storage.store import Store
from ...wire.ids import Cid
from ...wire.immutable import immutable
from ...wire.swarm import MAX_PIECE
from .link import Link
from .waiting import STALL_SECONDS, Kind, Reason

if TYPE_CHECKING:
    from .fetch import Fetch


@immutable
class Snapshot:
    """How far a fetch is."""

    done_bytes: int
    total_bytes: int | None
    pieces_done: int
    pieces: int | None
    rate: float
    peers: int
    waiting: Reason | None
    idle: float
    """Seconds since a byte was last verified."""
    sources: tuple[tuple[str, int, int], ...]
    """(peer id, verified bytes, verified pieces), the largest first."""
    wasted: int
    banned: tuple[str, ...]


def why_waiting(fetch: Fetch, links: Sequence[Link], rate: float) -> Reason | None:
    """Say why nothing flows; None while it flows.

    Args:
        fetch: Which.
        links: Peers that have proved that they know the content.
        rate: Bytes a second at the moment.
    """
    if fetch.behind is not None:
        return Reason(Kind.BEHIND, f"waiting for the fetch to {fetch.behind.copy.path}")
    if fetch.room.full is not None:
        return Reason(Kind.DISK_FULL, fetch.room.full)
    engine = fetch.engine
    if engine is not None and engine.all_came:
        return Reason(Kind.SYNCING, "all pieces are here; writing them safely to disk")
    if rate > 0:
        return None
    if engine is not None and fetch.unwritten and fetch.transfers.pool.room < engine.piece_size:
        waiting = fetch.transfers.pool.used >> 20
        return Reason(Kind.DISK_SLOW, f"{waiting} MiB wait for the disk, which is slow")
    if fetch.limited and links:
        return Reason(Kind.RATE_LIMIT, "a limit of bytes a second is reached: see shoal limit")
    if fetch.indexed and engine is None:
        return Reason(Kind.PREPARING, "laying out the files")
    if not links:
        return _without_peers(fetch)
    return _again(fetch, _with_peers(fetch, links))


def _without_peers(fetch: Fetch) -> Reason:
    """Say why there is no peer."""
    reason = fetch.transfers.why_no_peers(fetch)
    if fetch.banned and reason.kind in (Kind.SEARCHING, Kind.NO_PROVIDER, Kind.UNREACHABLE):
        return Reason(Kind.MISMATCH, f"{_liars(fetch)}; {reason.text}")
    return reason


def _with_peers(fetch: Fetch, links: Sequence[Link]) -> Reason:
    """Say why no peer sends anything."""
    if all(link.source.choked for link in links):
        return Reason(Kind.CHOKED, f"all {len(links)} peers are busy with others")
    if fetch.engine is None:
        return Reason(Kind.INDEX, "fetching the list of files")
    asked = [source for source in fetch.engine.sources if source.runs]
    parked = [source for source in fetch.engine.sources if source.parked]
    if parked and all(source.parked for source in asked):
        return Reason(Kind.SLOW, f"{len(parked)} of {len(links)} peers have stopped sending")
    if not asked:
        if fetch.banned:
            text = f"{_liars(fetch)}, and no other connected peer has the missing pieces"
            return Reason(Kind.MISMATCH, text)
        return Reason(Kind.NO_HOLDER, "no connected peer has the missing pieces yet")
    return Reason(Kind.WAITING, "waiting for the first piece")


def _liars(fetch: Fetch) -> str:
    name = fetch.last_bad or next(str(peer) for peer in fetch.banned)
    return f"{name} sent wrong bytes and is not asked again for a day"


def _again(fetch: Fetch, reason: Reason) -> Reason:
    """Add what is done about it when it takes long."""
    if trio.current_time() - fetch.progress_at < STALL_SECONDS:
        return reason
    return Reason(reason.kind, f"{reason.text}; asking again and looking for others")


def held_bytes(store: Store, cid: Cid, bits: bitarray) -> int:
    """Count the bytes of held pieces (in a worker thread)."""
    held = 0
    first = 0
    if not bits.any():
        return 0
    while entries := store.entries(cid, first, 1024):
        for entry in entries:
            if entry.pieces and entry.size > 0:
                last = entry.first_piece + entry.pieces - 1
                count = bits.count(1, entry.first_piece, last + 1)
                held += count * MAX_PIECE
                if bits[last]:
                    held += entry.size - entry.pieces * MAX_PIECE
        first = entries[-1].ordinal + 1
    return held
