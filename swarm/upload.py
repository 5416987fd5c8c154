"""Whom to serve and how much at once: the requests that one peer has waiting.

A plain object for each peer and content. Requests wait here as runs; the driver takes piece after
piece as the stream drains, so that a Cancel finds most of a run still unsent.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import groupby, takewhile

from ..wire.errors import PeerFault
from ..wire.swarm import Cancel, Reject, RejectReason, Request

MAX_WAITING_PIECES = 32 * 1024
"""Pieces that one peer may have asked for and not got (64 MiB in pieces of 4 KiB, twice over)."""

MAX_WAITING_REQUESTS = 1024
"""Requests of one peer that wait."""


@dataclass(slots=True)
class _Waiting:
    next: int
    end: int


class Upload:
    """What one peer waits for."""

    def __init__(self, pieces: int) -> None:
        self._pieces = pieces
        self._requests: OrderedDict[int, _Waiting] = OrderedDict()
        self.waiting = 0
        """Pieces asked for and not yet taken."""
        self.sent = 0
        """Pieces taken."""

    def ask(self, request: Request) -> Reject | None:
        """Take a request; return a Reject if it is too much.

        Raises:
            PeerFault: It names pieces that do not exist, or an id that is under way.
        """
        if request.first + request.count > self._pieces:
            raise PeerFault("swarm-request-range", f"{request.first} + {request.count}")
        if request.id in self._requests:
            raise PeerFault("swarm-request-id", str(request.id))
        if (
            len(self._requests) >= MAX_WAITING_REQUESTS
            or self.waiting + request.count > MAX_WAITING_PIECES
        ):
            return Reject(request.id, RejectReason.TOO_MANY)
        self._requests[request.id] = _Waiting(request.first, request.first + request.count)
        self.waiting += request.count
        return None

    def cancel(self, cancel: Cancel) -> None:
        """Forget the rest of a request; one that is done already is no fault."""
        self._forget(cancel.id)

    def peek(self) -> tuple[int, int] | None:
        """Return (request id, piece) that comes next, or None."""
        for request_id, waiting in self._requests.items():
            return request_id, waiting.next
        return None

    def ahead(self, limit: int) -> list[tuple[int, int]]:
        """Return what `peek` and `take` would give in turn: up to `limit` of the next pieces."""
        found: list[tuple[int, int]] = []
        for request_id, waiting in self._requests.items():
            end = min(waiting.end, waiting.next + limit - len(found))
            found += [(request_id, piece) for piece in range(waiting.next, end)]
            if len(found) == limit:
                break
        return found

    def take(self) -> None:
        """Take what `peek` returned as sent."""
        request_id, waiting = next(iter(self._requests.items()))
        waiting.next += 1
        self.waiting -= 1
        self.sent += 1
        if waiting.next == waiting.end:
            del self._requests[request_id]

    def take_known(self, expected: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Take as sent what still comes next of what `ahead` returned; return it."""
        now = self.ahead(len(expected))
        if now != expected:  # some was cancelled meanwhile
            same = takewhile(lambda pair: pair[0] == pair[1], zip(expected, now, strict=False))
            now = [one for one, _ in same]
        for request_id, some in groupby(now, key=lambda one: one[0]):
            waiting, count = self._requests[request_id], len(list(some))
            waiting.next += count
            self.waiting -= count
            self.sent += count
            if waiting.next == waiting.end:
                del self._requests[request_id]
        return now

    def refuse(self, reason: RejectReason) -> Reject:
        """Drop the request that comes next; return the Reject to send."""
        request_id = next(iter(self._requests))
        self._forget(request_id)
        return Reject(request_id, reason)

    def clear(self) -> list[int]:
        """Forget everything; return the ids of the requests."""
        ids = list(self._requests)
        self._requests.clear()
        self.waiting = 0
        return ids

    def _forget(self, request_id: int) -> None:
        waiting = self._requests.pop(request_id, None)
        if waiting is not None:
            self.waiting -= waiting.end - waiting.next
