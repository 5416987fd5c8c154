"""Opening a stream between two places of the simulated network, as TCP does."""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from ..wire.addresses import tcp_addr
from .stream import Half, MemoryStream

if TYPE_CHECKING:
    from .network import Network, Place

RETRIES: Final = (1.0, 2.0, 4.0, 8.0)
"""Seconds after which a packet that got no answer is sent again, as Linux does."""


def error_of(number: int) -> OSError:
    """Return the error of the operating system with this number."""
    return OSError(number, os.strerror(number))


class Way:
    """How the bytes of one direction of a stream travel."""

    def __init__(self, network: Network, source: Place, target: Place) -> None:
        self._network = network
        self._source = source
        self._target = target
        self._last = 0.0

    def carry(self, data: bytes, deliver: Callable[[], None]) -> float:
        """Send the bytes; return when they have left the source."""
        size = len(data)
        now = trio.current_time()
        self._network.bytes += size
        self._network.note("send", self._source.name, self._target.name, size, zlib.crc32(data))
        path = self._network.path(self._source, self._target)
        left = path.pipe.pass_through(self._source.up.pass_through(now, size), size)
        at = self._target.down.pass_through(left + path.delay(), size)
        self._last = at = max(at, self._last)
        self._network.deliver_at(at, path, deliver)
        return left


class Dial:
    """One attempt to open a stream: a packet there, its answer back."""

    def __init__(self, source: Place, ip: str, port: int, source_port: int | None) -> None:
        self._source = source
        self._network = source.network
        self._target = self._network.find(source, ip)
        self._key = (ip, port)
        self._remote = tcp_addr(ip, port)
        self._inner = (source.source_ip(ip), source_port or source.free_port())
        self._local = tcp_addr(*self._inner)
        self._seen = self._inner  # as the other side sees us
        self._there = self._remote  # as the other side sees itself
        self._decided = trio.Event()
        self._tries = 0
        self._failure: OSError | None = None
        self._stream: MemoryStream | None = None
        self._given_up = False

    async def wait(self) -> MemoryStream:
        """Wait for the stream, or for why there is none."""
        if self._target is None:
            await trio.sleep(self._network.default.latency)
            raise error_of(errno.EHOSTUNREACH)
        ends = (self._local, self._remote)
        if ends in self._source.dials or any(
            (stream.local, stream.remote) == ends for stream in self._source.streams
        ):
            raise error_of(errno.EADDRNOTAVAIL)
        self._source.dials[ends] = self
        self._leave()
        self._network.send(self._source, self._target, self._reach)
        try:
            await self._decided.wait()
        except trio.Cancelled:
            self._given_up = True
            if self._stream is not None:
                self._stream.break_off("the dialler gave up")
            raise
        finally:
            del self._source.dials[ends]
        if self._failure is not None:
            raise self._failure
        assert self._stream is not None
        return self._stream

    def _leave(self) -> None:
        """Pass the router between us and the target, if there is one."""
        source, target = self._source, self._target
        assert target is not None
        if source.behind is not None and target.behind is not source.behind:
            self._seen = source.behind.send(source, self._inner, self._key)

    def _reach(self) -> None:
        """Arrive at the target, or at the router in front of it."""
        if self._decided.is_set() or (self._given_up and self._tries):
            return
        found = self._arrival()
        if found is None:
            self._dropped()
            return
        target, key = found
        self._target = target
        self._there = tcp_addr(*key)
        crossing = target.dials.get((self._there, tcp_addr(*self._seen)))
        if crossing is not None:
            self._meet(crossing)
            return
        if not target.reachable and target is not self._source:
            self._dropped()
            return
        listener = target.listeners.get(key)
        if listener is None or listener.full:
            self._failure = error_of(errno.ECONNREFUSED)
        else:
            self._stream, theirs = self._join()
            listener.arrive(theirs)
            self._network.note("open", self._source.name, target.name, self._key[1])
        self._network.send(target, self._source, self._answered)

    def _arrival(self) -> tuple[Place, tuple[str, int]] | None:
        """Return who gets the packet, and at which address of its own; None = nobody."""
        box = self._network.box_at(self._key[0])
        if box is not None:
            return None if self._source.behind is box else box.receive(self._key[1], self._seen)
        assert self._target is not None
        return self._target, self._key

    def _dropped(self) -> None:
        """Send the packet again; at last no answer ever comes."""
        target = self._target
        assert target is not None
        if self._tries < len(RETRIES):
            self._network.after(RETRIES[self._tries], self._source, target, self._reach)
            self._tries += 1

    def _meet(self, other: Dial) -> None:
        """Become one stream with a dial that comes the other way (RFC 9293, simultaneous open)."""
        self._stream, other._stream = self._join()
        assert self._target is not None
        self._network.note("cross", self._source.name, self._target.name, self._key[1])
        other._decided.set()
        self._network.send(self._target, self._source, self._answered)

    def _join(self) -> tuple[MemoryStream, MemoryStream]:
        """Return the two ends of a new stream, ours first."""
        target = self._target
        assert target is not None
        there = Half(Way(self._network, self._source, target))
        back = Half(Way(self._network, target, self._source))
        there.join(back)
        back.join(there)
        ours = MemoryStream(back, there, self._remote, self._local)
        theirs = MemoryStream(there, back, tcp_addr(*self._seen), self._there)
        for stream, here, other in (ours, self._source, target), (theirs, target, self._source):
            here.streams[stream] = other
            stream.on_closed = _Forget(here, stream)
        return ours, theirs

    def _answered(self) -> None:
        """Arrive back at the dialler."""
        if self._given_up and self._stream is not None:
            self._stream.break_off("the dialler gave up")
        self._decided.set()


class _Forget:
    """Takes a closed stream out of its place's books."""

    def __init__(self, place: Place, stream: MemoryStream) -> None:
        self._place = place
        self._stream = stream

    def __call__(self) -> None:
        self._place.streams.pop(self._stream, None)
