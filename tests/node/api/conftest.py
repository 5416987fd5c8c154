"""A node that does nothing and tells what it was asked; its control socket; a client of it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from shoal.node.api.client import RunningNode, connect
from shoal.node.api.server import serve_control
from shoal.node.client import Operation
from shoal.node.errors import NotFound
from shoal.node.events import (
    Announced,
    Complete,
    Contact,
    Copy,
    Event,
    FoundPeer,
    Hashing,
    Identity,
    Limit,
    Lookup,
    Notice,
    Paused,
    Peer,
    Progress,
    Provider,
    Removed,
    Resumed,
    Shared,
    Source,
    Status,
    Verified,
    Verifying,
)

CID = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"


@dataclass
class FakeNode:
    """Implements `Client`; `asked` records the calls."""

    asked: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    endless: bool = False
    """Whether a fetch stays without a source for ever."""
    cancelled: trio.Event = field(default_factory=trio.Event)
    stopped: trio.Event = field(default_factory=trio.Event)
    late_error: Exception | None = None
    burst: int = 0

    def _note(self, name: str, *arguments: Any, **options: Any) -> None:
        self.asked.append((name, arguments, options))

    async def id(self) -> Identity:
        return Identity("12D3me", "/home", True, ("/ip4/127.0.0.1/tcp/1/p2p/12D3me",))

    async def events(self) -> AsyncIterator[Event]:
        yield Notice("port 4071 is in use")
        await self.stopped.wait()

    def share(self, path: str, **options: Any) -> Operation[Shared]:
        self._note("share", path, **options)

        async def work() -> AsyncIterator[Event]:
            yield Hashing(path, 5, 10)
            yield Shared(CID, f"shoal:{CID}", "x", 10, 1, 0.5, path)
            yield Announced(CID, 3)

        return Operation(work, Shared)  # type: ignore[arg-type]

    def get(self, target: str, destination: Any = None, **options: Any) -> Operation[Complete]:
        self._note("get", target, destination, **options)

        async def work() -> AsyncIterator[Event]:
            try:
                yield Progress(target, 0, None, 0, None, None, 0, None, "dialling")
                for done in range(self.burst):
                    yield Progress(target, done, None, 0, None, None, 0, None, "x" * 1000)
                if self.endless:
                    await trio.sleep_forever()
                if self.late_error is not None:
                    raise self.late_error
                yield Complete(target, str(destination), 10, 0.1, (Source("a", 10, 1),))
            finally:
                self.cancelled.set()

        return Operation(work, Complete)  # type: ignore[arg-type]

    async def ls(self) -> list[Copy]:
        return [Copy(CID, "/data/x\udcff", "shared", "x", 10, 1, 1), Copy(CID, "/y", "paused")]

    async def status(self) -> list[Status | Progress]:
        return [
            Status("12D3me", True, "/home"),
            Progress(CID, 1, 2, 0, 1, 1.5, 1, 0.7, None, "/y"),
        ]

    async def peers(self) -> list[Peer]:
        return []

    async def rm(self, cid: str, path: Any = None, **options: Any) -> list[Removed]:
        self._note("rm", cid, path, **options)
        if cid != CID:
            raise NotFound(f"no copy of {cid}; see: shoal ls")
        return [Removed(cid, "/y", options["delete_data"])]

    async def verify(self, cid: str, path: Any = None) -> AsyncIterator[Event]:
        self._note("verify", cid, path)
        yield Verifying(cid, "/y", 1, 2)
        yield Verified(cid, "/y", 1, 0, "complete")

    async def pause(self, cid: str, path: Any = None) -> list[Paused]:
        self._note("pause", cid, path)
        return [Paused(cid, "/y")]

    async def resume(self, cid: str, path: Any = None) -> list[Resumed]:
        self._note("resume", cid, path)
        return [Resumed(cid, "/y")]

    async def limit(self, cid: str | None = None, **options: Any) -> list[Limit]:
        self._note("limit", cid, **options)
        return [Limit("node", cid, 1000, None)]

    async def dht_find_peer(self, peer_id: str) -> FoundPeer:
        return FoundPeer(peer_id, ("/ip4/127.0.0.1/tcp/1",))

    async def dht_find_providers(self, cid: str) -> AsyncIterator[Event]:
        yield Provider(cid, "12D3other")
        yield Lookup(cid, 20, 1)

    async def dht_table(self) -> list[Contact]:
        return [Contact("12D3other", (), 3)]

    async def stop(self) -> None:
        self.stopped.set()


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.fixture
def home() -> Iterator[Path]:
    """A home folder with a path that is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="sh") as name:
        yield Path(name)


@pytest.fixture
async def control(node: FakeNode, home: Path, nursery: trio.Nursery) -> Path:
    """The control socket of the fake node, being served."""
    path = home / "control.sock"
    await nursery.start(serve_control, node, path)
    return path


@pytest.fixture
async def client(control: Path) -> AsyncIterator[RunningNode]:
    """A client of the fake node."""
    async with connect(control.parent) as client:
        yield client
