"""`shoal simulate --from-status` beside a real node: a fetch that flows, and one that waits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.processes
pytest.importorskip("numba")


def test_a_running_fetch_is_forecast_and_a_waiting_one_says_why(
    bench: Any, random_file: Callable[[str, int], Path]
) -> None:
    path = random_file("film.bin", 64)
    _, address, shared = bench.seed("alice", path)
    assert bench.run("alice", "limit", "--up", "1MB").returncode == 0
    bench.up("nas")
    idle = bench.run("nas", "simulate", "--from-status")
    assert idle.returncode == 3
    assert "no fetch is under way" in idle.stderr

    target = bench.folder / "got.bin"
    getter = bench.start("nas", "get", shared["cid"], "-o", str(target), "--peer", address)
    for event in getter.events(60):
        if event["event"] == "progress" and event["rate"] and event["done_bytes"]:
            break
    told = bench.run("nas", "simulate", "--from-status")
    assert told.returncode == 0, told.stderr
    assert "MB are missing and come at" in told.stdout
    assert "from 1 source: done in" in " ".join(told.stdout.split())
    assert "95 % interval" in told.stdout
    (answer,) = bench.folder.glob("tonight-*/answer.txt")
    assert answer.read_text().strip() in " ".join(told.stdout.split())
