"""`get --only` and `--order` with real processes: some files of a folder, more of them, all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.processes

FILES = {"readme.txt": b"hello", "data/one.csv": b"1,2", "data/two.csv": b"3,4", "big.bin": b""}


@pytest.fixture
def shared(bench: Any, tmp_path: Path) -> tuple[str, str]:
    root = tmp_path / "set"
    for name, data in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data or bytes(range(256)) * 20_000)
    _, address, event = bench.seed("alice", root)
    return event["cid"], address


def found(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_some_files_then_more_then_all(bench: Any, tmp_path: Path, shared: tuple[str, str]) -> None:
    cid, address = shared
    to = tmp_path / "got"
    first = bench.get("bob", cid, to, "--peer", address, "--only", "*.csv")
    assert first["bytes"] == 6
    assert found(to) == {"data/one.csv", "data/two.csv"}
    (row,) = [json.loads(x) for x in bench.run("bob", "ls", "--json").stdout.splitlines()]
    assert (row["state"], row["only"]) == ("complete", ["*.csv"])
    again = bench.get("bob", cid, to, "--peer", address, "--only", "*.csv")
    assert again["sources"] == []
    more = bench.get("bob", cid, to, "--peer", address, "--only", "/readme.txt")
    assert more["bytes"] == 11
    assert found(to) == {"data/one.csv", "data/two.csv", "readme.txt"}
    bench.get("bob", cid, to, "--peer", address, "--order", "sequential")
    assert found(to) == set(FILES)
    assert (to / "big.bin").read_bytes() == bytes(range(256)) * 20_000
    assert [path.name for path in tmp_path.glob(".shoal-*")] == []


def test_a_pattern_that_takes_nothing_says_what_there_is_and_leaves_nothing(
    bench: Any, tmp_path: Path, shared: tuple[str, str]
) -> None:
    cid, address = shared
    to = tmp_path / "got"
    run = bench.run("bob", "get", cid, "-o", str(to), "--peer", address, "--only", "*.jpg")
    assert run.returncode == 2
    assert "'*.jpg'" in run.stderr
    assert "'data'" in run.stderr
    assert not to.exists()
    assert bench.run("bob", "ls", "--json").stdout == ""


def test_a_running_fetch_takes_a_wider_choice_over(
    bench: Any, tmp_path: Path, shared: tuple[str, str]
) -> None:
    cid, address = shared
    to = tmp_path / "got"
    bench.up("bob", "--bootstrap", address)
    bench.get("bob", cid, to, "--peer", address, "--only", "*.txt")
    assert found(to) == {"readme.txt"}
    bench.get("bob", cid, to, "--peer", address)
    assert found(to) == set(FILES)
