"""Nodes on the machines of a lab: real `shoal` processes, and what one asks of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio
from processes import Event, Shoal

from natlab.lab import Lab, Machine
from shoal.node.api.client import RunningNode, connect
from shoal.node.events import Announced, Peer, Status

START_SECONDS = 60.0
READY_SECONDS = 120.0
GET_SECONDS = 180.0
LOOK_SECONDS = 0.25
"""Between two looks at a state that is waited for."""

PORT = 4071
ORDINARY = 4
"""Public nodes of others, each in a /16 of its own: so many must agree on what they see."""

SWITCHES = ("SHOAL_MDNS=1", "SHOAL_PORT_MAPPING=1")
"""The test suite switches both off for its other nodes."""

PATH_ORDER = ("lan", "direct", "punched", "relayed")


class NotInTime(AssertionError):
    """A state that was waited for did not come."""


class GetFailed(AssertionError):
    """A `get` ended without its file."""


@dataclass
class Host:
    """A machine with a node."""

    machine: Machine
    kind: str
    home: Path
    node: Shoal
    peer_id: str
    address: str
    """A multiaddr that ends in its id."""

    @property
    def name(self) -> str:
        """Name of the machine."""
        return self.machine.name

    async def ask(self, question: Callable[[RunningNode], Awaitable[Any]]) -> Any:
        """Ask the running node one thing."""
        async with connect(self.home) as client:
            return await question(client)

    async def status(self) -> Status:
        """Return the first row of `shoal status`."""
        rows = await self.ask(lambda client: client.status())
        return next(row for row in rows if isinstance(row, Status))

    async def connections(self, peer_id: str) -> list[Peer]:
        """Return the rows of `shoal peers` about one peer, the best path first."""
        rows = await self.ask(lambda client: client.peers())
        found = [row for row in rows if row.peer_id == peer_id]
        return sorted(found, key=lambda row: PATH_ORDER.index(row.path))


@dataclass
class Town:
    """A lab with the nodes of others in it: places to join, observers, relays."""

    lab: Lab
    folder: Path
    hosts: list[Host] = field(default_factory=list)
    join: list[str] = field(default_factory=list)
    """What names the nodes to join at, as flags."""
    relay: Host | None = None
    """A relay that carries transfers."""

    def start(self, machine: Machine, kind: str, *words: str, env: tuple[str, ...] = ()) -> Host:
        """Start a node with `shoal up` on a machine, and wait until it listens."""
        home = self.folder / machine.name
        command = [*machine.command("env", *SWITCHES, *env)]
        log = self.folder / f"{machine.name}.log"
        node = Shoal(home, "up", *words, log=log, folder=self.folder, within=command)
        first = node.wait_for("listening", START_SECONDS)
        addrs = [a for a in first["addrs"] if "/127.0.0.1/" not in a and "/::1/" not in a]
        host = Host(machine, kind, home, node, first["peer_id"], addrs[0])
        self.hosts.append(host)
        return host

    async def starts(self, *jobs: Callable[[], object]) -> None:
        """Start several nodes at once."""
        async with trio.open_nursery() as nursery:
            for job in jobs:
                nursery.start_soon(partial(trio.to_thread.run_sync, job))

    async def populate(self, relays: int = 1) -> None:
        """Start the nodes of others, with both IP versions: observers, and relays of their own."""
        machines = [self.lab.public(f"other{n}", v6=True) for n in range(ORDINARY)]
        first = await trio.to_thread.run_sync(partial(self.start, machines[0], "public"))
        self.join = ["--bootstrap", first.address]
        self.join += ["--bootstrap", _v6_address(first)]
        jobs: list[Callable[[], object]] = [
            partial(self.start, machine, "public", *self.join) for machine in machines[1:]
        ]
        jobs += [
            partial(
                self.start,
                self.lab.public(f"relay{n}", v6=True),
                "relay",
                "--relay",
                *self.join,
            )
            for n in range(relays)
        ]
        await self.starts(*jobs)
        self.relay = next((host for host in self.hosts if host.kind == "relay"), None)

    def via(self, machine: Machine) -> list[str]:
        """Return the flags that name the own relay, at an address that this machine can dial."""
        assert self.relay is not None
        only_v6 = ":" in machine.address
        return ["--via", _v6_address(self.relay) if only_v6 else self.relay.address]

    def close(self) -> None:
        """End all nodes."""
        for host in self.hosts:
            if host.node.process.poll() is None:
                host.node.process.kill()
        for host in self.hosts:
            host.node.finish(stop=True)


def _v6_address(host: Host) -> str:
    link = host.address
    number = link.split("/")[2].split(".")[1]
    return f"/ip6/2a00:{int(number):x}::2/tcp/{PORT}/p2p/{host.peer_id}"


async def until(
    what: str, holds: Callable[[], Awaitable[bool]], seconds: float = READY_SECONDS
) -> None:
    """Wait until something holds."""
    with trio.move_on_after(seconds):
        while True:
            if await holds():
                return
            await trio.sleep(LOOK_SECONDS)
    raise NotInTime(f"not within {seconds:.0f} s: {what}")


async def can_be_found(host: Host, relay: str | None = None) -> bool:
    """Return whether a node knows how it can be reached, and has a place (at this relay)."""
    status = await host.status()
    if status.reachability != "private":
        return status.reachability == "public"
    return bool(status.relays) if relay is None else relay in status.relays


def write_file(path: Path, size: int) -> str:
    """Write a file whose every MiB is another one; return its SHA-256. It takes little room."""
    with path.open("wb") as file:
        for at in range(0, size, 1 << 20):
            file.seek(at)
            file.write(os.urandom(64))
        file.truncate(size)
    return sha256(path)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def share(host: Host, path: Path) -> str:
    """Share a file at a running node; return its CID once somebody keeps the announcement."""
    async with connect(host.home) as client, aclosing(aiter(client.share(path))) as events:
        async for event in events:
            if isinstance(event, Announced) and event.peers:
                return event.cid
    raise NotInTime(f"{host.name} announced {path.name} to nobody")


@dataclass
class Got:
    """What came of a `get`."""

    complete: Event
    events: list[Event]
    sha256: str


async def get(host: Host, cid: str, to: Path, *words: str, town: Town) -> Got:
    """Run `shoal get` on a machine, by hash alone; the node that runs there does the work."""
    return await trio.to_thread.run_sync(partial(_get, host, cid, to, words, town))


def _get(host: Host, cid: str, to: Path, words: tuple[str, ...], town: Town) -> Got:
    log = to.with_suffix(".log")
    command = host.machine.command("env", *SWITCHES)
    arguments = ("get", cid, "-o", str(to), *words)
    process = Shoal(host.home, *arguments, log=log, folder=town.folder, within=command)
    events = []
    try:
        for event in process.events(GET_SECONDS):
            events.append(event)
            if event["event"] in ("complete", "error"):
                break
    finally:
        process.finish(stop=True)
    last = events[-1] if events else {"event": "nothing"}
    if last["event"] != "complete":
        raise GetFailed(f"{last.get('message', last)} {log.read_text()}")
    return Got(last, events, sha256(to))
