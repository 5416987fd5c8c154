"""Real shoal processes for the demo and the timings: started, listened to, measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from types import TracebackType
from typing import IO, Any, Self

Event = dict[str, Any]

STOP_SECONDS = 15.0
"""A node ends cleanly within 10 s of SIGTERM; beyond this it is killed."""


class ShoalFailed(RuntimeError):
    """A process ended, or said nothing, before the event that was waited for."""


@dataclass(frozen=True)
class Usage:
    """What a finished process used."""

    cpu_seconds: float
    peak_bytes: int


class Process:
    """A Python program that prints a JSON object a line."""

    def __init__(
        self,
        *arguments: str,
        log: Path | None = None,
        folder: Path | None = None,
        within: Sequence[str] = (),
    ) -> None:
        """Start `python ARGUMENTS`, in `folder`, by the command `within` if there is one."""
        self._log: IO[bytes] | int = log.open("wb") if log else subprocess.DEVNULL
        command = [*within, sys.executable, *arguments]
        # Compiled modules are kept, as they are for who has installed it: it is half a second.
        kept = {name: v for name, v in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._log, cwd=folder, env=kept
        )
        self._events: Queue[Event | None] = Queue()
        self._usage: Usage | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._events.put(json.loads(line))
        self._events.put(None)

    def events(self, timeout: float = 120.0) -> Iterator[Event]:
        """Yield events until the process closes its output; `timeout` is for each of them."""
        while True:
            try:
                event = self._events.get(timeout=timeout)
            except Empty:
                raise ShoalFailed(f"no event for {timeout:.0f} s") from None
            if event is None:
                return
            yield event

    def wait_for(self, name: str, timeout: float = 120.0) -> Event:
        """Return the next event of this name.

        Raises:
            ShoalFailed: The process reported an error, ended, or was silent for too long.
        """
        for event in self.events(timeout):
            if event["event"] == name:
                return event
            if event["event"] == "error":
                raise ShoalFailed(event["message"])
        raise ShoalFailed(f"the process ended without the event {name!r}")

    def cpu_seconds(self) -> float:
        """Return what the running process has used so far (Linux; elsewhere 0)."""
        try:
            text = Path(f"/proc/{self.process.pid}/stat").read_text()
        except OSError:
            return 0.0
        fields = text[text.rindex(")") :].split()
        return (int(fields[12]) + int(fields[13])) / os.sysconf("SC_CLK_TCK")

    def peak_bytes(self) -> int:
        """Return the most memory that the running process has had so far (Linux; elsewhere 0)."""
        try:
            text = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return 0
        found = [line.split()[1] for line in text.splitlines() if line.startswith("VmHWM:")]
        return int(found[0]) * 1024 if found else 0

    def finish(self, *, stop: bool = False) -> Usage:
        """Wait for the end (`stop`: ask for it first) and return what the process used."""
        if self._usage is None:
            if stop and self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
                killer = threading.Timer(STOP_SECONDS, self.process.kill)
                killer.start()
            else:
                killer = None
            try:
                _, status, used = os.wait4(self.process.pid, 0)
            except ChildProcessError:  # somebody polled it: what it used is not known any more
                self._usage = Usage(0.0, 0)
            else:
                self.process.returncode = os.waitstatus_to_exitcode(status)
                self._usage = Usage(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)
            if killer is not None:
                killer.cancel()
            self._reader.join(STOP_SECONDS)
            if not isinstance(self._log, int):
                self._log.close()
        return self._usage

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.finish(stop=True)


class Shoal(Process):
    """One `shoal --json` process with a home folder of its own."""

    def __init__(
        self,
        home: Path,
        *arguments: str,
        log: Path | None = None,
        folder: Path | None = None,
        within: Sequence[str] = (),
    ) -> None:
        """Start `shoal --home HOME --json ARGUMENTS`, in `folder`, by the command `within`."""
        self.home = home
        self.first: Event = {}
        """For whoever started it: the event that told that it was up."""
        command = ("-m", "shoal.cli", "--home", str(home), "--json", *arguments)
        super().__init__(*command, log=log, folder=folder, within=within)


def seed(home: Path, path: Path, *arguments: str, log: Path | None = None) -> tuple[Shoal, Event]:
    """Start a process that shares `path` on a loopback port; return it and its first address."""
    node = Shoal(home, "share", str(path), "--listen", "/ip4/127.0.0.1/tcp/0", *arguments, log=log)
    try:
        return node, node.wait_for("listening")
    except ShoalFailed:
        node.finish(stop=True)
        raise


def write_random(path: Path, size: int) -> None:
    """Make a file of `size` random bytes."""
    with path.open("wb") as file:
        left = size
        while left:
            left -= file.write(os.urandom(min(left, 8 << 20)))


def megabytes(count: float) -> str:
    """Return bytes as MB text."""
    return f"{count / 1e6:.0f} MB"


def shares(sources: Sequence[Event]) -> list[tuple[str, float]]:
    """Return (peer id, share of the bytes) of each source, largest first."""
    total = sum(source["bytes"] for source in sources) or 1
    ranked = sorted(sources, key=lambda source: -int(source["bytes"]))
    return [(str(source["peer_id"]), source["bytes"] / total) for source in ranked]
