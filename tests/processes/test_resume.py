"""Kills and restarts: nothing that the database claims is missing, little is fetched again."""

from __future__ import annotations

import filecmp
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.processes

MakeFile = Callable[[str, int], Path]
MEBIBYTE = 1 << 20
LOST_AT_MOST = (128 + 64) * MEBIBYTE
"""Two batches of 64 MiB, and at most one queue of requests in flight."""


def kill_at(node: Any, done_bytes: int) -> int:
    """Kill a fetch once it reports this much; return what it had reported."""
    for event in node.events(60):
        if event["event"] == "progress" and event["done_bytes"] >= done_bytes:
            node.process.kill()
            node.finish()
            return int(event["done_bytes"])
        assert event["event"] not in ("complete", "error"), event
    raise AssertionError("the fetch ended before it could be killed")


def test_a_killed_fetch_goes_on_where_it_was(bench: Any, random_file: MakeFile) -> None:
    size = 768
    path = random_file("film.bin", size)
    _, address, shared = bench.seed("alice", path)
    target = bench.folder / "got.bin"
    arguments = (shared["cid"], "-o", str(target), "--peer", address)
    reported = kill_at(bench.start("bob", "get", *arguments), size * MEBIBYTE * 3 // 10)
    again = bench.start("bob", "get", *arguments)
    first = again.wait_for("progress", 30)
    while first["pieces"] is None:
        first = again.wait_for("progress", 30)
    assert first["done_bytes"] >= reported - LOST_AT_MOST
    complete = again.wait_for("complete", 60)
    fetched = sum(source["bytes"] for source in complete["sources"])
    assert fetched <= size * MEBIBYTE - first["done_bytes"]
    assert filecmp.cmp(path, target, shallow=False)


def test_the_fetch_goes_on_when_one_of_two_seeders_dies(bench: Any, random_file: MakeFile) -> None:
    path = random_file("film.bin", 384)
    first, one, shared = bench.seed("alice", path)
    _, two, _ = bench.seed("bob", path)
    target = bench.folder / "got.bin"
    getter = bench.start(
        "carol", "get", shared["cid"], "-o", str(target), "--peer", one, "--peer", two
    )
    for event in getter.events(60):
        if event["event"] == "progress" and event["done_bytes"] > 0:
            break
    first.process.kill()
    getter.wait_for("complete", 60)
    assert filecmp.cmp(path, target, shallow=False)


def test_a_waiting_fetch_finds_a_seeder_on_another_port(bench: Any, random_file: MakeFile) -> None:
    path = random_file("film.bin", 384)
    _, router = bench.up("router")
    seeder, _, shared = bench.seed("alice", path, "--bootstrap", router)
    seeder.wait_for("announced", 30)
    target = bench.folder / "got.bin"
    getter = bench.start(
        "bob", "get", shared["cid"], "-o", str(target), "--bootstrap", router,
        "--timeout", "300", "--listen", "/ip4/127.0.0.1/tcp/0",
    )  # fmt: skip
    for event in getter.events(60):
        if event["event"] == "progress" and event["done_bytes"] > 0:
            break
    seeder.process.kill()
    seeder.finish()
    bench.seed("alice", path, "--bootstrap", router)  # port 0: another one than before
    getter.wait_for("complete", 180)
    assert filecmp.cmp(path, target, shallow=False)


def test_a_node_restarts_with_nothing_but_its_home(bench: Any, random_file: MakeFile) -> None:
    path = random_file("film.bin", 4)
    _, router = bench.up("router")
    sharer, _, shared = bench.seed("alice", path, "--bootstrap", router)
    sharer.wait_for("announced", 30)
    keeper, _ = bench.up("nas", "--bootstrap", router)
    copy = bench.folder / "nas.bin"
    done = bench.run("nas", "get", shared["cid"], "-o", str(copy))
    assert done.returncode == 0, done.stderr
    sharer.finish(stop=True)
    keeper.process.kill()
    keeper.finish()

    bench.up("nas")  # no --bootstrap: it remembers whom it met
    target = bench.folder / "got.bin"
    bench.get("carol", shared["cid"], target, "--bootstrap", router, "--timeout", "60")
    assert filecmp.cmp(path, target, shallow=False)


def test_a_fetch_goes_on_when_its_node_is_restarted(bench: Any, random_file: MakeFile) -> None:
    path = random_file("film.bin", 384)
    _, address, shared = bench.seed("alice", path)
    node, _ = bench.up("nas")
    target = bench.folder / "nas.bin"
    getter = bench.start("nas", "get", shared["cid"], "-o", str(target), "--peer", address)
    for event in getter.events(60):
        if event["event"] == "progress" and event["done_bytes"] > 0:
            break
    node.process.kill()
    node.finish()
    getter.finish(stop=True)
    bench.up("nas", "--bootstrap", address)
    done = bench.run("nas", "get", shared["cid"], "-o", str(target), "--timeout", "60")
    assert done.returncode == 0, done.stderr
    assert filecmp.cmp(path, target, shallow=False)


def test_sigterm_ends_a_node_cleanly(bench: Any) -> None:
    node, _ = bench.up("nas")
    node.process.send_signal(signal.SIGTERM)
    assert node.process.wait(10) == 0
    assert "Traceback" not in bench.log("nas")
