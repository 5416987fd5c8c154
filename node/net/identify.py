"""identify and ping: telling and learning who is at the other end of a connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import trio
from multiaddr import Multiaddr

from ...wire.addresses import is_relayed, is_tellable
from ...wire.delimited import DelimitedReader, frame
from ...wire.errors import PeerFault
from ...wire.identify import (
    IDENTIFY,
    IDENTIFY_PUSH,
    MAX_MESSAGES,
    MAX_READ_BYTES,
    IdentifyInfo,
)
from ...wire.keys import PublicKey
from .connection import Connection
from .errors import NetError, StreamRefused
from .stream import Stream

if TYPE_CHECKING:
    from .host import Host

PING = "/ipfs/ping/1.0.0"
PING_BYTES = 32
PING_IDLE_SECONDS = 60.0
"""A ping stream without pings for so long is closed."""

IDENTIFY_SECONDS = 10.0
"""For the whole exchange (go: 5 s for each message)."""

PUSH_AT_ONCE = 32
"""Peers that a push goes to at a time."""

PUSH_DELAY = 1.0
"""Changes within this time go out as one push."""

PUSH_EVERY = 5.0
MAX_PUSHES = 5
"""A peer may push 5 times in a row, then once in 5 s; more are ignored (go: one in 5 s)."""


class Identify:
    """Both sides of identify for a host."""

    def __init__(self, host: Host, agent: str) -> None:
        self._host = host
        self._agent = agent
        self._pushes: dict[Connection, float] = {}
        """When the peer's allowance of pushes is full again."""
        self._told: dict[Connection, bytes] = {}
        """What we said last."""
        self._changed = trio.Event()

    def serve(self) -> None:
        """Register what we answer."""
        self._host.handle(IDENTIFY, self._answer, max_inbound=4)
        self._host.handle(IDENTIFY_PUSH, self._take_push, max_inbound=2)
        self._host.handle(PING, answer_pings, max_inbound=2)

    def _ourselves(self, connection: Connection) -> IdentifyInfo:
        return IdentifyInfo(
            public_key=self._host.identity.public.message,
            listen_addrs=self._tellable(connection),
            protocols=tuple(self._host.protocols),
            observed_addr=None if is_relayed(connection.remote) else connection.remote,
            protocol_version="shoal/1",
            agent_version=self._agent,
        )

    def _tellable(self, connection: Connection) -> tuple[Multiaddr, ...]:
        addrs: Sequence[Multiaddr] = self._host.told_addrs()
        return tuple(addr for addr in addrs if is_tellable(addr, connection.scope))

    def _said(self, connection: Connection) -> bytes:
        """Return what we say of ourselves, and remember it."""
        said = self._told[connection] = self._ourselves(connection).encode()
        return said

    async def _answer(self, stream: Stream) -> None:
        with trio.fail_after(IDENTIFY_SECONDS):
            await stream.send_all(frame(self._said(stream.connection)))
            await stream.send_eof()

    async def ask(self, connection: Connection) -> None:
        """Ask the peer who it is, and remember what it says."""
        info: IdentifyInfo | None = None
        try:
            with trio.fail_after(IDENTIFY_SECONDS):
                async with await connection.open_stream([IDENTIFY], lazy=True) as stream:
                    info = await _read(stream)
        except PeerFault as fault:
            connection.count(fault)
        except (NetError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            pass  # a peer may be too busy or too simple to tell: it is used without
        if info is not None:
            info = self._take(connection, info)
        connection.set_info(info)

    def _take(self, connection: Connection, info: IdentifyInfo) -> IdentifyInfo | None:
        """Remember a peer's addresses; None if it claims to be somebody else."""
        if info.public_key is not None:
            try:
                if PublicKey.from_message(info.public_key).peer_id != connection.peer_id:
                    raise PeerFault("identify-other-key")
            except PeerFault as fault:
                connection.count(fault)
                return None
        self._host.peerstore.add(connection.peer_id, info.listen_addrs, told_over=connection.scope)
        return info

    async def _take_push(self, stream: Stream) -> None:
        connection = stream.connection
        now = trio.current_time()
        full = max(now, self._pushes.get(connection, now)) + PUSH_EVERY
        if full > now + MAX_PUSHES * PUSH_EVERY:
            return
        self._pushes[connection] = full
        with trio.fail_after(IDENTIFY_SECONDS):
            push = await _read(stream)
        taken = self._take(connection, push)
        if taken is not None:
            known = connection.info
            connection.set_info(taken if known is None else known.updated(taken))
            self._host.identified(connection)

    def gone(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self._pushes.pop(connection, None)
        self._told.pop(connection, None)

    def changed(self) -> None:
        """Tell connected peers soon that our protocols or addresses are others now."""
        self._changed.set()

    async def push_changes(self) -> None:
        """Push changes as long as the host runs, to those who know something else of us."""
        limiter = trio.CapacityLimiter(PUSH_AT_ONCE)
        while True:
            await self._changed.wait()
            await trio.sleep(PUSH_DELAY)
            self._changed = trio.Event()
            async with trio.open_nursery() as nursery:
                for connection in self._host.connections():
                    known = self._told.get(connection)
                    news = known is not None and known != self._ourselves(connection).encode()
                    if news and connection.speaks(IDENTIFY_PUSH):
                        nursery.start_soon(self._push, connection, limiter)
            await trio.sleep(PUSH_EVERY)

    async def _push(self, connection: Connection, limiter: trio.CapacityLimiter) -> None:
        async with limiter:
            try:
                with trio.fail_after(IDENTIFY_SECONDS):
                    async with await connection.open_stream([IDENTIFY_PUSH]) as stream:
                        await stream.send_all(frame(self._said(connection)))
            except (NetError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # it was told as well as can be
            except trio.TooSlowError:
                pass


async def _read(stream: Stream) -> IdentifyInfo:
    """Read all messages until the peer's end, merged."""
    reader = DelimitedReader(MAX_READ_BYTES)
    merged: IdentifyInfo | None = None
    count = 0
    while data := await stream.receive_some():
        for message in reader.feed(data):
            count += 1
            if count > MAX_MESSAGES:
                raise PeerFault("identify", "too many messages")
            info = IdentifyInfo.decode(message)
            merged = info if merged is None else merged.merged(info)
    reader.finish()
    if merged is None:
        raise StreamRefused("the peer said nothing of itself")
    return merged


async def answer_pings(stream: Stream) -> None:
    """Echo 32 bytes at a time until the peer ends the stream."""
    buffer = bytearray()
    while True:
        with trio.fail_after(PING_IDLE_SECONDS):
            data = await stream.receive_some(PING_BYTES)
            if not data:
                return
            buffer += data
            while len(buffer) >= PING_BYTES:
                await stream.send_all(bytes(buffer[:PING_BYTES]))
                del buffer[:PING_BYTES]


async def ping(connection: Connection, payload: Callable[[int], bytes]) -> float:
    """Ping once; return the round trip in seconds.

    Raises:
        NetError: The peer does not answer pings.
        PeerFault: It answered with other bytes.
        trio.TooSlowError: It did not answer within 10 s.
    """
    with trio.fail_after(IDENTIFY_SECONDS):
        async with await connection.open_stream([PING], lazy=True) as stream:
            sent = payload(PING_BYTES)
            started = trio.current_time()
            await stream.send_all(sent)
            answer = b""
            while len(answer) < PING_BYTES:
                data = await stream.receive_some(PING_BYTES - len(answer))
                if not data:
                    raise StreamRefused("the peer ended the ping stream")
                answer += data
            rtt = trio.current_time() - started
    if answer != sent:
        raise PeerFault("ping-answer")
    return rtt
