"""The two loops of a connection: ciphertext to streams, and streams to ciphertext.

Receiving is one synchronous pass per socket read: every whole Noise frame is opened into a small
plain buffer and walked there. Sending lays out one batch, reads file ranges straight behind their
headers, seals it and sends it with one call. Large buffers live as long as the connection is busy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import trio

from ...wire import noise, yamux_frames
from ...wire.errors import PeerFault
from ...wire.yamux import Read, Session
from ...wire.yamux_frames import HEADER_BYTES
from ..environment import RawStream, RunBlocking
from .keepalive import PING_SECONDS, KeepAlive
from .reading import read_run, runs_of, withdraw

if TYPE_CHECKING:
    from .secure import Secured

IDLE_BUFFER = 8 * 1024
"""Ciphertext buffer of a connection on which little comes."""

LARGE_READ = 1 << 19
"""Bytes asked from the socket at once while more comes than fits the small buffer: a pass over so
many, hashing included, takes about 2 ms, and the rest of the node waits for it."""

MIDDLE_READ = 64 * 1024
MAX_LARGE = 32
"""Connections that read much at once, in the process; further ones read 64 KiB: peers that send
bursts on all connections must not cost a large buffer each."""

SMALL_BATCH = 64 * 1024 + 2 * HEADER_BYTES
LARGE_BATCH = 1 << 20
"""Plain bytes sealed and sent at once."""

BATCH_SECONDS = 0.05
"""A batch takes about this long at the measured rate, so that a ping never waits for long."""

MAX_LARGE_BATCHES = 16
"""Connections that have the two buffers of a large batch, in the process; further ones send 64 KiB
at a time: peers that ask for much and then read nothing must not cost 2 MiB each."""

IDLE_SECONDS = 2.0
"""After which large buffers are given back."""

SEND_SECONDS = 60.0
"""Within which one batch must go out; a peer that does not read is dropped."""

PING_EVERY = 30.0
"""Seconds between two pings (go)."""

DRAIN_SECONDS = 2.0
"""How long a connection that we close waits for the peer to make room for what is queued."""

GOODBYE_SECONDS = 1.0
"""How long we wait for the peer's end of a connection that we close."""


class Faults(Protocol):
    """Who is told of faults that end the connection or a stream."""

    def count(self, fault: PeerFault) -> None:
        """Count a fault."""


class Buffers:
    """What all connections of a host share."""

    def __init__(self) -> None:
        self.plain = memoryview(bytearray(noise.MAX_PLAIN + HEADER_BYTES))
        """For the plain text of one frame behind the beginning of a header; nothing stays in it
        between two passes."""
        self.large_left = MAX_LARGE
        self.large_batches_left = MAX_LARGE_BATCHES


class _Ended(Exception):
    """The connection is over; the text says why."""


class Pump:
    """Moves the bytes of one connection."""

    def __init__(
        self,
        raw: RawStream,
        secured: Secured,
        session: Session,
        faults: Faults,
        run_blocking: RunBlocking,
        buffers: Buffers,
    ) -> None:
        """Take over a secured stream.

        Args:
            raw: The stream.
            secured: What the upgrade gave.
            session: Where the plain bytes go and come from.
            faults: Told of what the peer does wrong.
            run_blocking: Reads files that are not in memory.
            buffers: Shared with all other connections.
        """
        self._raw = raw
        self._opener = secured.session.opener
        self._sealer = secured.session.sealer
        self._first_cipher = secured.cipher
        self._first_plain = secured.plain
        self._session = session
        self._faults = faults
        self._scope = trio.CancelScope()
        self._run_blocking = run_blocking
        self._buffers = buffers
        self._large = False  # one of the large buffers is ours
        self._large_batch = False  # a large batch is
        self._rest = b""  # the beginning of a header, received and not walked yet
        self._wake = trio.Event()
        self._alive = KeepAlive(PING_EVERY, self._ping, lambda: self.bytes_in)
        self._rate = 0.0
        self.closing = False
        self._drain_by = 0.0
        self.broken = False
        """The peer is at fault: nothing more is read."""
        self.bytes_in = 0
        self.bytes_out = 0

    def wake(self) -> None:
        """Let the writer look for something to send."""
        if not self._wake.is_set() and (self._session.has_output or self.closing):
            self._wake.set()

    def close(self) -> None:
        """Say goodbye, send what is queued, and end."""
        if not self.closing:
            self.closing = True
            self._drain_by = trio.current_time() + DRAIN_SECONDS
            self._session.go_away(yamux_frames.NORMAL)
            self.wake()

    def break_off(self, reason: str) -> None:
        """Drop everything but a word to the peer that it is at fault, and end soon."""
        self._session.close_all(reason)
        self._session.go_away(yamux_frames.PROTOCOL_ERROR)
        self.closing = self.broken = True
        self._scope.deadline = trio.current_time() + GOODBYE_SECONDS
        self.wake()

    def doubt(self, within: float = PING_SECONDS) -> None:
        """Ping now, with so many seconds for the answer: the peer may be gone."""
        self._alive.doubt(within)

    def ponged(self, opaque: int) -> None:
        """Take the answer to a ping."""
        seconds = self._alive.ponged(opaque)
        if seconds is not None:
            self._session.rtt = seconds

    async def run(self, pass_done: Callable[[], None]) -> str:
        """Run until the connection ends; return why it did."""
        reason = ""

        async def ending(loop: Callable[[], object]) -> None:
            nonlocal reason
            try:
                await loop()  # type: ignore[misc]
            except PeerFault as fault:
                self._faults.count(fault)
                reason = reason or str(fault)
                self.break_off(reason)
                return
            except _Ended as end:
                reason = reason or str(end)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                reason = reason or "the connection broke"
            nursery.cancel_scope.cancel()

        async def read() -> None:
            await self._read(pass_done)

        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                nursery.start_soon(ending, read)
                nursery.start_soon(ending, self._write)
                nursery.start_soon(ending, self._keep_alive)
        finally:
            self._give_back()
            self._give_back_batch()
            with trio.CancelScope(shield=True), trio.move_on_after(GOODBYE_SECONDS):
                await trio.aclose_forcefully(self._raw)  # type: ignore[arg-type]
        return reason

    # Receiving

    async def _read(self, pass_done: Callable[[], None]) -> None:
        if self._first_plain:
            plain = memoryview(bytearray(self._first_plain))
            self._rest = bytes(plain[self._session.receive(plain) :])
        have = fresh = len(self._first_cipher)
        cipher = _moved(memoryview(self._first_cipher), have, IDLE_BUFFER)
        self._first_cipher = self._first_plain = b""
        while True:
            if fresh:
                have = self._pass(cipher, have)
                pass_done()
                self.wake()
                if self.broken:
                    await trio.sleep_forever()
            room = min(len(cipher) - have, LARGE_READ)
            if len(cipher) > MIDDLE_READ:
                fresh = -1
                with trio.move_on_after(IDLE_SECONDS):
                    fresh = await self._raw.receive_into(cipher[have : have + room])
                if fresh < 0:
                    cipher, fresh = _moved(cipher, have, IDLE_BUFFER), 0
                    self._give_back()
                    continue
            else:
                fresh = await self._raw.receive_into(cipher[have:])
            if fresh == room and not self._large:
                cipher = self._grown(cipher)
            if fresh == 0:
                raise _Ended("the peer closed the connection")
            self.bytes_in += fresh
            have += fresh

    def _grown(self, cipher: memoryview) -> memoryview:
        """Return a larger buffer, if there is one: a read did not leave room in this one."""
        self._large = self._buffers.large_left > 0
        self._buffers.large_left -= self._large
        # A whole frame must fit behind each read, whatever is left of the last one.
        size = (LARGE_READ if self._large else MIDDLE_READ) + noise.MAX_MESSAGE + 2
        return _moved(cipher, len(cipher), size) if size > len(cipher) else cipher

    def _give_back(self) -> None:
        self._buffers.large_left += self._large
        self._large = False

    def _pass(self, cipher: memoryview, have: int) -> int:
        """Open and walk all whole frames; move the rest to the front and return its length."""
        receive, open_frame, plain = self._session.receive, self._opener.open, self._buffers.plain
        left = len(self._rest)
        plain[:left] = self._rest
        at = 0
        while True:
            consumed, produced = open_frame(cipher[at:have], plain[left:])
            if not consumed:
                break
            at += consumed
            total = left + produced
            used = receive(plain[:total])
            left = total - used
            if left:
                plain[:left] = plain[used:total]
        self._rest = bytes(plain[:left])
        have -= at
        if at:
            cipher[:have] = cipher[at : at + have]
        return have

    # Sending

    async def _write(self) -> None:
        size = 0
        plain = out = memoryview(b"")
        while True:
            if not self._session.has_output:
                if self.closing and not self._draining:
                    await self._goodbye()
                self._wake = trio.Event()
                if self.closing:
                    with trio.move_on_at(self._drain_by):
                        await self._wake.wait()
                    continue
                if size > SMALL_BATCH:
                    with trio.move_on_after(IDLE_SECONDS):
                        await self._wake.wait()
                if not self._wake.is_set():
                    size = 0
                    plain = out = memoryview(b"")
                    self._give_back_batch()
                    await self._wake.wait()
                continue
            want = self._batch_size()
            if want > size:
                size = SMALL_BATCH if want <= SMALL_BATCH else LARGE_BATCH
                plain = memoryview(bytearray(size))
                out = memoryview(bytearray(noise.sealed_size(size) + 18))
            length, lead, reads = self._session.fill(plain[:want])
            if reads:
                length = await self._perform(reads, plain, length)
            written = self._sealer.seal(plain[:length], out, lead)
            started = trio.current_time()
            with trio.move_on_after(SEND_SECONDS) as scope:
                await self._raw.send_all(out[:written])
            if scope.cancelled_caught:
                raise _Ended(f"the peer took nothing for {SEND_SECONDS:.0f} s")
            self.bytes_out += written
            self._measure(written, trio.current_time() - started)

    @property
    def _draining(self) -> bool:
        """Whether something is queued that the peer's windows have no room for yet."""
        queued = any(stream.queued for stream in self._session.streams.values())
        return queued and not self.broken and trio.current_time() < self._drain_by

    def _batch_size(self) -> int:
        wanted = int(self._rate * BATCH_SECONDS) if self._rate else SMALL_BATCH
        if wanted > SMALL_BATCH and not self._large_batch:
            self._large_batch = self._buffers.large_batches_left > 0
            self._buffers.large_batches_left -= self._large_batch
        return max(SMALL_BATCH, min(wanted, LARGE_BATCH if self._large_batch else SMALL_BATCH))

    def _give_back_batch(self) -> None:
        self._buffers.large_batches_left += self._large_batch
        self._large_batch = False

    def _measure(self, count: int, seconds: float) -> None:
        if count >= SMALL_BATCH // 2:
            rate = count / max(seconds, 1e-4)
            self._rate = rate if not self._rate else 0.75 * self._rate + 0.25 * rate

    async def _perform(self, reads: list[Read], plain: memoryview, length: int) -> int:
        """Read file parts into the batch; return its length without the frames that failed."""
        failed: dict[int, int] = {}  # stream id -> where the first frame stands that fails
        for run in runs_of(reads):
            why = await read_run(run, self._run_blocking)
            if why is not None:
                failed.setdefault(run[0].stream.id, run[0].frame)
                withdraw(run[0], why)
        for stream_id, frame in failed.items():
            # Neither old bytes of the buffer nor a hole: the stream ends before what is missing.
            length = yamux_frames.cut(plain, length, stream_id, frame)
        return length

    async def _goodbye(self) -> None:
        with trio.move_on_after(GOODBYE_SECONDS):
            await self._raw.send_eof()
            if not self.broken:
                await trio.sleep(GOODBYE_SECONDS)  # the reader sees the peer's end before
        raise _Ended("closed")

    # Keeping alive

    def _ping(self, number: int) -> None:
        self._session.ping(number)
        self.wake()

    async def _keep_alive(self) -> None:
        raise _Ended(await self._alive.run())


def _moved(old: memoryview, have: int, more: int) -> memoryview:
    """Return a buffer with the first `have` bytes of the old one and room for `more`."""
    fresh = memoryview(bytearray(have + more))
    fresh[:have] = old[:have]
    return fresh
