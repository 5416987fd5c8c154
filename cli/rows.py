"""Events that are rows of a list, as cells of text."""

from __future__ import annotations

from ..node.events import (
    Contact,
    Copy,
    Event,
    FoundPeer,
    Identity,
    Limit,
    Peer,
    Provider,
    Verified,
)
from ..node.events_reach import Rung
from .words import count, moment, rate, size

HEADINGS: dict[type[Event], tuple[str, ...]] = {
    Copy: ("content", "state", "size", "pieces", "path", ""),
    Peer: ("peer", "address", "way", "path", "ping", "in", "out", "program"),
    Contact: ("peer", "bucket", "last seen", "addresses"),
    Limit: ("limit of", "up", "down"),
    Rung: ("", "", ""),
}
"""The rows that a terminal shows as a table, and its columns; the others come one by one."""


ROWS = (Copy, Peer, Identity, FoundPeer, Provider, Contact, Verified, Limit, Rung)
"""Events that are rows."""


def is_row(event: Event) -> bool:
    """Return whether an event is a row of a list."""
    return isinstance(event, ROWS)


def cells(event: Event) -> list[str]:
    """Return the cells of a row."""
    match event:
        case Copy():
            held = "" if event.pieces is None else f"{event.pieces_done or 0}/{event.pieces}"
            problem = event.problem or ""
            return [event.cid, event.state, size(event.size), held, event.path, problem]
        case Peer():
            ping = "?" if event.rtt is None else f"{1000 * event.rtt:.0f} ms"
            moved = [size(event.bytes_in), size(event.bytes_out)]
            path = "relayed, no content" if event.limited else event.path
            path = f"{path}, QUIC" if path and event.transport == "quic" else path
            way = [event.direction, path or "?"]
            return [event.peer_id, event.addr, *way, ping, *moved, event.agent or ""]
        case Contact():
            bucket = "?" if event.bucket is None else str(event.bucket)
            return [event.peer_id, bucket, moment(event.last_seen), " ".join(event.addrs)]
        case Identity() | FoundPeer() | Provider():
            return [event.peer_id, *event.addrs]
        case Verified():
            bad = f"{event.bad} missing or wrong" if event.bad else "all right"
            return [event.cid, event.state, count(event.pieces, "good piece"), bad, event.path]
        case Rung():
            step = f" → {event.next_step}" if event.next_step else ""
            return [event.name, event.verdict, event.text + step]
        case Limit():
            names = {"node": "all together", "peer": "each peer"}
            of = names.get(event.scope, event.cid or event.scope)
            return [of, _limit(event.up), _limit(event.down)]
        case _:
            raise TypeError(f"{event.event} is no row")


def _limit(bytes_a_second: int | None) -> str:
    return "no limit" if bytes_a_second is None else rate(bytes_a_second)
