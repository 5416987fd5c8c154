"""One secured and multiplexed connection to a peer: opening, accepting and ending streams.

The loops that move bytes are in `pump.py`. A `Connection` belongs to a host, which is told of
inbound streams and of the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import trio
from multiaddr import Multiaddr

from ...wire import multistream
from ...wire.addresses import Scope, is_quic, scope_of, split_relayed
from ...wire.errors import PeerFault
from ...wire.identify import IdentifyInfo
from ...wire.ids import PeerId
from ...wire.yamux import YamuxStream
from .errors import ConnectionLost, StreamRefused
from .keepalive import PING_SECONDS
from .muxing import Carrier, Security
from .negotiation import Answering, Discard, Proposing
from .paths import Path, path_to
from .serving import Service, Serving
from .stream import Stream

if TYPE_CHECKING:
    from .bounds import Budgets

OPEN_SECONDS = 10.0
"""Within which a stream's protocol must be agreed."""

MAX_UNAGREED = 128
"""Inbound streams of one connection whose protocol is not agreed yet (rust: 128). They cost no
task, and a peer may well open a hundred at once before it names a protocol."""

MAX_FAULTS = 32
"""Faults of a peer within `FAULT_SECONDS` that end a stream each; one more ends the connection, so
that it cannot break a rule, get a new stream, and break it again as fast as it likes."""

TOO_MANY_STREAMS = frozenset({"streams-unagreed", "streams-of-protocol"})
MAX_REFUSED_STREAMS = 1024
"""Such faults within `FAULT_SECONDS`: they count by themselves, since a peer that is only in a
hurry may open many streams at once."""

FAULT_SECONDS = 10.0

TOO_MANY_FAULTS = "faults-too-many"
"""The fault of a peer whose connection ends for that; it gets no other for a while."""

MAX_UNREAD = 2 << 20
"""Received and unread bytes of one connection."""

MAX_UNREAD_FETCHING = 18 << 20
"""The same while a fetch of ours runs on it (one grown window more)."""

MAX_QUEUED = 8 << 20
"""Bytes of one connection that are queued to send."""

CLOSING_SECONDS = 30.0
"""How long a stream that we closed waits for the peer's end before it is reset."""


class Connection:
    """A connection; its attributes do not change but for `info`, `rtt` and the counters."""

    def __init__(
        self,
        raw: Carrier,
        secured: Security,
        *,
        direction: Literal["in", "out"],
        services: dict[str, Service],
        budgets: Budgets,
        faulted: Callable[[Connection, PeerFault], None],
        now: Callable[[], float],
        path: Path | None = None,
        limited: bool = False,
    ) -> None:
        self.peer_id: PeerId = secured.peer
        self.key = secured.key
        self.direction: Literal["in", "out"] = direction
        self.is_initiator = direction == "out"
        self.remote: Multiaddr = raw.remote
        self.local: Multiaddr = raw.local
        scope = scope_of(raw.remote)
        self.scope = Scope.GLOBAL if scope is None else scope
        self.path = path_to(raw.remote) if path is None else path
        self.limited = limited
        """Whether a relay ends it after some time or bytes: it is for meeting, not for content."""
        self.upgrading = False
        """Whether somebody is at finding a better path to the peer."""
        self.handshake_hash = secured.handshake_hash
        self.opened_at = now()
        self._began = trio.current_time()
        self.info: IdentifyInfo | None = None
        """What identify told; None until it has."""
        self.fetching = 0
        """Fetches of ours on this connection: more unread bytes are allowed, and it is kept."""
        self.used_at = trio.current_time()
        """When a stream was last opened or closed (trio's clock)."""
        self._services = services
        self._budgets = budgets
        self._tell_fault = faulted
        self._end = trio.Event()
        self._identified = trio.Event()
        self._reason = ""
        self._serving = Serving(services, self.count)
        self._unagreed: dict[Stream, float] = {}
        self._closing: dict[YamuxStream, float] = {}
        self._accepted: list[Stream] = []
        self._lazy: list[Stream] = []
        self._faults = self._refused_streams = 0  # since housekeeping last came by
        self.session, self._pump = secured.mux(self, budgets)
        self.session.rtt = secured.rtt
        self.session.now = trio.current_time
        self._nursery: trio.Nursery | None = None

    # Facts

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._end.is_set()

    @property
    def usable(self) -> bool:
        """Whether new streams may be opened: neither side has said goodbye."""
        return not (self.closed or self._pump.closing or self.session.gone_away)

    @property
    def age(self) -> float:
        """Seconds since it began."""
        return trio.current_time() - self._began

    @property
    def reason(self) -> str:
        """Why it ended."""
        return self._reason

    @property
    def rtt(self) -> float:
        """Round trip in seconds, last measured."""
        return self.session.rtt

    @property
    def bytes_in(self) -> int:
        """Bytes received, as they came over the wire."""
        return self._pump.bytes_in

    @property
    def bytes_out(self) -> int:
        """Bytes sent, as they went over the wire."""
        return self._pump.bytes_out

    @property
    def congested(self) -> bool:
        """Whether so much is queued that senders must wait."""
        return self.session.queued > MAX_QUEUED or self._budgets.congested

    @property
    def transport(self) -> str:
        """What it runs over: tcp or quic (over a relay, what leads to that)."""
        over = split_relayed(self.remote)
        return "quic" if is_quic(self.remote if over is None else over[0]) else "tcp"

    @property
    def streams(self) -> int:
        """Open streams, both ways."""
        return len(self.session.streams)

    def speaks(self, protocol: str) -> bool | None:
        """Return whether the peer serves a protocol; None while identify has not told."""
        return None if self.info is None else protocol in self.info.protocols

    # Life

    async def run(self) -> None:
        """Run the connection until it ends; never raises for what a peer does."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._housekeeping)
                why = await self._pump.run(self._drain_events)
                self._reason = self._reason or why
                nursery.cancel_scope.cancel()
        finally:
            self._reason = self._reason or "the connection was closed"
            self.session.close_all(self._reason)
            self._end.set()
            self._identified.set()

    def close(self, reason: str = "closed") -> None:
        """Say goodbye and end as soon as what is queued has gone out."""
        self._reason = self._reason or reason
        self._pump.close()

    async def aclose(self, reason: str = "closed") -> None:
        """Close and wait for the end."""
        self.close(reason)
        await self._end.wait()

    async def wait_closed(self) -> None:
        """Wait until the connection has ended."""
        await self._end.wait()

    async def identified(self) -> IdentifyInfo:
        """Wait for what identify tells.

        Raises:
            ConnectionLost: The connection ended before.
        """
        await self._identified.wait()
        if self.info is None:
            raise ConnectionLost(self._reason or "the peer did not identify itself")
        return self.info

    def doubt(self, within: float = PING_SECONDS) -> None:
        """See whether the peer is still there; if it does not answer the connection ends."""
        self._pump.doubt(within)

    def set_info(self, info: IdentifyInfo | None) -> None:
        """Take what identify told (None: it failed)."""
        if info is not None:
            self.info = info
        self._identified.set()

    async def _housekeeping(self) -> None:
        """Reset streams that we closed and whose peers do not, and those without a protocol."""
        while True:
            await trio.sleep(FAULT_SECONDS)
            self._faults = self._refused_streams = 0
            now = trio.current_time()
            for inner in [i for i, at in self._closing.items() if at <= now - CLOSING_SECONDS]:
                inner.abort("closed")
                self._closing.pop(inner, None)
            for stream in [s for s, at in self._unagreed.items() if at <= now - OPEN_SECONDS]:
                stream.reset("no protocol was agreed in time")
            self.wake_writer()

    # Opening streams

    async def open_stream(self, protocols: Sequence[str], *, lazy: bool = False) -> Stream:
        """Open a stream for the first of `protocols` that the peer speaks.

        Args:
            protocols: Best first.
            lazy: Take the first one for agreed, so that a request goes out at once; if the peer
                refuses after all, the stream is reset. A protocol that identify has named is
                always taken for agreed.

        Raises:
            StreamRefused: The peer speaks none of them, or takes no more streams.
            ConnectionLost: The connection has ended.
        """
        if not self.usable:
            raise ConnectionLost(self._reason or "the connection is closing")
        if not self.session.can_open:
            raise StreamRefused("no more streams can be opened on this connection")
        self.used_at = trio.current_time()
        known = [name for name in protocols if self.speaks(name)] or list(protocols[:lazy])
        stream = Stream(self, self.session.open())
        negotiation = Proposing(self, stream, multistream.Initiator(known or protocols))
        stream.queue(negotiation.initiator.start())
        if known:
            stream.protocol = known[0]
            stream.negotiate(negotiation)
            await trio.lowlevel.checkpoint()
            return stream
        stream.negotiate(negotiation)
        try:
            with trio.fail_after(OPEN_SECONDS):
                await negotiation.decided.wait()
        except trio.TooSlowError:
            stream.reset("no answer")
            raise StreamRefused(
                f"no answer to {protocols[0]} within {OPEN_SECONDS:.0f} s"
            ) from None
        # Cancelled or failed: the peer must not hold the stream open; it goes on outwards.
        except BaseException:
            stream.reset("cancelled")
            raise
        if negotiation.initiator.agreed is None:
            if self.closed:
                raise ConnectionLost(self._reason)
            raise StreamRefused(f"the peer does not speak {' or '.join(protocols)}")
        return stream

    # What the streams and the pump call

    def wake_writer(self) -> None:
        """Let the writer look for something to send."""
        self._pump.wake()

    def stream_closed(self, inner: YamuxStream) -> None:
        """End a stream properly: our half after what is queued, theirs by dropping what comes."""
        self.used_at = trio.current_time()
        inner.close()
        self.session.forget_buffer(inner)
        if not inner.remote_ended and not inner.reset:
            inner.sink = Discard()
            inner.consumed = -(1 << 62)  # what is dropped is not asked for again
            self._closing[inner] = trio.current_time()
        self.wake_writer()

    def stream_faulted(self, inner: YamuxStream, fault: PeerFault) -> None:
        """Reset a stream whose peer broke the rules, and count the reason."""
        inner.abort(str(fault))
        self.faulted(inner, fault)

    def count(self, fault: PeerFault) -> None:
        """Count a fault of this peer that ends a stream; too many end the connection."""
        self._tell_fault(self, fault)
        if fault.reason in TOO_MANY_STREAMS:
            self._refused_streams += 1
        else:
            self._faults += 1
        over = self._faults > MAX_FAULTS or self._refused_streams > MAX_REFUSED_STREAMS
        if over and not self._pump.broken:
            self._tell_fault(self, PeerFault(TOO_MANY_FAULTS, fault.reason))
            self._reason = self._reason or "the peer broke too many rules"
            self._pump.break_off(self._reason)

    # Events of the session (inside the receive pass)

    def opened(self, stream: YamuxStream) -> None:
        """Take an inbound stream: its protocol is agreed first, inside the receive pass."""
        driver = Stream(self, stream)
        if len(self._unagreed) >= MAX_UNAGREED or self._pump.closing:
            self.count(PeerFault("streams-unagreed"))
            driver.reset("too many streams without a protocol")
            return
        self._unagreed[driver] = trio.current_time()
        responder = multistream.Responder(self._services.__contains__, lambda: list(self._services))
        driver.queue(responder.start())
        driver.negotiate(Answering(self, driver, responder))

    def agreed(self, stream: Stream) -> None:
        """Start serving an inbound stream behind the pass in which its protocol was agreed."""
        self._unagreed.pop(stream, None)
        self._accepted.append(stream)

    def disagreed(self, stream: Stream) -> None:
        """Forget an inbound stream that ended before its protocol was agreed."""
        self._unagreed.pop(stream, None)
        stream.reset("no protocol was agreed")

    def readable(self, stream: YamuxStream) -> None:
        """Wake the stream's reader."""
        if isinstance(stream.driver, Stream):
            stream.driver.wake_reader()
        if stream.remote_ended or stream.reset:
            self._closing.pop(stream, None)

    def writable(self, stream: YamuxStream) -> None:
        """Wake the stream's sender."""
        if isinstance(stream.driver, Stream):
            stream.driver.wake_writer()

    def faulted(self, stream: YamuxStream, fault: PeerFault) -> None:
        """Count the fault that ended a stream."""
        self.count(fault)

    def ponged(self, opaque: int) -> None:
        """Take the answer to a keep-alive ping."""
        self._pump.ponged(opaque)

    def going_away(self, code: int) -> None:
        """Take the peer's goodbye: it ends the connection when its streams are done."""
        self._reason = self._reason or f"the peer is going away ({code})"

    def resume_later(self, stream: Stream) -> None:
        """Feed a stream's own sink behind the pass in which its protocol was agreed."""
        self._lazy.append(stream)

    def _drain_events(self) -> None:
        """Do what the last pass left to be done."""
        self.session.pass_done()
        if self._lazy:
            lazy, self._lazy = self._lazy, []
            for stream in lazy:
                stream.resume()
        if self._accepted:
            accepted, self._accepted = self._accepted, []
            self.used_at = trio.current_time()
            assert self._nursery is not None
            for stream in accepted:
                handler = self._serving.begin(stream)
                if handler is not None:
                    self._nursery.start_soon(self._serving.run, stream, handler)
        if self.session.unread:
            self._hold_memory()

    def _hold_memory(self) -> None:
        """Reset the stream with most unread bytes while there are too many."""
        limit = MAX_UNREAD_FETCHING if self.fetching else MAX_UNREAD
        while self.session.unread > limit:
            worst = self.most_unread()
            if worst is None:
                break
            self.drop_unread(worst)
        self._budgets.hold_memory()

    def most_unread(self) -> YamuxStream | None:
        """Return the open stream with most unread bytes, if any has some."""
        worst = max(self.session.streams.values(), key=lambda s: len(s.buffer), default=None)
        return worst if worst is not None and worst.buffer else None

    def drop_unread(self, inner: YamuxStream) -> None:
        """Reset a stream because of its unread bytes."""
        self.stream_faulted(inner, PeerFault("unread-memory", f"{len(inner.buffer)} bytes"))
        self.wake_writer()
