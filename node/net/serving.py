"""Serving inbound streams of a connection: a bound for each protocol, and what handlers raise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping

import trio

from ...wire.errors import PeerFault
from ...wire.immutable import immutable
from .errors import NetError
from .stream import Stream

Handler = Callable[[Stream], Awaitable[None]]


@immutable
class Service:
    """A protocol that we serve."""

    handler: Handler
    max_inbound: int
    """Streams of one connection at a time."""


class Serving:
    """Runs the handlers of one connection's inbound streams.

    Args:
        services: What the host serves; may change.
        fault: Counts a fault of the peer.
    """

    def __init__(self, services: Mapping[str, Service], fault: Callable[[PeerFault], None]) -> None:
        self._services = services
        self._fault = fault
        self.running: Counter[str] = Counter()
        """Streams that are served now, by protocol."""

    def begin(self, stream: Stream) -> Handler | None:
        """Count a stream whose protocol was agreed; None = it was reset, being one too many."""
        name = stream.protocol
        service = self._services.get(name)
        if service is None:
            stream.reset("the protocol is served no longer")
            return None
        if self.running[name] >= service.max_inbound:
            self._fault(PeerFault("streams-of-protocol", name))
            stream.reset("too many streams of this protocol")
            return None
        self.running[name] += 1
        return service.handler

    async def run(self, stream: Stream, handler: Handler) -> None:
        """Run a handler; what a peer can cause ends its stream and nothing else."""
        why = "cancelled"
        try:
            await handler(stream)
            await stream.aclose()
        except* PeerFault as faults:
            for fault in _leaves(faults):
                self._fault(fault)
                why = str(fault)
        except* (
            NetError,
            trio.BrokenResourceError,
            trio.ClosedResourceError,
            trio.TooSlowError,
        ):
            why = "the stream broke"
        finally:
            if not stream.is_closed:
                stream.reset(why)
            self.running[stream.protocol] -= 1


def _leaves(group: BaseExceptionGroup[PeerFault]) -> Iterator[PeerFault]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
