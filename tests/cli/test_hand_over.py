"""Real processes of the command line that hand their work over a real control socket."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from shoal.node.api.server import serve_control
from shoal.node.client import Operation
from shoal.node.events import Complete, Event, Identity, Paused, Progress

CID = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
DEADLINE = 30.0
"""Seconds; a process that hangs fails the test."""


@dataclass
class Waiting:
    """A node whose fetches never end, and which may be slow to pause them."""

    slow: bool = False
    done: trio.Event = field(default_factory=trio.Event)
    asked: list[tuple[Any, ...]] = field(default_factory=list)

    async def id(self) -> Identity:
        return Identity("12D3me", "/home", True)

    def get(self, target: str, destination: Any, **options: Any) -> Operation[Complete]:
        self.asked.append(("get", destination, options["leave"]))

        async def work() -> AsyncIterator[Event]:
            yield Progress(target, 0, 9, 0, 1, None, 0, None, "nobody has it", "/out/x")
            await self.done.wait()
            yield Complete(target, "/out/x", 9, 1.0)

        return Operation(work, Complete)  # type: ignore[arg-type]

    async def pause(self, cid: str, path: Any = None) -> list[Paused]:
        self.asked.append(("pause", cid, path))
        if self.slow:
            await trio.sleep_forever()
        return [Paused(cid, path)]


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sh") as name:
        yield Path(name)


@pytest.fixture
async def node(home: Path, nursery: trio.Nursery) -> Waiting:
    node = Waiting()
    await nursery.start(serve_control, node, home / "control.sock")
    return node


async def start(home: Path, *arguments: str) -> trio.Process:
    """Start `shoal --json` in the home's folder."""
    command = [sys.executable, "-m", "shoal.cli", "--home", str(home), "--json", *arguments]
    return await trio.lowlevel.open_process(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=home
    )


async def events(process: trio.Process) -> AsyncIterator[dict[str, Any]]:
    """Yield what the process prints."""
    assert process.stdout is not None
    pending = b""
    async for chunk in process.stdout:
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            yield json.loads(line)


async def test_a_fetch_is_handed_over(home: Path, node: Waiting) -> None:
    node.done.set()
    with trio.fail_after(DEADLINE):
        process = await start(home, "get", CID, "-o", "sub/x")
        names = [event["event"] async for event in events(process)]
        assert await process.wait() == 0
    assert names == ["node", "progress", "complete"]
    assert node.asked == [("get", str(home / "sub" / "x"), "continue")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_ctrl_c_pauses_what_was_handed_over(
    home: Path, node: Waiting, number: signal.Signals
) -> None:
    with trio.fail_after(DEADLINE):
        process = await start(home, "get", CID)
        async for event in events(process):
            if event["event"] == "progress":
                process.send_signal(number)
        assert await process.wait() == 130
    assert event == {
        "event": "error", "code": 130,
        "message": f"paused; to go on, run it again, or: shoal resume {CID}",
    }  # fmt: skip
    assert node.asked == [("get", str(home), "continue"), ("pause", CID, "/out/x")]


async def test_a_second_ctrl_c_ends_at_once(home: Path, node: Waiting) -> None:
    node.slow = True
    with trio.fail_after(DEADLINE):
        process = await start(home, "get", CID)
        async for event in events(process):
            if event["event"] == "progress":
                process.send_signal(signal.SIGINT)
                while len(node.asked) < 2:
                    await trio.testing.wait_all_tasks_blocked(0.05)
                process.send_signal(signal.SIGINT)
        assert await process.wait() == 130


async def test_a_node_that_ends_meanwhile_is_said(home: Path, nursery: trio.Nursery) -> None:
    node: Any = Waiting()
    scope = trio.CancelScope()

    async def serve(*, task_status: trio.TaskStatus[None]) -> None:
        with scope:
            await serve_control(node, home / "control.sock", task_status=task_status)

    await nursery.start(serve)
    with trio.fail_after(DEADLINE):
        process = await start(home, "get", CID)
        async for event in events(process):
            if event["event"] == "progress":
                scope.cancel()
        assert await process.wait() == 6
    assert "node stopped" in event["message"]
