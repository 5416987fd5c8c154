"""What a node tells while it works: one immutable class for each event of `--json`.

The same objects come out of `shoal.Node`, travel over the control socket as JSON lines, and are
printed by the command line. Bytes are integers, durations seconds as floats, unknown is None,
times are Unix seconds in Python and RFC 3339 UTC in JSON. Fields are only ever added, so reading
skips events and fields that it does not know. `docs/events.md` lists them all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field, fields
from datetime import UTC, datetime
from typing import Any, ClassVar, NewType, Self, get_args, get_type_hints

from ..wire.immutable import immutable

Time = NewType("Time", float)
"""A point in time: Unix seconds; in JSON `2026-01-31T12:00:00.000Z`."""


@immutable
class Source:
    """What one peer gave to a fetch: verified bytes and pieces."""

    peer_id: str
    bytes: int
    pieces: int


EVENTS: dict[str, type[Event]] = {}
"""All events by their name in JSON."""


@immutable
class Event:
    """Base of all events: `event` is the name in JSON."""

    event: ClassVar[str]

    def __init_subclass__(cls) -> None:
        EVENTS[cls.event] = cls

    def to_json(self) -> dict[str, Any]:
        """Return the event as it stands in a line of `--json`, `event` first."""
        values = {name: _plain(getattr(self, name), hint) for name, hint in _hints(type(self))}
        return {"event": self.event, **values}

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Self:
        """Build the event from JSON; missing fields get their default.

        Raises:
            ValueError: A field without default is missing, or a value is of the wrong form.
        """
        try:
            return cls(
                **{name: _typed(data[name], hint) for name, hint in _hints(cls) if name in data}
            )
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not an event {cls.event!r}: {error}") from error


@immutable
class Listening(Event):
    """A node runs in this process and can be reached now."""

    event: ClassVar[str] = "listening"
    peer_id: str
    addrs: tuple[str, ...]
    """Concrete multiaddrs, each ending in `/p2p/<peer_id>`."""


@immutable
class Handed(Event):
    """A node of this home runs already; the work was handed over to it."""

    event: ClassVar[str] = "node"
    peer_id: str
    addrs: tuple[str, ...]


@immutable
class Hashing(Event):
    """How far hashing in place has come; sent a few times a second."""

    event: ClassVar[str] = "hashing"
    path: str
    done_bytes: int
    total_bytes: int | None = None
    """None until the tree has been walked."""
    files: int = 0
    """Files hashed so far."""


@immutable
class Shared(Event):
    """The content is hashed; from now on it is served, unless only its hash was asked for."""

    event: ClassVar[str] = "shared"
    cid: str
    link: str
    name: str
    size: int
    pieces: int
    seconds: float
    path: str


@immutable
class Announced(Event):
    """The DHT was told that we have the content; also sent when no peer took it."""

    event: ClassVar[str] = "announced"
    cid: str
    peers: int
    """How many peers took the announcement."""


@immutable
class Progress(Event):
    """How far a fetch has come; only verified bytes count."""

    event: ClassVar[str] = "progress"
    cid: str
    done_bytes: int
    total_bytes: int | None
    pieces_done: int
    pieces: int | None
    rate: float | None
    """Verified bytes a second, smoothed."""
    peers: int
    """Peers connected for this content."""
    eta: float | None
    """Seconds until the end at this rate."""
    waiting: str | None
    """Why nothing flows, in words; None while it flows."""
    path: str | None = None
    """Where the content will stand when it is complete."""
    sources: tuple[Source, ...] = ()
    """Who gave what so far."""
    waiting_kind: str | None = None
    """The kind of `waiting` as a stable word; None while it flows."""
    waiting_seconds: float | None = None
    """For how long nothing has been verified; None while it flows."""


@immutable
class Complete(Event):
    """The content is complete, verified and safe on disk."""

    event: ClassVar[str] = "complete"
    cid: str
    path: str
    bytes: int
    seconds: float
    """From the start of the command."""
    sources: tuple[Source, ...] = ()
    wasted_bytes: int = 0
    """Bytes received that were already there, or were wrong."""
    banned: tuple[str, ...] = ()
    """Peer ids that sent wrong bytes."""
    skipped_links: tuple[str, ...] = ()
    """Paths of symbolic links that were not created, as they lead out of the content."""


@immutable
class Copy(Event):
    """One copy of a content in this home (a row of `ls`)."""

    event: ClassVar[str] = "copy"
    cid: str
    path: str
    state: str
    """shared, fetching, paused, complete or degraded."""
    name: str | None = None
    size: int | None = None
    pieces: int | None = None
    pieces_done: int | None = None
    done_bytes: int | None = None
    link: str | None = None
    problem: str | None = None
    """What is wrong with a degraded or stopped copy, and what to do."""
    only: tuple[str, ...] = ()
    """Patterns of what is wanted of it; empty = everything."""


@immutable
class Status(Event):
    """The node as a whole; the fetches under way follow as `progress`."""

    event: ClassVar[str] = "status"
    peer_id: str
    running: bool
    """False: the home was read without a node."""
    home: str
    addrs: tuple[str, ...] = ()
    started: Time | None = None
    contents: int = 0
    copies: int = 0
    fetching: int = 0
    size: int = 0
    """Bytes of all complete and shared copies."""
    connections: int = 0
    dht_mode: str | None = None
    """server or client."""
    dht_peers: int | None = None
    """Peers in the routing table."""
    bytes_in: int = 0
    bytes_out: int = 0
    rate_in: float | None = None
    rate_out: float | None = None
    announced_until: Time | None = None
    """Until when every announcement is valid."""
    reachability: str | None = None
    """public, private (only over relays, or by hole punching) or unknown."""
    nat: str | None = None
    """How our NAT maps ports: none, endpoint-independent, endpoint-dependent or unknown."""
    relays: tuple[str, ...] = ()
    """Peer ids of the relays at which we have a place."""
    paths: dict[str, int] = field(default_factory=dict)
    """Connections by path: lan, direct, punched, relayed."""
    transports: dict[str, int] = field(default_factory=dict)
    """Connections by transport: tcp, quic."""
    relaying: int | None = None
    """Circuits of others that run through us; None = we are no relay."""
    relayed_bytes: int | None = None
    """Forwarded for others since the start."""
    relay_left: int | None = None
    """Bytes that we still forward today; None = no quota, or no relay."""
    refused: dict[str, int] = field(default_factory=dict)
    """What we refused to do for others, as a relay and in testing addresses, by reason."""
    problems: tuple[str, ...] = ()
    """Sentences: what was found wrong, and what to do."""
    faults: dict[str, int] = field(default_factory=dict)
    """What peers did against the rules since the start: how often, by reason."""


@immutable
class Peer(Event):
    """One connection (a row of `peers`)."""

    event: ClassVar[str] = "peer"
    peer_id: str
    addr: str
    direction: str
    """in or out."""
    agent: str | None = None
    rtt: float | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    opened: Time | None = None
    protocols: tuple[str, ...] = ()
    path: str | None = None
    """lan, direct, punched or relayed."""
    transport: str | None = None
    """tcp or quic."""
    limited: bool = False
    """Its relay ends it soon: it is for meeting, and carries no content."""


@immutable
class Identity(Event):
    """Who this home is."""

    event: ClassVar[str] = "id"
    peer_id: str
    home: str
    running: bool
    addrs: tuple[str, ...] = ()
    purpose: str | None = None
    """up, share or get: what the node runs for; `up` stays, the others end with their command."""


@immutable
class Removed(Event):
    """A copy was forgotten."""

    event: ClassVar[str] = "removed"
    cid: str
    path: str
    deleted: bool
    """Whether files were deleted: our working files, or the data with --delete-data."""


@immutable
class Verifying(Event):
    """How far re-hashing a copy has come."""

    event: ClassVar[str] = "verifying"
    cid: str
    path: str
    done_bytes: int
    total_bytes: int | None = None


@immutable
class Verified(Event):
    """A copy was re-hashed."""

    event: ClassVar[str] = "verified"
    cid: str
    path: str
    pieces: int
    """Pieces whose bytes are right."""
    bad: int
    """Pieces that were thought to be there and are missing or wrong."""
    state: str
    """The copy's state afterwards."""


@immutable
class Paused(Event):
    """A fetch stands still until it is resumed; its pieces are kept."""

    event: ClassVar[str] = "paused"
    cid: str
    path: str


@immutable
class Resumed(Event):
    """A paused fetch goes on."""

    event: ClassVar[str] = "resumed"
    cid: str
    path: str


@immutable
class Limit(Event):
    """How many bytes a second may come and go."""

    event: ClassVar[str] = "limit"
    scope: str
    """node, peer (each of them) or content."""
    cid: str | None
    """The content; None for the other scopes."""
    up: int | None
    """Bytes a second that are sent at most; None = no limit."""
    down: int | None


@immutable
class FoundPeer(Event):
    """The addresses of a peer, as the DHT knows them."""

    event: ClassVar[str] = "found_peer"
    peer_id: str
    addrs: tuple[str, ...]


@immutable
class Provider(Event):
    """A peer that announced a content."""

    event: ClassVar[str] = "provider"
    cid: str
    peer_id: str
    addrs: tuple[str, ...] = ()


@immutable
class Lookup(Event):
    """A DHT lookup is over."""

    event: ClassVar[str] = "lookup"
    target: str
    asked: int
    """Peers asked."""
    found: int


@immutable
class Contact(Event):
    """One entry of the routing table."""

    event: ClassVar[str] = "contact"
    peer_id: str
    addrs: tuple[str, ...] = ()
    bucket: int | None = None
    """Length of the prefix that it shares with our own key, in bits."""
    last_seen: Time | None = None


@immutable
class Notice(Event):
    """Something that the node's owner should know and that stops nothing."""

    event: ClassVar[str] = "notice"
    message: str


@immutable
class Failure(Event):
    """The command failed; always the last line."""

    event: ClassVar[str] = "error"
    code: int
    """The exit code."""
    message: str
    """One sentence: what happened and what to do."""


def from_json(data: Mapping[str, Any]) -> Event | None:
    """Read an event; None for one that this version does not know.

    Raises:
        ValueError: It is damaged.
    """
    kind = EVENTS.get(str(data.get("event")))
    return None if kind is None else kind.read(data)


def to_line(event: Event) -> bytes:
    """Return the event as one line of JSON, UTF-8, with its newline.

    A path that is not UTF-8 (Python holds it with lone surrogates) comes out escaped, so that
    reading the line gives the same path again.
    """
    data = event.to_json()
    try:
        return json.dumps(data, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(data).encode() + b"\n"


_known_hints: dict[str, list[tuple[str, Any]]] = {}
"""The fields of each event with their types, resolved when first needed (it is slow)."""


def _hints(kind: type[Event]) -> list[tuple[str, Any]]:
    if kind.event not in _known_hints:
        hints = get_type_hints(kind)
        _known_hints[kind.event] = [(item.name, hints[item.name]) for item in fields(kind)]
    return _known_hints[kind.event]


def _plain(value: Any, hint: Any) -> Any:
    """Return a value as JSON has it."""
    match value:
        case Source():
            return {"peer_id": value.peer_id, "bytes": value.bytes, "pieces": value.pieces}
        case tuple():
            return [_plain(item, None) for item in value]
        case float() | int() if Time in (hint, *get_args(hint)):
            moment = datetime.fromtimestamp(value, UTC)
            return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case _:
            return value


def _typed(value: Any, hint: Any) -> Any:
    """Return a JSON value as the field has it."""
    if isinstance(value, list):
        if get_args(hint)[:1] == (Source,):
            return tuple(Source(item["peer_id"], item["bytes"], item["pieces"]) for item in value)
        return tuple(value)
    if isinstance(value, str) and Time in (hint, *get_args(hint)):
        return Time(datetime.fromisoformat(value).timestamp())
    return value
