"""How far a fetch is, and why nothing flows: what people look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitarray import bitarray

from ...storage.store import Store
from ...wire.ids import Cid
from ...wire.swarm import MAX_PIECE
from .link import Link
from .waiting import Reason

if TYPE_CHECKING:
    from .fetch import Fetch


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far a fetch is."""

    done_bytes: int
    total_bytes: int | None
    pieces_done: int
    pieces: int | None
    rate: float
    peers: int
    waiting: Reason | None
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
        return Reason("behind", f"waiting for the fetch to {fetch.behind.copy.path}")
    if fetch.room.full is not None:
        return Reason("disk full", fetch.room.full)
    if fetch.engine is not None and fetch.engine.over:
        return Reason("syncing", "all pieces are here; writing them safely to disk")
    if not links:
        return fetch.transfers.why_no_peers(fetch)
    if fetch.engine is None:
        return Reason("index", "fetching the list of files")
    if rate > 0:
        return None
    if all(link.source.choked for link in links):
        return Reason("choked", f"all {len(links)} peers are busy with others")
    if not any(source.runs for source in fetch.engine.sources):
        return Reason("no holder", "no connected peer has the missing pieces yet")
    if fetch.last_bad is not None:
        return Reason("hash mismatch", f"{fetch.last_bad} sent wrong bytes and is not used")
    return Reason("waiting", "waiting for the first piece")


def held_bytes(store: Store, cid: Cid, bits: bitarray) -> int:
    """Count the bytes of held pieces (in a worker thread)."""
    held = 0
    first = 0
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
