"""Commands run in this process against a node that is told what to answer."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from shoal.cli import session
from shoal.cli.main import main
from shoal.node.client import Operation
from shoal.node.errors import HomeInUse, NoNode
from shoal.node.events import Complete, Event, Identity, Notice, Paused, Shared

CID = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"


@dataclass
class Script:
    """A node that answers from a list and notes what it was asked.

    In `tells`, a callable is called (to raise a signal), an exception is raised, "wait" waits.
    """

    running: bool = False
    """Whether a node of this home runs in another process."""
    purpose: str = "up"
    """Of the node that runs."""
    busy: int = 0
    """How often opening our own is refused, as the home is in use."""
    tells: list[Any] = field(default_factory=list)
    happens: list[Any] = field(default_factory=list)
    """What its `events` tell, likewise."""
    rows: list[Event] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    opened: list[tuple[Any, ...]] = field(default_factory=list)
    closed: int = 0

    async def id(self) -> Identity:
        addrs = ("/ip4/127.0.0.1/tcp/1/p2p/12D3me",)
        return Identity("12D3me", "/home", self.running, addrs, self.purpose)

    async def events(self) -> AsyncIterator[Event]:
        for text in self.notices:
            yield Notice(text)
        async for event in self._play(self.happens):
            yield event
        if not self.running:
            await trio.sleep_forever()

    def _tell(self) -> AsyncIterator[Event]:
        return self._play(self.tells)

    async def _play(self, items: list[Any]) -> AsyncIterator[Event]:
        for item in items:
            match item:
                case Event():
                    yield item
                case BaseException():
                    raise item
                case "wait":
                    await trio.sleep_forever()
                case _:
                    item()
                    await trio.sleep_forever()

    def share(self, path: str, **options: Any) -> Operation[Any]:
        self.asked.append(("share", path, options))
        return Operation(self._tell, Shared)  # type: ignore[arg-type]

    def get(self, target: str, destination: Any, **options: Any) -> Operation[Any]:
        self.asked.append(("get", target, destination, options))
        return Operation(self._tell, Complete)  # type: ignore[arg-type]

    async def pause(self, cid: str, path: Any = None) -> list[Paused]:
        self.asked.append(("pause", cid, path))
        return [Paused(cid, "/out")]

    def verify(self, cid: str, path: Any = None) -> AsyncIterator[Event]:
        self.asked.append(("verify", cid, path))
        return self._tell()

    def dht_find_providers(self, cid: str) -> AsyncIterator[Event]:
        self.asked.append(("dht_find_providers", cid))
        return self._tell()

    async def dht_find_peer(self, peer_id: str) -> Event:
        self.asked.append(("dht_find_peer", peer_id))
        return self.rows[0]

    def __getattr__(self, name: str) -> Any:
        """Every other method returns the rows."""
        if name not in {"ls", "status", "peers", "rm", "resume", "limit", "dht_table"}:
            raise AttributeError(name)

        async def method(*arguments: Any, **options: Any) -> list[Event]:
            self.asked.append((name, *arguments, *([options] if options else [])))
            return self.rows

        return method


@dataclass
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def names(self) -> list[str]:
        return [event["event"] for event in self.events]


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Script:
    """The node that commands of this test meet; its home is empty."""
    script = Script()

    @asynccontextmanager
    async def connect(home: Path) -> AsyncIterator[Script]:
        if not script.running:
            raise NoNode(f"no node of {home} runs; start one: shoal up")
        yield script

    @asynccontextmanager
    async def open_node(
        settings: Any, config: Any, purpose: str, *, offline: bool
    ) -> AsyncIterator[Script]:
        if script.busy:
            script.busy -= 1
            raise HomeInUse("the home is in use by another process")
        script.opened.append((settings.home, config, purpose, offline))
        try:
            yield script
        finally:
            script.closed += 1

    monkeypatch.setattr(session, "connect", connect)
    monkeypatch.setattr(session, "open_node", open_node)
    monkeypatch.setenv("SHOAL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    return script


@pytest.fixture
def shoal(
    node: Script, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Run a command line; return how it ended."""
    import sys

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def run(*arguments: str) -> Result:
        code = main(arguments)
        out, err = capsysbinary.readouterr()
        return Result(code, out.decode(), err.decode())

    return run


@pytest.fixture
def ctrl_c() -> Callable[[], None]:
    """What the terminal does at Ctrl-C."""
    return lambda: signal.raise_signal(signal.SIGINT)


@pytest.fixture
def terminate() -> Callable[[], None]:
    """What the system does to end a process."""
    return lambda: signal.raise_signal(signal.SIGTERM)


@pytest.fixture
def autojump(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command's waits pass at once."""
    run = trio.run

    def run_jumping(*arguments: Any, **options: Any) -> Any:
        clock = trio.testing.MockClock(autojump_threshold=0.01)
        return run(*arguments, clock=clock, **options)

    monkeypatch.setattr(trio, "run", run_jumping)
