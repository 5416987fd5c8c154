"""One run of a command: a node to talk to, somewhere to tell, and Ctrl-C.

A node that runs with the same home folder does the work; if there is none, the command opens one
in this process. Commands see only the `Client` interface and do not know the difference.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from ..node.api.client import connect
from ..node.client import Client, Purpose
from ..node.config import Config, load_config
from ..node.errors import HomeInUse, Interrupted, NoNode, ShoalError, told
from ..node.events import Event, Failure, Handed, Listening, Notice
from ..node.events_reach import Reachability
from .output import Output, output_for
from .settings import Settings

SIGNALS = (signal.SIGINT, signal.SIGTERM)

BUSY_SECONDS = 15.0
"""How long a home may be locked without a control socket: its node starts or stops just now.

A node that ends cleanly does so within 10 s.
"""

BUSY_STEP_SECONDS = 0.1

Work = Callable[["Session"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Worker:
    """The node that does a command's work."""

    client: Client
    handed: bool
    """It runs in another process."""
    passing: bool
    """That process ends when its own command does; whoever relies on it must go on alone then."""


@dataclass
class Session:
    """What a command has at hand."""

    settings: Settings
    output: Output
    nursery: trio.Nursery
    interrupted: bool = False
    """Whether the user wants the command to end."""
    _scopes: list[trio.CancelScope] = field(default_factory=list)

    def tell(self, event: Event) -> None:
        """Tell an event to whoever runs the command."""
        self.output.event(event)

    @contextmanager
    def interruptible(self) -> Iterator[trio.CancelScope]:
        """Run a block that Ctrl-C ends; what follows it cleans up."""
        with trio.CancelScope() as scope:
            self._scopes.append(scope)
            if self.interrupted:
                scope.cancel()
            try:
                yield scope
            finally:
                self._scopes.remove(scope)

    def interrupt(self) -> None:
        """End the innermost interruptible block."""
        self.interrupted = True
        self._scopes[-1].cancel()

    def config(self, flags: dict[str, Any]) -> Config:
        """Return the settings: flags, then the environment, then config.toml."""
        return load_config(self.settings.home, os.environ).with_flags(**flags)

    @asynccontextmanager
    async def running_node(self) -> AsyncIterator[Client]:
        """Talk to the node of this home; NoNode if none runs."""
        async with connect(self.settings.home) as client:
            yield client

    @asynccontextmanager
    async def any_node(self) -> AsyncIterator[Client]:
        """Talk to the node of this home, or open the home without a network."""
        async with AsyncExitStack() as stack:
            config = self.config({})
            client, _ = await self._enter(stack, config, "get", offline=True)
            yield client

    @asynccontextmanager
    async def working_node(self, purpose: Purpose, flags: dict[str, Any]) -> AsyncIterator[Worker]:
        """Give the work to the node of this home, or to one of our own; tells which.

        A flag about the node itself comes too late for one that runs; `bootstrap` then only names
        further peers to ask.
        """
        config = self.config(flags)
        async with AsyncExitStack() as stack:
            client, handed = await self._enter(stack, config, purpose, offline=False)
            who = await client.id()
            if handed:
                self.tell(Handed(who.peer_id, who.addrs))
                for name in ("listen", "announce", "dht"):
                    if flags[name]:
                        self.output.say(f"--{name} is ignored: the node runs already")
            else:
                self.tell(Listening(who.peer_id, who.addrs))
                news = (Notice,) if purpose == "get" else (Notice, Reachability)
                self.nursery.start_soon(self._tell_news, client, news)
            yield Worker(client, handed, handed and who.purpose in ("share", "get"))

    @asynccontextmanager
    async def own_node(self, purpose: Purpose, flags: dict[str, Any]) -> AsyncIterator[Client]:
        """Open a node in this process; HomeInUse if one runs already."""
        async with open_node(self.settings, self.config(flags), purpose, offline=False) as node:
            yield node

    async def _enter(
        self, stack: AsyncExitStack, config: Config, purpose: Purpose, *, offline: bool
    ) -> tuple[Client, bool]:
        deadline = trio.current_time() + BUSY_SECONDS
        while True:
            try:
                client = await stack.enter_async_context(connect(self.settings.home))
                gc.enable()
                return client, True
            except NoNode:
                pass
            try:
                node = open_node(self.settings, config, purpose, offline=offline)
                return await stack.enter_async_context(node), False
            except (HomeInUse, BaseExceptionGroup) as error:
                if not isinstance(told(error), HomeInUse) or trio.current_time() > deadline:
                    raise
            await trio.sleep(BUSY_STEP_SECONDS)

    async def _tell_news(self, client: Client, news: tuple[type[Event], ...]) -> None:
        async with aclosing(client.events()) as events:
            async for event in events:
                if isinstance(event, news):
                    self.tell(event)


@asynccontextmanager
async def open_node(
    settings: Settings, config: Config, purpose: Purpose, *, offline: bool
) -> AsyncIterator[Client]:
    """Open a node in this process."""
    from ..node.app import Node

    async with Node(settings.home, config=config, purpose=purpose, offline=offline) as node:
        gc.freeze()  # what was made until now stays: no collection need look through it
        gc.enable()
        yield node


def run(settings: Settings, work: Work) -> int:
    """Run a command to its end and return its exit code.

    What the user is to be told is told here; anything else is a bug and goes on.
    """
    if settings.verbose:
        import logging

        logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    with output_for(settings) as output:
        try:
            trio.run(_run, settings, output, work)
        except (ShoalError, ValueError, OSError, BaseExceptionGroup) as error:
            known = told(error)
            if known is None:
                raise
            output.event(Failure(known.code, known.message))
            return known.code
    return 0


async def _run(settings: Settings, /, output: Output, work: Work) -> None:
    async with trio.open_nursery() as nursery:
        session = Session(settings, output, nursery)
        await nursery.start(_watch_signals, session)
        with session.interruptible() as scope:
            await work(session)
        nursery.cancel_scope.cancel()
    if scope.cancelled_caught:
        raise Interrupted("interrupted")


async def _watch_signals(
    session: Session, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(*SIGNALS) as signals:
        task_status.started()
        async for _ in signals:
            if session.interrupted:
                # Asked twice. Nothing is lost that the database claims: the process may just end.
                os._exit(Interrupted.code)
            session.interrupt()
