"""A node that runs already, reached through its control socket: `async with connect(home)`.

It has the methods of `shoal.Node`. What the node answers are events; an `error` event is raised
as the `ShoalError` that it stands for.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import trio

from ...storage.control_path import find_control_socket
from ..client import Events, HashName, Links, OnLeave, Operation, Order, PathText
from ..errors import NodeStopped, NoNode, Refused, ShoalError, error_of
from ..events import (
    Complete,
    Contact,
    Copy,
    Event,
    Failure,
    FoundPeer,
    Identity,
    Limit,
    Lookup,
    Paused,
    Peer,
    Progress,
    Provider,
    Removed,
    Resumed,
    Shared,
    Status,
    Verified,
    Verifying,
    from_json,
)
from ..events_reach import Rung

if TYPE_CHECKING:
    import httpx

E = TypeVar("E", bound=Event)

CONNECT_SECONDS = 5.0
"""Within which a node of this machine accepts a connection."""

ANSWER_SECONDS = 60.0
"""Within which a node answers what it need not look for."""

MAX_LINE = 16 << 20
"""Bytes of one event: a `complete` with many skipped links is the longest."""

STOPPED = "the node stopped or has too many callers; see that it runs and repeat the command"


@asynccontextmanager
async def connect(home: PathText) -> AsyncIterator[RunningNode]:
    """Talk to the node that runs with this home folder.

    Raises:
        NoNode: None does.
    """
    path = find_control_socket(Path(home))
    if not await _answers(path):
        raise NoNode(f"no node of {os.fspath(home)} runs; start one: shoal up")
    import httpx

    timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
    transport = httpx.AsyncHTTPTransport(uds=os.fspath(path))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://shoal", timeout=timeout, trust_env=False
    ) as http:
        yield RunningNode(http)


async def _answers(path: Path) -> bool:
    """Return whether somebody listens; cheaper than importing an HTTP client to find out."""
    probe = trio.socket.socket(socket.AF_UNIX)
    with probe, trio.move_on_after(CONNECT_SECONDS):
        try:
            await probe.connect(os.fspath(path))
        except OSError:
            return False
        return True
    return False


class RunningNode:
    """A node behind its control socket; see `Client` for the methods."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def id(self) -> Identity:
        """See `Client.id`."""
        return await self._one(Identity, "GET", "/v1/id")

    def events(self) -> Events[Event]:
        """See `Client.events`."""
        return self._tell((Event,), "GET", "/v1/events", endless=True)

    def share(
        self,
        path: PathText,
        *,
        hash_only: bool = False,
        public: bool = False,
        announce: bool = True,
        hidden: bool = True,
        skip_special: bool = False,
        peers: Sequence[str] = (),
        hash: HashName = "sha2-256",  # noqa: A002
    ) -> Operation[Shared]:
        """See `Client.share`."""
        asked = {
            "path": _absolute(path),
            "hash_only": hash_only,
            "public": public,
            "announce": announce,
            "hidden": hidden,
            "skip_special": skip_special,
            "peers": list(peers),
            "hash": hash,
        }
        return Operation(
            lambda: self._tell((Event,), "POST", "/v1/share", asked, endless=True), Shared
        )

    def get(
        self,
        target: str,
        destination: PathText | None = None,
        *,
        peers: Sequence[str] = (),
        timeout: float | None = None,
        links: Links = "inside",
        only: Sequence[str] = (),
        order: Order = "rarest",
        leave: OnLeave = "pause",
    ) -> Operation[Complete]:
        """See `Client.get`."""
        asked = {
            "target": target,
            "destination": _absolute(destination or os.curdir),
            "peers": list(peers),
            "timeout": timeout,
            "links": links,
            "only": list(only),
            "order": order,
            "leave": leave,
        }
        return Operation(
            lambda: self._tell((Event,), "POST", "/v1/get", asked, endless=True), Complete
        )

    async def ls(self) -> list[Copy]:
        """See `Client.ls`."""
        return [row async for row in self._tell((Copy,), "GET", "/v1/ls")]

    async def status(self) -> list[Status | Progress]:
        """See `Client.status`."""
        return [row async for row in self._tell((Status, Progress), "GET", "/v1/status")]

    async def peers(self) -> list[Peer]:
        """See `Client.peers`."""
        return [row async for row in self._tell((Peer,), "GET", "/v1/peers")]

    async def rm(
        self, cid: str, path: PathText | None = None, *, delete_data: bool = False
    ) -> list[Removed]:
        """See `Client.rm`."""
        asked = {**_copy(cid, path), "delete_data": delete_data}
        return [row async for row in self._tell((Removed,), "POST", "/v1/rm", asked, endless=True)]

    def verify(self, cid: str, path: PathText | None = None) -> Events[Verifying | Verified]:
        """See `Client.verify`."""
        asked = _copy(cid, path)
        return self._tell((Verifying, Verified), "POST", "/v1/verify", asked, endless=True)

    async def pause(self, cid: str, path: PathText | None = None) -> list[Paused]:
        """See `Client.pause`."""
        asked = _copy(cid, path)
        return [row async for row in self._tell((Paused,), "POST", "/v1/pause", asked)]

    async def resume(self, cid: str, path: PathText | None = None) -> list[Resumed]:
        """See `Client.resume`."""
        asked = _copy(cid, path)
        return [row async for row in self._tell((Resumed,), "POST", "/v1/resume", asked)]

    async def limit(
        self,
        cid: str | None = None,
        *,
        each_peer: bool = False,
        up: str | None = None,
        down: str | None = None,
    ) -> list[Limit]:
        """See `Client.limit`."""
        asked = {"cid": cid, "each_peer": each_peer, "up": up, "down": down}
        return [row async for row in self._tell((Limit,), "POST", "/v1/limit", asked)]

    async def doctor(self, seconds: float = 0.0) -> list[Rung]:
        """See `Client.doctor`."""
        asked = {"seconds": seconds or None}
        events = self._tell((Rung,), "POST", "/v1/doctor", asked, endless=True)
        return [row async for row in events]

    async def dht_find_peer(self, peer_id: str) -> FoundPeer:
        """See `Client.dht_find_peer`."""
        asked = {"peer_id": peer_id}
        return await self._one(FoundPeer, "POST", "/v1/dht/find-peer", asked, endless=True)

    def dht_find_providers(self, cid: str) -> Events[Provider | Lookup]:
        """See `Client.dht_find_providers`."""
        path = "/v1/dht/find-providers"
        return self._tell((Provider, Lookup), "POST", path, {"cid": cid}, endless=True)

    async def dht_table(self) -> list[Contact]:
        """See `Client.dht_table`."""
        return [row async for row in self._tell((Contact,), "GET", "/v1/dht/table")]

    async def stop(self) -> None:
        """See `Client.stop`."""
        async with aclosing(self._tell((Event,), "POST", "/v1/stop", {})) as events:
            async for _ in events:
                pass

    async def _one(
        self,
        kind: type[E],
        method: str,
        path: str,
        asked: dict[str, Any] | None = None,
        *,
        endless: bool = False,
    ) -> E:
        """Ask for what is one event."""
        rows = [row async for row in self._tell((kind,), method, path, asked, endless=endless)]
        if len(rows) != 1:
            raise ShoalError(f"the node answered {path} with {len(rows)} events instead of one")
        return cast(E, rows[0])

    async def _tell(
        self,
        kinds: tuple[type[Event], ...],
        method: str,
        path: str,
        asked: dict[str, Any] | None = None,
        *,
        endless: bool = False,
    ) -> Events[Any]:
        """Ask, and yield the events of these kinds as they come.

        Raises:
            ShoalError: What the node's `error` event says, or that it stopped meanwhile.
        """
        import httpx

        timeout = httpx.Timeout(
            None if endless else ANSWER_SECONDS, connect=CONNECT_SECONDS, write=ANSWER_SECONDS
        )
        failure: Failure | None = None
        try:
            async with self._http.stream(method, path, json=asked, timeout=timeout) as response:
                chunks = response.aiter_bytes()
                lines = _Lines()
                try:
                    async for chunk in chunks:
                        for line in lines.feed(chunk):
                            event = _event(line)
                            if isinstance(event, Failure):
                                failure = event
                            elif isinstance(event, kinds):
                                yield event
                finally:
                    await _exhaust(chunks)
                if failure is not None:
                    raise error_of(failure.code, failure.message)
                if response.status_code != httpx.codes.OK:
                    raise ShoalError(f"the node answered {path} with {response.status_code}")
        except httpx.ConnectError as error:
            raise NoNode("the node stopped; start it again: shoal up") from error
        except httpx.TimeoutException as error:
            raise Refused(f"the node gave no answer for {ANSWER_SECONDS:.0f} s") from error
        except httpx.TransportError as error:
            raise NodeStopped(STOPPED) from error


class _Lines:
    """Cuts a stream of bytes into lines, bounded (httpx's `aiter_lines` is not)."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that this chunk completes."""
        self._pending += chunk
        *lines, self._pending = self._pending.split(b"\n")
        if len(self._pending) > MAX_LINE:
            raise ShoalError(f"the node sent a line of over {MAX_LINE} bytes")
        return [bytes(line) for line in lines]


async def _exhaust(chunks: AsyncIterator[bytes]) -> None:
    """End a stream of httpx that nobody reads any more.

    It is a nest of async generators; left half way, each is collected as garbage with a warning.
    A cancelled read ends them all, in order.
    """
    with trio.CancelScope() as scope:
        scope.cancel()
        async for _ in chunks:
            pass


def _event(line: bytes) -> Event | None:
    try:
        data = json.loads(line)
        return from_json(data) if isinstance(data, dict) else None
    except ValueError as error:
        raise ShoalError("the node sent what is not an event; are both of one version?") from error


def _copy(cid: str, path: PathText | None) -> dict[str, Any]:
    return {"cid": cid, "path": None if path is None else _absolute(path)}


def _absolute(path: PathText) -> str:
    """Return the path as the node must know it, whose current folder is another one."""
    whole = Path(path)
    if whole.name == os.pardir:
        return os.path.realpath(whole)
    if os.pardir in whole.parts:  # `link/..` is not the folder that holds the link
        return os.path.join(os.path.realpath(whole.parent), whole.name)
    return os.path.abspath(whole)
