"""What happens on a QUIC connection, as the library tells it one by one."""

from __future__ import annotations

from typing import NamedTuple


class Ended(NamedTuple):
    """The connection is over."""

    code: int
    reason: str
    by_peer: bool


class StreamData(NamedTuple):
    """Bytes of a stream, in order; `fin` = the last."""

    stream: int
    data: bytes
    fin: bool


class StreamReset(NamedTuple):
    """The peer gave up sending on a stream."""

    stream: int


class StreamStopped(NamedTuple):
    """The peer takes nothing more on a stream."""

    stream: int


class StreamFinished(NamedTuple):
    """A stream is over in both directions, and will not be heard of again."""

    stream: int


class Ponged(NamedTuple):
    """The peer answered a ping."""

    ping: int


class IdAdded(NamedTuple):
    """The peer may send to one more connection id of ours."""

    id: bytes


class IdRetired(NamedTuple):
    """The peer will not send to this connection id any more."""

    id: bytes


Event = (
    Ended | StreamData | StreamReset | StreamStopped | StreamFinished | Ponged | IdAdded | IdRetired
)
