"""Sinks that stand in for a stream's own: while its protocol is agreed, and after its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ...wire import multistream
from .stream import Stream

if TYPE_CHECKING:
    from .connection import Connection


class Proposing:
    """The sink of a stream that we opened: takes the answer to our proposals, then steps aside."""

    def __init__(
        self, connection: Connection, stream: Stream, initiator: multistream.Initiator
    ) -> None:
        self.initiator = initiator
        self.decided = trio.Event()
        self._connection = connection
        self._stream = stream

    def feed(self, data: memoryview) -> int:
        """Take the answer; what stands behind it is left in the stream."""
        answer = self.initiator.receive(data)
        if answer:
            self._stream.queue(answer)
        if self.initiator.refused:
            self._stream.reset("the peer does not speak the protocol")
        elif self.initiator.agreed is not None:
            self._stream.protocol = self.initiator.agreed
            self._stream.negotiated()
            self._connection.resume_later(self._stream)
        else:
            return len(data)
        self.decided.set()
        return len(data) - len(self.initiator.remainder)

    def pass_done(self) -> None:
        """Do nothing."""

    def ended(self, reason: str | None) -> None:
        """Let the waiting opener see that nothing was agreed."""
        self._stream.negotiation_ended(reason)
        self.decided.set()


class Answering:
    """The sink of a stream that the peer opened: answers its proposals, then steps aside."""

    def __init__(
        self, connection: Connection, stream: Stream, responder: multistream.Responder
    ) -> None:
        self._responder = responder
        self._connection = connection
        self._stream = stream

    def feed(self, data: memoryview) -> int:
        """Answer; what stands behind the agreement is left in the stream."""
        answer = self._responder.receive(data)
        if answer:
            self._stream.queue(answer)
        if self._responder.agreed is None:
            return len(data)
        self._stream.protocol = self._responder.agreed
        self._stream.negotiated()
        self._connection.agreed(self._stream)
        return len(data) - len(self._responder.remainder)

    def pass_done(self) -> None:
        """Do nothing."""

    def ended(self, reason: str | None) -> None:
        """Give up: the peer left before anything was agreed."""
        self._connection.disagreed(self._stream)


class Discard:
    """The sink of a stream that we closed: what comes is dropped."""

    def feed(self, data: memoryview) -> int:
        """Drop the bytes."""
        return len(data)

    def pass_done(self) -> None:
        """Do nothing."""

    def ended(self, reason: str | None) -> None:
        """Do nothing."""
