"""What a connection needs of its transport, be it Noise and yamux over TCP, or QUIC."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from multiaddr import Multiaddr

from ...wire.ids import PeerId
from ...wire.keys import PublicKey
from ...wire.yamux import YamuxStream

if TYPE_CHECKING:
    from .bounds import Budgets
    from .connection import Connection


class Carrier(Protocol):
    """One way to one peer, before or after it is secured."""

    @property
    def remote(self) -> Multiaddr:
        """The other end's address, without a peer id."""
        ...

    @property
    def local(self) -> Multiaddr:
        """Our end's address, without a peer id."""
        ...

    async def aclose(self) -> None:
        """End it."""
        ...


@runtime_checkable
class SelfSecuring(Carrier, Protocol):
    """A carrier that brings its own handshake and its own streams."""

    client: bool
    """Whether we dialled: the roles are fixed."""

    async def secure(self, expected: PeerId | None) -> Security:
        """Finish the handshake; the caller brings the deadline and closes when this fails."""
        ...


class Muxer(Protocol):
    """The streams of one connection; a state machine."""

    streams: dict[int, YamuxStream]
    """Streams that are not over in both directions."""
    unread: int
    """Bytes received and not consumed, over all streams."""
    queued: int
    """Bytes in memory that are queued to send; files not counted."""
    gone_away: bool
    """The peer said that it goes away, or we did."""
    rtt: float
    """Round trip in seconds."""
    now: Callable[[], float]

    @property
    def can_open(self) -> bool:
        """Whether `open` is allowed."""
        ...

    @property
    def inbound(self) -> int:
        """How many streams of the peer are open."""
        ...

    def open(self) -> YamuxStream:
        """Open a stream."""
        ...

    def forget_buffer(self, stream: YamuxStream) -> None:
        """Throw away what the stream has received and nobody read."""
        ...

    def pass_done(self) -> None:
        """Tell the sinks that were fed that nothing more comes in this pass."""
        ...

    def close_all(self, reason: str) -> None:
        """End all streams because the connection has ended."""
        ...


class Mover(Protocol):
    """Moves the bytes of one connection."""

    closing: bool
    broken: bool
    """The peer is at fault: nothing more is read."""

    @property
    def bytes_in(self) -> int:
        """Bytes received, as they came over the wire."""
        ...

    @property
    def bytes_out(self) -> int:
        """Bytes sent."""
        ...

    def wake(self) -> None:
        """Look for something to send."""
        ...

    def close(self) -> None:
        """Say goodbye, send what is queued, and end."""
        ...

    def break_off(self, reason: str) -> None:
        """Drop everything but a word to the peer that it is at fault, and end soon."""
        ...

    def doubt(self, within: float) -> None:
        """Ping now, with so many seconds for the answer: the peer may be gone."""
        ...

    def ponged(self, opaque: int) -> None:
        """Take the answer to a ping."""
        ...

    async def run(self, pass_done: Callable[[], None]) -> str:
        """Run until the connection ends; return why it did."""
        ...


class Security(Protocol):
    """What the upgrade of a raw stream gives: who is there, and how streams run over it."""

    @property
    def peer(self) -> PeerId:
        """Who is at the other end."""
        ...

    @property
    def key(self) -> PublicKey:
        """The peer's identity key."""
        ...

    @property
    def handshake_hash(self) -> bytes:
        """32 bytes that both sides of this handshake know, and nobody else."""
        ...

    @property
    def rtt(self) -> float:
        """Round trip in seconds, as the handshake showed it."""
        ...

    def mux(self, connection: Connection, budgets: Budgets) -> tuple[Muxer, Mover]:
        """Make what runs the streams; called once, by the connection."""
        ...
