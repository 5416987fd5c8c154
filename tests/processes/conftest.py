"""Real shoal processes for the tests of this folder: loopback sockets, real files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from processes import Event, Process, Shoal

LOOPBACK = ("--listen", "/ip4/127.0.0.1/tcp/0")
COMMAND_SECONDS = 60


@dataclass
class Bench:
    """Starts processes below one folder and ends them all."""

    folder: Path
    running: list[Process] = field(default_factory=list)

    def start(self, name: str, *arguments: str) -> Shoal:
        """Start `shoal` with the home folder `name`."""
        log = self.folder / f"{name}.log"
        node = Shoal(self.folder / name, *arguments, log=log, folder=self.folder)
        self.running.append(node)
        return node

    def seed(self, name: str, path: Path, *arguments: str) -> tuple[Shoal, str, Event]:
        """Share a path; return the process, its address and the `shared` event."""
        node = self.start(name, "share", str(path), *LOOPBACK, *arguments)
        address = node.wait_for("listening", 30)["addrs"][0]
        return node, address, node.wait_for("shared", 60)

    def up(self, name: str, *arguments: str) -> tuple[Shoal, str]:
        """Run a headless node; return the process and its address."""
        node = self.start(name, "up", *LOOPBACK, *arguments)
        return node, node.wait_for("listening", 30)["addrs"][0]

    def get(self, name: str, target: str, to: Path, *arguments: str) -> Event:
        """Fetch to the end; return the `complete` event."""
        node = self.start(name, "get", target, "-o", str(to), *LOOPBACK, *arguments)
        complete = node.wait_for("complete", 90)
        node.finish()
        assert node.process.returncode == 0
        return complete

    def run(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of home `name` to its end, as a person would (without --json)."""
        command = [sys.executable, "-m", "shoal.cli", "--home", str(self.folder / name)]
        return subprocess.run(
            [*command, *arguments],
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
        )

    def log(self, name: str) -> str:
        """What a process wrote to standard error."""
        return (self.folder / f"{name}.log").read_text(errors="replace")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A folder in which real nodes run; all are ended after the test."""
    bench = Bench(tmp_path)
    yield bench
    for node in bench.running:
        if node.process.poll() is None:
            node.process.kill()
        node.finish(stop=True)


@pytest.fixture
def random_file(tmp_path: Path) -> Callable[[str, int], Path]:
    """Make a file of random bytes: name, size in MiB."""

    def make(name: str, mebibytes: int) -> Path:
        path = tmp_path / name
        with path.open("wb") as file:
            for _ in range(mebibytes):
                file.write(os.urandom(1 << 20))
        return path

    return make
