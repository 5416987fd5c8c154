"""An own relay of real processes: what it sees, whom it serves, how much, and at what cost."""

from __future__ import annotations

import filecmp
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from shoal.node.environment import real_environment
from shoal.node.nat import relay_server
from shoal.node.nat.circuit import read_message, send_message
from shoal.node.nat.relay_server import RelayPolicy, RelayServer
from shoal.node.nat.splice import Splice
from shoal.node.net.connection import Connection
from shoal.node.net.host import Host
from shoal.node.net.stream import Stream
from shoal.wire.addresses import parse_multiaddr, with_peer
from shoal.wire.circuit import (
    HOP,
    MAX_MESSAGE,
    STOP,
    HopMessage,
    HopType,
    Limit,
    Status,
    StopMessage,
    StopType,
)
from shoal.wire.ids import Cid, PeerId
from shoal.wire.keys import PrivateKey

pytestmark = pytest.mark.processes

MakeFile = Callable[[str, int], Path]
MIB = 1 << 20

UNKNOWN = ("--listen", "/ip4/127.0.0.1/tcp/0", "--no-announce", "--dht", "client")
"""Nobody learns from the DHT where it is: there is no way to it but those that are named."""


def over(relay: str, node: Any) -> str:
    """Return the address of a node that has a place at a relay."""
    return f"{relay}/p2p-circuit/p2p/{node.first['peer_id']}"


def seed(bench: Any, relay: str, path: Path, name: str = "seed") -> tuple[Any, str]:
    """Share a path by way of a relay; return the process and the content once it has a place."""
    node = bench.start(name, "share", str(path), *UNKNOWN, "--via", relay)
    node.first = node.wait_for("listening", 30)
    placed, cid = False, ""
    for event in node.events(30):
        cid = event.get("cid", cid)
        placed = placed or relay in " ".join(event.get("addrs", ()))
        if placed and cid:
            break
    return node, cid


# What it sees


class Tap:
    """A stream whose received bytes are noted."""

    def __init__(self, stream: Stream, seen: bytearray) -> None:
        self._stream = stream
        self._seen = seen

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = await self._stream.receive_some(max_bytes)
        self._seen += data
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


async def test_what_it_forwards_has_nothing_that_can_be_read(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relay runs here, so that what it takes from its own connections can be looked at."""
    seen = bytearray()

    class Watched(Splice):
        def __init__(
            self, here: Any, there: Any, limit: Limit | None, forwarded: Callable[[int], bool]
        ) -> None:
            super().__init__(Tap(here, seen), Tap(there, seen), limit, forwarded)  # type: ignore[arg-type]

    monkeypatch.setattr(relay_server, "Splice", Watched)
    line = b"It is a truth universally acknowledged.\n"
    path = tmp_path / "acknowledged-truth.txt"
    path.write_bytes(line * (4 * MIB // len(line)))
    got = tmp_path / "got"

    environment = real_environment()
    host = Host(environment, PrivateKey(environment.random.secret(32)))
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run, [parse_multiaddr("/ip4/127.0.0.1/tcp/0")])
        RelayServer(host, RelayPolicy(limit=None))
        relay = str(with_peer(host.listen_addrs()[0], host.peer_id))
        run = trio.to_thread.run_sync
        node, cid = await run(seed, bench, relay, path)
        await run(partial(bench.get, "bob", cid, got, "--peer", over(relay, node)))
        nursery.cancel_scope.cancel()

    assert filecmp.cmp(path, got, shallow=False)
    assert len(seen) > path.stat().st_size
    assert b"/noise\n" in seen  # the one thing to be read: how the ends begin
    root = Cid.parse(cid)
    secrets = [line[:12], cid.encode(), bytes(root), root.multihash, root.multihash[2:18]]
    secrets += [path.name.encode(), b"/shoal/swarm", b"shoal/0.1", b"/ipfs/id"]
    for secret in secrets:
        assert secret not in seen, secret


# Whom it serves, and how much


def test_who_is_no_member_is_refused_and_told_why(bench: Any, random_file: MakeFile) -> None:
    path = random_file("film.bin", 2)
    member = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq"
    relay, address = bench.up("relay", "--relay", "--relay-member", member)
    node = bench.start("stranger", "share", str(path), *UNKNOWN, "--via", address)
    node.first = node.wait_for("listening", 30)
    seen: dict[str, Any] = {}  # in whichever order they come
    for event in node.events(30):
        seen.setdefault(event["event"], event)
        if {"notice", "shared"} <= seen.keys():
            break
    told = seen["notice"]["message"]
    assert address in told
    assert "its owner has to name this node a member" in told
    doctor = bench.run("stranger", "doctor", "--timeout", "0")
    [line] = [line for line in doctor.stdout.splitlines() if line.startswith("relays")]
    assert "its owner has to name this node a member" in line
    # Nobody gets to it over the relay, and learns why.
    cid = seen["shared"]["cid"]
    failed = bench.run(
        "bob", "get", cid, "-o", str(bench.folder / "got"), "--timeout", "3",
        "--listen", "/ip4/127.0.0.1/tcp/0", "--peer", over(address, node),
    )  # fmt: skip
    assert failed.returncode == 3
    assert "the peer has no place there" in failed.stderr
    status = bench.run("relay", "status")
    assert "relay-no-member" in status.stdout
    assert relay.process.poll() is None


def test_a_quota_holds_and_the_fetch_goes_on_by_another_way(
    bench: Any, random_file: MakeFile
) -> None:
    path = random_file("film.bin", 24)
    _, address = bench.up("relay", "--relay", "--relay-quota", "12MiB")
    node, cid = seed(bench, address, path)
    got = bench.folder / "got"
    failed = bench.run(
        "bob", "get", cid, "-o", str(got), "--timeout", "4",
        "--listen", "/ip4/127.0.0.1/tcp/0", "--peer", over(address, node),
    )  # fmt: skip
    assert failed.returncode == 3
    assert "bytes of the day, are used up" in failed.stderr
    status = bench.run("relay", "status")
    assert "0 B left today" in status.stdout
    assert not got.exists()
    complete = bench.get("bob", cid, got, "--peer", node.first["addrs"][0])
    assert filecmp.cmp(path, got, shallow=False)
    # What came over the relay was kept.
    assert 12 * MIB <= complete["sources"][0]["bytes"] < 20 * MIB


# What it costs

ENDS = 8
"""Hosts at either end; each pair has two circuits, as one peer may have sixteen."""

EACH = 512 << 10
"""Bytes for each circuit: more than its windows and queues hold."""


class Target:
    """A host that takes circuits, and reads nothing from them until it may."""

    def __init__(self, host: Host, go: trio.Event, got: list[int]) -> None:
        self._go = go
        self._got = got
        host.handle(STOP, self._take, max_inbound=64)

    async def _take(self, stream: Stream) -> None:
        await read_message(stream, MAX_MESSAGE)
        await send_message(stream, StopMessage(StopType.STATUS, status=Status.OK).encode())
        await self._go.wait()
        count = 0
        while data := await stream.receive_some():
            count += len(data)
        self._got.append(count)


async def circuit(connection: Connection, target: PeerId, data: bytes) -> None:
    """Make a circuit and send bytes through it."""
    stream = await connection.open_stream([HOP], lazy=True)
    await send_message(stream, HopMessage(HopType.CONNECT, target).encode())
    answer = HopMessage.decode(await read_message(stream, MAX_MESSAGE))
    assert answer.status == Status.OK
    await stream.send_all(data)
    await stream.send_eof()
    assert not await stream.receive_some()


async def test_128_circuits_take_little_memory_and_none_breaks(bench: Any) -> None:
    relay, address = await trio.to_thread.run_sync(bench.up, "relay", "--relay")
    environment = real_environment()
    go, got = trio.Event(), list[int]()
    async with trio.open_nursery() as running:

        async def host() -> Host:
            made = Host(environment, PrivateKey(environment.random.secret(32)))
            await running.start(made.run)
            return made

        sources = [await (await host()).dial(parse_multiaddr(address)) for _ in range(ENDS)]
        targets = [await host() for _ in range(ENDS)]
        for target in targets:
            Target(target, go, got)
            connection = await target.dial(parse_multiaddr(address))
            connection.fetching += 1  # so that so much may be unread
            stream = await connection.open_stream([HOP], lazy=True)
            await send_message(stream, HopMessage(HopType.RESERVE).encode())
            await read_message(stream, MAX_MESSAGE)
        async with trio.open_nursery() as nursery:
            for source in sources:
                for target in targets:
                    for _ in range(2):
                        nursery.start_soon(circuit, source, target.peer_id, bytes(EACH))
            with trio.fail_after(60):
                before = -1
                while (now := relay.cpu_seconds()) != before:  # until nothing moves any more
                    before = now
                    await trio.sleep(1)
            asked = await trio.to_thread.run_sync(bench.run, "relay", "status")
            assert f"{2 * ENDS * ENDS} circuits of others" in asked.stdout
            full = relay.peak_bytes()
            go.set()
        running.cancel_scope.cancel()
    assert got == [EACH] * (2 * ENDS * ENDS)
    assert 0 < full <= relay.peak_bytes() < 150 * MIB
