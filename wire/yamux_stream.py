"""One stream of a yamux session: its windows, its buffers, and what is queued to be sent."""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

from .errors import Misuse, PeerFault
from .immutable import immutable
from .yamux_frames import HEADER_BYTES

INITIAL_WINDOW: Final = 256 * 1024
"""Every stream begins with this window, each way, by definition (yamux specification)."""

MIN_DOUBLING_SECONDS: Final = 0.05
"""Half a window within this time counts as fast whatever the round trip: waking up takes time."""


class Sink(Protocol):
    """Takes a stream's bytes inside the receive pass."""

    def feed(self, data: memoryview) -> int:
        """Take bytes and return how many; the view is only valid during the call.

        What is not taken is kept and fed again by `YamuxStream.resume`.

        Raises:
            PeerFault: The bytes break the protocol; the stream is reset.
        """

    def pass_done(self) -> None:
        """Take note that the pass that fed it is over."""

    def ended(self, reason: str | None) -> None:
        """Take note that no more comes: None = the peer finished, else why it broke off."""


@immutable
class FilePart:
    """A range of a file that is queued on a stream; `source` is the driver's."""

    source: object
    offset: int
    length: int


@immutable
class Read:
    """A part of a file that belongs at `view` of the batch being filled."""

    stream: YamuxStream
    source: object
    offset: int
    view: memoryview
    frame: int
    """Where the frame that it belongs to begins in the batch."""


class Budget:
    """What all connections of a process share.

    Args:
        windows: Bytes that may be granted beyond the initial windows.
    """

    def __init__(self, windows: int) -> None:
        self.windows = windows
        """Bytes that may still be granted."""
        self.unread = 0
        """Bytes received and not consumed."""
        self.queued = 0
        """Bytes in memory that are queued to send."""


class Events(Protocol):
    """What a session tells its driver, during `receive`."""

    def opened(self, stream: YamuxStream) -> None:
        """Take note of a stream that the peer opened."""

    def readable(self, stream: YamuxStream) -> None:
        """Wake who reads: bytes are in the buffer, or the stream has ended."""

    def writable(self, stream: YamuxStream) -> None:
        """Wake who sends: queued bytes went out, or the stream has ended."""

    def faulted(self, stream: YamuxStream, fault: PeerFault) -> None:
        """Take note that a sink found a fault, and that its stream was reset."""

    def ponged(self, opaque: int) -> None:
        """Take the answer to a ping."""

    def going_away(self, code: int) -> None:
        """Take note that the peer opens and takes no more streams."""


class Multiplexer(Protocol):
    """What a stream asks of the session that it belongs to (yamux here, QUIC in `node`)."""

    def count_unread(self, count: int) -> None:
        """Count bytes that were kept (or, below zero, taken)."""

    def count_queued(self, count: int) -> None:
        """Count bytes that were queued to send (or, below zero, laid out)."""

    def credited(self, stream: YamuxStream) -> None:
        """Take note that half of a stream's window has been consumed."""

    def make_ready(self, stream: YamuxStream) -> None:
        """Enter a stream into the round of those with something to send."""

    def abort(self, stream: YamuxStream, reason: str) -> None:
        """Reset a stream."""


class YamuxStream:
    """One stream; made by a `Session`."""

    __slots__ = (
        "_offset", "_session", "_told_end", "acknowledged", "buffer", "consumed", "credited_at",
        "driver", "fin_queued", "id", "inbound", "local_ended", "muted", "out", "queued", "ready",
        "reason", "receive_window", "remote_ended", "reset", "send_window", "sink", "window",
        "window_limit",
    )  # fmt: skip

    def __init__(self, session: Multiplexer, stream_id: int, *, inbound: bool) -> None:
        self._session = session
        self.id = stream_id
        self.inbound = inbound
        self.driver: object = None
        """The driver's own object for this stream."""
        self.acknowledged = False
        self.sink: Sink | None = None
        self.buffer = bytearray()
        """Received and not consumed; never longer than the window."""
        self.window = INITIAL_WINDOW
        self.window_limit = INITIAL_WINDOW
        self.receive_window = INITIAL_WINDOW
        """Bytes that the peer may still send."""
        self.consumed = 0
        """Bytes consumed and not yet credited."""
        self.credited_at = float("-inf")
        self.send_window = INITIAL_WINDOW
        self.out: deque[memoryview | FilePart] = deque()
        self._offset = 0  # how much of the first item of `out` is gone
        self.queued = 0
        """Bytes in `out`."""
        self.ready = False
        self.muted = False
        """The peer takes nothing more: what is queued is dropped (QUIC alone can say so)."""
        self.fin_queued = False
        self.local_ended = False
        self.remote_ended = False
        self.reset = False
        """It is over in both directions without a proper end."""
        self.reason = ""
        """Why it was reset."""
        self._told_end = False

    # Receiving

    def install_sink(self, sink: Sink) -> None:
        """Hand all bytes to `sink` from now on, those in the buffer first."""
        if self.sink is not None:
            raise Misuse("the stream has a sink")
        self.sink = sink
        self.resume()
        if self.reset:
            self.tell_ended(self.reason)

    def resume(self) -> None:
        """Feed the sink what it did not take before.

        Raises:
            PeerFault: As `Sink.feed`; the caller resets the stream.
        """
        sink = self.sink
        if sink is None or self.reset:
            return
        fed = bool(self.buffer)
        while self.buffer:
            data = bytes(self.buffer)
            used = sink.feed(memoryview(data))
            if self.reset:
                return
            if not used:
                break
            self.consume(used)
        if fed:
            sink.pass_done()
        if self.remote_ended and not self.buffer:
            self.tell_ended(None)

    def tell_ended(self, reason: str | None) -> None:
        """Tell the sink once that nothing more comes."""
        if self.sink is not None and not self._told_end:
            self._told_end = True
            self.sink.ended(reason)

    def consume(self, count: int) -> None:
        """Take `count` bytes off the buffer's front and credit them."""
        del self.buffer[:count]
        self._session.count_unread(-count)
        self.credit(count)

    def credit(self, count: int) -> None:
        """Count bytes as consumed: the peer may send as many again."""
        self.consumed += count
        if self.consumed >= self.window // 2:
            self._session.credited(self)

    def allow_window(self, limit: int) -> None:
        """Let the window grow up to `limit` bytes: we asked for bytes on this stream."""
        self.window_limit = max(self.window, limit)

    def growth(self, now: float, rtt: float, budget: Budget) -> int:
        """Double the window if half of it was used up fast; return the bytes granted."""
        fast = now - self.credited_at < max(4 * rtt, MIN_DOUBLING_SECONDS)
        self.credited_at = now
        more = min(self.window, self.window_limit - self.window)
        if not fast or more <= 0 or more > budget.windows:
            return 0
        budget.windows -= more
        self.window += more
        return more

    def give_back_window(self, budget: Budget) -> None:
        """Return what the window took from the budget."""
        budget.windows += self.window - INITIAL_WINDOW
        self.window = self.window_limit = INITIAL_WINDOW

    # Sending

    def queue(self, item: bytes | bytearray | memoryview | FilePart) -> None:
        """Queue bytes (which must not change until they are sent) or a part of a file.

        Raises:
            Misuse: The stream was closed for writing. After a reset the item is dropped.
        """
        if self.fin_queued:
            raise Misuse("the stream is closed for writing")
        size = item.length if isinstance(item, FilePart) else len(item)
        if self.reset or self.muted or not size:
            return
        if isinstance(item, FilePart):
            self.out.append(item)
        else:
            self.out.append(memoryview(item))
            self._session.count_queued(size)
        self.queued += size
        self._session.make_ready(self)

    def close(self) -> None:
        """Queue the end of our half behind what is queued."""
        if not self.fin_queued and not self.reset:
            self.fin_queued = True
            self._session.make_ready(self)

    def abort(self, reason: str = "the stream was reset") -> None:
        """Reset both halves; what is queued or unread is dropped."""
        self._session.abort(self, reason)

    @property
    def can_send(self) -> bool:
        """Whether a frame of this stream could go out."""
        if self.out:
            return self.send_window > 0
        return self.fin_queued and not self.local_ended

    @property
    def wants_fin(self) -> bool:
        """Whether the end is all that is left to send."""
        return self.fin_queued and not self.out

    def take(self, plain: memoryview, at: int, room: int, reads: list[Read]) -> int:
        """Move up to `room` queued bytes to `plain[at:]`; return how many."""
        start = at
        end = at + min(room, self.queued)
        frame = start - HEADER_BYTES
        out = self.out
        while out and at < end:
            item = out[0]
            done = self._offset
            if isinstance(item, FilePart):
                size = min(item.length - done, end - at)
                reads.append(
                    Read(self, item.source, item.offset + done, plain[at : at + size], frame)
                )
                whole = item.length
            else:
                size = min(len(item) - done, end - at)
                plain[at : at + size] = item[done : done + size]
                self._session.count_queued(-size)
                whole = len(item)
            at += size
            if done + size == whole:
                out.popleft()
                self._offset = 0
            else:
                self._offset = done + size
        self.queued -= at - start
        return at - start

    def clear_out(self) -> None:
        """Forget what is queued."""
        held = sum(len(item) for item in self.out if not isinstance(item, FilePart))
        if self.out and not isinstance(self.out[0], FilePart):
            held -= self._offset
        self._session.count_queued(-held)
        self.out.clear()
        self.queued = 0
        self._offset = 0
