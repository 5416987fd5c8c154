"""A node whose database is lost or damaged serves and fetches on from its journal and its files."""

from __future__ import annotations

import filecmp
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.processes

MEBIBYTE = 1 << 20
HELD = 64 * MEBIBYTE


def lose(home: Path) -> None:
    for name in ("shoal.db", "shoal.db-wal", "shoal.db-shm"):
        (home / name).unlink(missing_ok=True)


def truncate(home: Path) -> None:
    path = home / "shoal.db"
    os.truncate(path, random.Random(1).randrange(path.stat().st_size))
    (home / "shoal.db-wal").unlink(missing_ok=True)


def scribble(home: Path) -> None:
    path = home / "shoal.db"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 8192 * 4096)
        file.write(random.Random(2).randbytes(16384))
    (home / "shoal.db-wal").unlink(missing_ok=True)


LONG = pytest.mark.long


@pytest.mark.parametrize(
    "damage", [lose, pytest.param(truncate, marks=LONG), pytest.param(scribble, marks=LONG)]
)
def test_what_was_shared_fetched_and_half_fetched_goes_on(
    bench: Any,
    tmp_path: Path,
    random_file: Callable[[str, int], Path],
    damage: Callable[[Path], None],
) -> None:
    film, song, mine = random_file("film", 384), random_file("song", 3), random_file("mine", 2)
    _, address, big = bench.seed("alice", film)
    dora, other, small = bench.seed("dora", song)
    node, _ = bench.up("bob")
    assert bench.run("bob", "share", str(mine)).returncode == 0
    done = bench.run("bob", "get", small["cid"], "-o", str(tmp_path / "song2"), "--peer", other)
    assert done.returncode == 0, done.stderr
    dora.finish(stop=True)
    fetch = ("get", big["cid"], "-o", str(tmp_path / "film2"), "--peer", address)
    getter = bench.start("bob", *fetch)
    for event in getter.events(60):
        if event["event"] == "progress" and event["done_bytes"] >= 192 * MEBIBYTE:
            break
    node.process.kill()
    node.finish()
    getter.finish(stop=True)
    working = sorted(name for name in os.listdir(tmp_path) if name.startswith(".shoal-"))
    damage(tmp_path / "bob")

    again, new_address = bench.up("bob")
    told = []
    for event in again.events(30):
        told.append(event.get("message", ""))
        if sum("is served again" in text for text in told) == 2:
            break
    assert any("did not know 3 of the copies" in text for text in told)
    complete = bench.start("bob", *fetch).wait_for("complete", 90)
    fetched = sum(source["bytes"] for source in complete["sources"])
    assert fetched <= 384 * MEBIBYTE - HELD
    assert filecmp.cmp(film, tmp_path / "film2", shallow=False)
    assert len(working) == 1
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".shoal-")]
    shared = bench.run("bob", "--json", "ls").stdout
    assert shared.count('"state": "shared"') + shared.count('"state":"shared"') == 1
    assert "degraded" not in shared
    got = bench.get("carol", small["cid"], tmp_path / "song3", "--peer", new_address)
    assert [source["pieces"] for source in got["sources"]] == [3]
    assert filecmp.cmp(song, tmp_path / "song3", shallow=False)
