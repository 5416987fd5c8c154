"""One request to one peer of the DHT, and its answer, within ten seconds.

A stream is kept after an answer and used again for the next request to that peer; when
the peer has closed it meanwhile, the request goes out once more over a new one.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio
from multiaddr import Multiaddr

from ..wire.delimited import DelimitedReader, frame
from ..wire.errors import PeerFault
from ..wire.ids import PeerId
from ..wire.kad import KadMessage
from .net.errors import NetError

if TYPE_CHECKING:
    from .net.connection import Connection
    from .net.host import Host
    from .net.stream import Stream

RPC_TIMEOUT = 10.0
"""Seconds from the wish to ask until the answer, dialling included (go)."""

MAX_FRAME = 64 * 1024
"""Longest message read, in bytes; honest ones stay under 16 KiB."""

TELL_BYTES = 16 * 1024
"""Messages without an answer are sent together up to so many bytes: about 100 announcements."""

IDLE_LIFE = 15.0
"""Seconds for which an unused stream is kept: long enough for the next lookup, short of the 60 of
servers, and a connection without streams can give its place to another."""

MAX_IDLE = 128
"""Unused streams kept in all, one for each peer."""


class RpcFailed(Exception):
    """A peer could not be asked or did not answer; the text says why."""


class Rpc:
    """Requests to the peers of one DHT."""

    def __init__(self, host: Host, protocol: str) -> None:
        self._host = host
        self._protocol = protocol
        self._kept = trio.Event()
        self._idle: OrderedDict[PeerId, tuple[Stream, float]] = OrderedDict()
        self.sent: Counter[str] = Counter()
        """Requests sent, by type."""

    async def ask(
        self, peer: PeerId, request: KadMessage, addrs: Iterable[Multiaddr] = ()
    ) -> tuple[KadMessage, Connection]:
        """Send a request and return the answer with the connection that brought it.

        Raises:
            RpcFailed: No connection, no answer in time, or an answer that breaks the rules.
        """
        with self._errors_told():
            self.sent[request.type.name] += 1
            data = frame(request.encode())
            stream = self._take_idle(peer)
            if stream is not None:
                try:
                    return await self._exchange(peer, stream, data, request)
                except (trio.BrokenResourceError, trio.ClosedResourceError, NetError):
                    pass  # it was closed while it lay idle
            stream = await self._host.open_stream(peer, [self._protocol], addrs)
            return await self._exchange(peer, stream, data, request)
        raise AssertionError("unreachable")

    async def tell(
        self, peer: PeerId, messages: Callable[[Connection], Iterable[KadMessage]]
    ) -> int:
        """Send messages that have no answer (ADD_PROVIDER) and return how many went out.

        The stream is closed behind them: a server may echo them (the IPFS text allows it), which
        must not be read as the answer to a later request.

        Args:
            peer: Whom to tell.
            messages: Makes them, for the connection that they will travel on.

        Raises:
            RpcFailed: No connection, or the peer takes nothing.
        """
        with self._errors_told():
            stream = await self._host.open_stream(peer, [self._protocol])
            sent = 0
            try:
                waiting = bytearray()
                for message in messages(stream.connection):
                    self.sent[message.type.name] += 1
                    waiting += frame(message.encode())
                    sent += 1
                    if len(waiting) >= TELL_BYTES:
                        await stream.send_all(bytes(waiting))
                        waiting.clear()
                if waiting:
                    await stream.send_all(bytes(waiting))
            # Cancelled or failed: half a request must not stay behind; it goes on outwards.
            except BaseException:
                stream.reset()
                raise
            await stream.aclose()
            return sent
        raise AssertionError("unreachable")

    async def close_unused(self) -> None:
        """Close streams that were not used for a while, for ever."""
        while True:
            if not self._idle:
                self._kept = trio.Event()
                await self._kept.wait()
            peer, (stream, since) = next(iter(self._idle.items()))
            if trio.current_time() < since + IDLE_LIFE:
                await trio.sleep_until(since + IDLE_LIFE)
            else:
                del self._idle[peer]
                await stream.aclose()

    async def close_all(self) -> None:
        """Close all unused streams; what was sent over them still arrives."""
        while self._idle:
            _, (stream, _) = self._idle.popitem()
            await stream.aclose()

    async def _exchange(
        self, peer: PeerId, stream: Stream, data: bytes, request: KadMessage
    ) -> tuple[KadMessage, Connection]:
        reader = DelimitedReader(MAX_FRAME)
        frames: list[bytes] = []
        try:
            await stream.send_all(data)
            while not frames:
                received = await stream.receive_some()
                if not received:
                    raise trio.BrokenResourceError("the peer closed the stream unasked")
                frames = reader.feed(received)
            if len(frames) > 1 or reader.remainder:
                raise PeerFault("kad-unasked-answer")
            answer = KadMessage.decode(frames[0])
            if answer.type is not request.type:
                raise PeerFault("kad-other-answer", f"{answer.type.name} to {request.type.name}")
        # Cancelled or failed: the stream is in no state to be used again; it goes on outwards.
        except BaseException:
            stream.reset()
            raise
        await self._keep(peer, stream)
        return answer, stream.connection

    @contextmanager
    def _errors_told(self) -> Iterator[None]:
        """Set the deadline, and turn what can go wrong at a peer into RpcFailed."""
        try:
            with trio.fail_after(RPC_TIMEOUT):
                yield
        except trio.TooSlowError as error:
            raise RpcFailed(f"no answer within {RPC_TIMEOUT:.0f} s") from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise RpcFailed(f"the stream broke: {error}") from error
        except NetError as error:
            raise RpcFailed(str(error)) from error
        except PeerFault as fault:
            self._host.faults[fault.reason] += 1
            raise RpcFailed(f"it broke the protocol: {fault}") from fault

    def _take_idle(self, peer: PeerId) -> Stream | None:
        kept = self._idle.pop(peer, None)
        return kept[0] if kept else None

    async def _keep(self, peer: PeerId, stream: Stream) -> None:
        replaced = self._idle.pop(peer, None)
        self._idle[peer] = (stream, trio.current_time())
        self._kept.set()
        if len(self._idle) > MAX_IDLE:
            _, replaced = self._idle.popitem(last=False)
        if replaced is not None:
            await replaced[0].aclose()  # not a reset: what was told over it shall arrive
