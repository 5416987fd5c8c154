"""Answers the streams on which others ask us; only servers do."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import trio

from ..dht.responder import Asker, Responder
from ..wire.addresses import ip_group
from ..wire.delimited import DelimitedReader, frame
from ..wire.kad import KadMessage
from .environment import Clock
from .find_rpc import MAX_FRAME

if TYPE_CHECKING:
    from .net.stream import Stream

IDLE_TIMEOUT = 60.0
"""Seconds for which a stream may lie unused (go: 1 min)."""

SEND_TIMEOUT = 10.0
"""Seconds within which a peer must take an answer."""

MAX_INBOUND = 32
"""Streams of this protocol that one connection may have open towards us."""


class Server:
    """Reads requests, one after the other on each stream, and answers them in order."""

    def __init__(self, responder: Responder, clock: Clock) -> None:
        self._responder = responder
        self._clock = clock
        self._open: set[trio.CancelScope] = set()
        self.served: Counter[str] = Counter()
        """Requests answered or taken, by type."""

    async def serve(self, stream: Stream) -> None:
        """Answer one stream until the peer ends it.

        Raises:
            PeerFault: The peer broke the protocol; whoever runs this counts it and resets.
            trio.TooSlowError: The stream lay idle, or the peer takes no answer.
            trio.BrokenResourceError: The stream broke.
        """
        with trio.CancelScope() as scope:
            self._open.add(scope)
            try:
                await self._serve(stream)
            finally:
                self._open.discard(scope)

    def stop(self) -> None:
        """End all open streams: we are no server any more."""
        for scope in self._open:
            scope.cancel()

    async def _serve(self, stream: Stream) -> None:
        connection = stream.connection
        asker = Asker(connection.peer_id, connection.scope, ip_group(connection.remote))
        reader = DelimitedReader(MAX_FRAME)
        while True:
            with trio.fail_after(IDLE_TIMEOUT):
                data = await stream.receive_some()
            if not data:
                reader.finish()
                return
            for request in reader.feed(data):
                message = KadMessage.decode(request)
                answer = self._responder.answer(message, asker, self._clock.now())
                self.served[message.type.name] += 1
                if answer is not None:
                    with trio.fail_after(SEND_TIMEOUT):
                        await stream.send_all(frame(answer.encode()))
