"""Sharing and fetching between real processes over loopback."""

from __future__ import annotations

import filecmp
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.processes

MakeFile = Callable[[str, int], Path]


def test_a_file_travels_between_two_processes(bench: Any, random_file: MakeFile) -> None:
    path = random_file("film.bin", 20)
    _, address, shared = bench.seed("alice", path)
    assert shared["size"] == 20 << 20
    assert shared["pieces"] == 20
    assert shared["name"] == "film.bin"
    assert shared["link"].startswith(f"shoal:{shared['cid']},name=film.bin")

    target = bench.folder / "got.bin"
    complete = bench.get("bob", shared["cid"], target, "--peer", address)
    assert filecmp.cmp(path, target, shallow=False)
    assert complete["bytes"] == 20 << 20
    assert complete["path"] == str(target)
    (source,) = complete["sources"]
    assert (source["bytes"], source["pieces"]) == (20 << 20, 20)
    assert complete["banned"] == []


def test_the_link_alone_suffices(bench: Any, random_file: MakeFile) -> None:
    path = random_file("two words.bin", 2)
    _, _, shared = bench.seed("alice", path)
    folder = bench.folder / "inbox"
    folder.mkdir()
    complete = bench.get("bob", shared["link"], folder)
    assert complete["path"] == str(folder / "two words.bin")
    assert filecmp.cmp(path, folder / "two words.bin", shallow=False)


def test_three_seeders_are_found_by_hash_alone(bench: Any, random_file: MakeFile) -> None:
    path = random_file("film.bin", 96)
    _, first, shared = bench.seed("alice", path)
    others = [bench.seed(name, path, "--bootstrap", first) for name in ("bob", "carol")]
    for node, _, event in others:
        assert event["cid"] == shared["cid"]
        assert node.wait_for("announced", 30)["peers"] > 0
    target = bench.folder / "got.bin"
    complete = bench.get("dave", shared["cid"], target, "--bootstrap", first)
    assert filecmp.cmp(path, target, shallow=False)
    assert len(complete["sources"]) == 3
    assert complete["wasted_bytes"] < 0.05 * (96 << 20)


def test_a_bare_peer_id_is_resolved_through_the_dht(bench: Any, random_file: MakeFile) -> None:
    path = random_file("film.bin", 3)
    _, meeting_point = bench.up("router")
    node = bench.start(
        "alice", "share", str(path), "--no-announce", "--bootstrap", meeting_point,
        "--listen", "/ip4/127.0.0.1/tcp/0",
    )  # fmt: skip
    peer_id = node.wait_for("listening", 30)["peer_id"]
    cid = node.wait_for("shared", 30)["cid"]
    target = bench.folder / "got.bin"
    bench.get("bob", cid, target, "--bootstrap", meeting_point, "--peer", peer_id)
    assert filecmp.cmp(path, target, shallow=False)


def test_a_machine_that_cannot_be_dialled_shares_by_dialling(
    bench: Any, random_file: MakeFile
) -> None:
    path = random_file("film.bin", 3)
    _, address = bench.up("reachable")
    hidden = bench.start(
        "hidden", "share", str(path), "--no-announce", "--peer", address,
        "--listen", "/ip4/127.0.0.1/tcp/0", "--announce", "/ip4/127.0.0.1/tcp/1",
    )  # fmt: skip
    cid = hidden.wait_for("shared", 30)["cid"]
    target = bench.folder / "got.bin"
    done = bench.run("reachable", "get", cid, "-o", str(target), "--timeout", "30")
    assert done.returncode == 0, done.stderr
    assert filecmp.cmp(path, target, shallow=False)


def test_a_small_file_and_an_empty_one(bench: Any, tmp_path: Path) -> None:
    for name, data in (("one", b"x"), ("none", b"")):
        path = tmp_path / name
        path.write_bytes(data)
        _, address, shared = bench.seed(f"seed-{name}", path)
        target = tmp_path / f"got-{name}"
        complete = bench.get(f"get-{name}", shared["cid"], target, "--peer", address)
        assert target.read_bytes() == data
        assert complete["bytes"] == len(data)


def test_getting_a_finished_copy_again_does_nothing(bench: Any, random_file: MakeFile) -> None:
    path = random_file("film.bin", 2)
    seeder, address, shared = bench.seed("alice", path)
    target = bench.folder / "got.bin"
    bench.get("bob", shared["cid"], target, "--peer", address)
    seeder.finish(stop=True)
    again = bench.get("bob", shared["cid"], target)
    assert again["sources"] == []
