"""Long operations of a node: they run in the node's nursery, their caller reads the events.

The work goes on in a task of its own, so that events can be read from anywhere (also over the
control socket) and a caller who leaves decides what becomes of the work.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field

import trio

from ..storage.errors import StorageError
from ..wire.errors import ContentRefused, InvalidText
from .errors import ShoalError, told
from .events import Event
from .net.errors import NetError

TOLD = (ShoalError, StorageError, NetError, ContentRefused, InvalidText)
"""What `translate` makes something for the user of; everything else is a bug and goes on."""

EVENTS_AHEAD = 64
"""Events that may wait for a slow reader; more progress is dropped, outcomes are waited for."""


@dataclass
class Teller:
    """Where an operation tells its events."""

    _send: trio.MemorySendChannel[Event]
    gone: bool = field(default=False, init=False)
    """Nobody listens any more."""

    def hint(self, event: Event) -> None:
        """Tell something that the next event of its kind replaces; dropped if nobody keeps up."""
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            pass
        except trio.BrokenResourceError:
            self.gone = True

    async def tell(self, event: Event) -> None:
        """Tell something that must not be lost."""
        try:
            await self._send.send(event)
        except trio.BrokenResourceError:
            self.gone = True


async def operate(
    nursery: trio.Nursery,
    work: Callable[[Teller], Awaitable[None]],
    *,
    keep: Callable[[], bool] = lambda: False,
) -> AsyncGenerator[Event, None]:
    """Run `work` in `nursery` and yield what it tells.

    Args:
        nursery: Where the work runs.
        work: Gets a `Teller`; a `ShoalError`, or what `translate` makes one of, is raised here.
        keep: Asked when the caller closes this generator early: True = let the work go on.
    """
    send, receive = trio.open_memory_channel[Event](EVENTS_AHEAD)
    scope = trio.CancelScope()
    failed: list[ShoalError] = []

    async def run() -> None:
        with send, scope:
            try:
                await work(Teller(send))
            # A nursery within the work raises a group: a missing file must not end the node.
            except (*TOLD, ExceptionGroup) as error:
                known = told(error)
                if known is None:
                    raise
                failed.append(known)

    nursery.start_soon(run)
    try:
        with receive:
            async for event in receive:
                yield event
    finally:
        if not keep():
            scope.cancel()
    if failed:
        raise failed[0]
