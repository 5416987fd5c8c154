"""Whole nodes on memory disks in a simulated world, and what the tests do to them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from shoal import Node
from shoal.node.config import Config
from shoal.node.events import Complete, Shared
from shoal.node.net.host import Host, HostConfig
from shoal.node.net.stream import Stream
from shoal.simulations import faults
from shoal.simulations.disk import MemoryDisk
from shoal.simulations.world import World
from shoal.storage.filesystem import FileKind
from shoal.wire import varint
from shoal.wire.addresses import parse_multiaddr
from shoal.wire.ids import Cid
from shoal.wire.keys import PrivateKey
from shoal.wire.swarm import (
    PROTOCOL,
    Body,
    Hello,
    IndexNode,
    IndexRequest,
    Request,
    content_key,
    decode,
    encode,
    hash_proof,
)

LISTEN = ("/ip4/0.0.0.0/tcp/4071",)
HOME = Path("/home")
DATA = Path("/data")


class Machine:
    """A place in the world with a disk of its own, and the node that runs there."""

    def __init__(
        self,
        world: World,
        name: str,
        capacity: int | None = None,
        disk: MemoryDisk | None = None,
        **settings: Any,
    ) -> None:
        self.world = world
        self.name = name
        self.settings = {"dht": "client", "listen": LISTEN, **settings}
        self.disk = disk or MemoryDisk(capacity)
        self.disk.folder(DATA, 0o700)
        self.disk.folder(HOME, 0o700)
        self.node: Node
        self._stop = trio.Event()
        self._stopped = trio.Event()
        self._started = False

    async def start(self) -> None:
        """Start the node, or start it again."""
        self._stop, self._stopped = trio.Event(), trio.Event()
        await self.world.nursery.start(self._run)

    async def _run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        environment = self.world.environment(self.name, disk=self.disk)
        config = Config(**self.settings)
        try:
            async with Node(
                HOME, config=config, purpose="up", control=False, environment=environment
            ) as self.node:
                task_status.started()
                await self._stop.wait()
        finally:
            self._stopped.set()

    async def stop(self) -> None:
        """End the node properly."""
        self._stop.set()
        await self._stopped.wait()

    def die(self) -> None:
        """Break all its streams and answer nothing any more."""
        faults.crash(self.world.network, self.name)
        faults.silence(self.world.network, self.name)

    @property
    def addr(self) -> str:
        return self.node.addrs()[0]

    # Its disk

    def write(self, name: str, data: bytes) -> Path:
        """Make a file below DATA, with the folders above it; what stands there is replaced."""
        path = DATA / name
        folder = self.disk.folder(path.parent, 0o700)
        if path.name in folder.names():
            folder.remove(path.name)
        file = folder.create(path.name)
        file.pwrite(data, 0)
        file.fdatasync()
        folder.sync()
        return path

    def read(self, path: Path | str) -> bytes:
        """Return what a file holds."""
        path = DATA / path
        file = self.disk.folder(path.parent).open(path.name)
        buffer = bytearray(file.fstat().size)
        assert file.preadv([buffer], 0) == len(buffer)
        return bytes(buffer)

    def tree(self, path: Path | str) -> dict[str, bytes | str | None]:
        """Return a folder's files (bytes), links (text) and folders (None) by relative path."""
        found: dict[str, bytes | str | None] = {}
        folder = self.disk.folder(DATA / path)
        for name in folder.names():
            match folder.stat(name).kind:
                case FileKind.FOLDER:
                    found[name] = None
                    inner = self.tree(DATA / path / name)
                    found.update((f"{name}/{below}", what) for below, what in inner.items())
                case FileKind.LINK:
                    found[name] = folder.read_link(name)
                case _:
                    found[name] = self.read(DATA / path / name)
        return found

    def rot(self, name: str, offset: int) -> None:
        """Bend one byte of a file, so that nobody can see it by its stat."""
        path = DATA / name
        self.disk.folder(path.parent).open(path.name)._node.data[offset] ^= 1

    # What its owner does

    async def share(self, name: str) -> str:
        """Share a path below DATA; return its CID."""
        shared = await self.node.share(DATA / name, announce=False)
        assert isinstance(shared, Shared)
        return shared.cid

    async def get(
        self, cid: str, *peers: Machine | Puppet, patience: float | None = 600.0
    ) -> Complete:
        """Fetch to DATA/got, asking these machines."""
        with trio.fail_after(5 * 24 * 3600):  # virtual seconds: a fetch that waits for ever
            return await self.node.get(
                cid, DATA / "got", peers=[peer.addr for peer in peers], timeout=patience
            )

    def assert_nothing_reserved(self) -> None:
        """Check that every byte of the pool was given back."""
        pool = self.node.transfers.pool
        assert (pool.reserved, pool.used) == (0, 0)

    def links(self, cid: str) -> int:
        """Return how many peers it is linked with for a content."""
        swarm = self.node.transfers.swarms.get(Cid.parse(cid))
        return len(swarm.links) if swarm is not None else 0


class Wire:
    """A swarm stream of a puppet: sends any frames, and reads what comes."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._data = bytearray()

    async def send(self, *bodies: Body, data: bytes = b"") -> None:
        """Send frames; `data` trails the last."""
        for body in bodies[:-1]:
            await self.stream.send_all(encode(body))
        await self.stream.send_all(encode(bodies[-1], len(data)) + data)

    async def receive(self) -> tuple[Body | None, bytes]:
        """Return the next frame and what trails it; EOFError when the peer has ended."""
        while (found := varint.decode_prefix(self._data)) is None:
            await self._more()
        length, at = found
        while len(self._data) < at + length:
            await self._more()
        body, trailing = decode(self._data[at : at + length])
        end = at + length + trailing
        while len(self._data) < end:
            await self._more()
        block = bytes(self._data[at + length : end])
        del self._data[:end]
        return body, block

    async def next_request(self) -> Request:
        """Wait for a request; index nodes are missing here."""
        while True:
            match (await self.receive())[0]:
                case IndexRequest(cids):
                    await self.send(*(IndexNode(cid, missing=True) for cid in cids))
                case Request() as request:
                    return request

    async def _more(self) -> None:
        data = await self.stream.receive_some()
        if not data:
            raise EOFError
        self._data += data

    async def everything(self, seconds: float = 60.0) -> bytes:
        """Return all bytes that come within some time, or until the end."""
        with trio.move_on_after(seconds), suppress(EOFError, trio.BrokenResourceError):
            while True:
                await self._more()
        return bytes(self._data)

    def greeting(self, root: Cid) -> Hello:
        """Return a right Hello."""
        connection = self.stream.connection
        proof = hash_proof(root, connection.handshake_hash, connection.is_initiator)
        return Hello(content_key(root), proof)


class Puppet:
    """A host that speaks the swarm protocol as the test says."""

    def __init__(self, world: World, name: str) -> None:
        key = PrivateKey(hashlib.sha256(name.encode()).digest())
        self.host = Host(world.environment(name), key, HostConfig())
        self.peer_id = str(key.peer_id)

    @property
    def addr(self) -> str:
        return f"{self.host.told_addrs()[0]}/p2p/{self.peer_id}"

    async def open(self, machine: Machine) -> Wire:
        """Open a swarm stream to a machine, without a greeting."""
        connection = await self.host.dial(parse_multiaddr(machine.addr))
        return Wire(await connection.open_stream([PROTOCOL]))

    async def join(self, machine: Machine, root: Cid) -> Wire:
        """Open a swarm stream to a machine and greet."""
        wire = await self.open(machine)
        await wire.send(wire.greeting(root))
        body, _ = await wire.receive()
        assert isinstance(body, Hello)
        return wire

    def behave(
        self, root: Cid, behaviour: Callable[[Wire], Awaitable[None]], *, delay: float = 0.0
    ) -> None:
        """Do this with whoever opens a stream, once it was greeted (after a delay)."""

        async def greeted(stream: Stream) -> None:
            wire = Wire(stream)
            with suppress(EOFError, trio.BrokenResourceError):
                await wire.receive()
                await trio.sleep(delay)
                await wire.send(wire.greeting(root))
                await behaviour(wire)
                await trio.sleep_forever()

        self.host.handle(PROTOCOL, greeted)


MakePuppet = Callable[[str], Awaitable[Puppet]]


@pytest.fixture
async def puppet(world: World) -> MakePuppet:
    """Start puppets by name."""

    async def make(name: str) -> Puppet:
        made = Puppet(world, name)
        await world.nursery.start(made.host.run, [parse_multiaddr(LISTEN[0])])
        return made

    return make


Start = Callable[..., Awaitable[Machine]]


@pytest.fixture
async def start(world: World) -> Start:
    """Start machines by name: `await start("alice")`."""

    async def start_machine(name: str, capacity: int | None = None, **settings: Any) -> Machine:
        machine = Machine(world, name, capacity, **settings)
        await machine.start()
        return machine

    return start_machine


@pytest.fixture
def some_bytes() -> Callable[..., bytes]:
    """Make bytes that nothing can be said about: `some_bytes(size, seed)`."""

    def make(size: int, seed: int = 0) -> bytes:
        return random.Random(size * 1000 + seed).randbytes(size)

    return make
