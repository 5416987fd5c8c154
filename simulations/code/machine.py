"""A machine of the full-stack tier: a place, a disk in memory, and the whole shipped node on it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

from ...node.app import Node
from ...node.config import Config
from ..clock import VirtualClock
from ..disk import MemoryDisk
from ..faults import crash, rejoin, silence
from ..world import World

LISTEN: Final = ("/ip4/0.0.0.0/tcp/4071",)
HOME: Final = Path("/home")
DATA: Final = Path("/data")


class Machine:
    """A node that can be started, crashed, and started again.

    Args:
        world: Where it is.
        name: Of its place.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.disk = MemoryDisk()
        self._make_folders()
        self.node: Node
        self.alive = False
        self.clock: VirtualClock
        self._stop = trio.Event()
        self._stopped = trio.Event()

    def _make_folders(self) -> None:
        self.disk.folder(DATA, 0o700)
        self.disk.folder(HOME, 0o700)

    @property
    def addr(self) -> str:
        """Where it listens."""
        return self.node.addrs()[0]

    async def start(self, bootstrap: Sequence[str] = ()) -> None:
        """Start the node, or start it again."""
        self._stop, self._stopped = trio.Event(), trio.Event()
        await self.world.nursery.start(self._run, tuple(bootstrap))

    async def _run(
        self,
        bootstrap: tuple[str, ...],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        environment = self.world.environment(self.name, disk=self.disk)
        assert isinstance(environment.clock, VirtualClock)
        self.clock = environment.clock
        config = Config(listen=LISTEN, bootstrap=bootstrap, dht="server", mdns=False)
        node = Node(HOME, config=config, purpose="up", control=False, environment=environment)
        try:
            async with node:
                self.node = node
                self.alive = True
                task_status.started()
                await self._stop.wait()
        finally:
            self.alive = False
            self._stopped.set()

    def crash(self) -> None:
        """Die without a goodbye: nothing comes out any more, whatever the node still does."""
        self.alive = False
        crash(self.world.network, self.name)
        silence(self.world.network, self.name)

    async def cut_power(self, chance: random.Random) -> None:
        """Lose what was not synced, some of it in part, and start again from what is left."""
        left = self.disk.after_power_cut(chance)
        self.crash()
        self._stop.set()
        await self._stopped.wait()
        rejoin(self.world.network, self.name)
        self.disk = left
        await self.start()

    def write(self, name: str, data: bytes) -> Path:
        """Make a file on its disk."""
        path = DATA / name
        folder = self.disk.folder(path.parent, 0o700)
        file = folder.create(path.name)
        file.pwrite(data, 0)
        file.fdatasync()
        folder.sync()
        return path
