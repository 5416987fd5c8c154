"""Real hostile peers at a real node: it stays small, works on, and counts what they did."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile_peer
import pytest
from misdeeds import MISDEEDS
from processes import Process
from relay import Relay

pytestmark = pytest.mark.processes

MakeFile = Callable[[str, int], Path]
PIECES = 64
MUTE = 60
"""Peers that ask for much and then read nothing: each large buffer spent on them would show."""

PEAK = 150 << 20
"""What a node may take, whatever comes."""

SEEDER_RATE = 16 << 20
"""Bytes a second of the honest seeder: the fetch lasts long enough for the others to do harm."""

AGAINST_A_SEEDER = {
    "deluge": "swarm-frame-length",
    "endless": "swarm-unasked",
    "greedy": "swarm-request-flood",
    "hoards": "swarm-before-hello",
    "oversized": "swarm-frame-length",
    "pings": "yamux-control-flood",
    "streams": "streams-unagreed",
    "trailing": "swarm-frame",
    "unasked": "swarm-unasked",
}
AGAINST_A_FETCH = {
    "endless": "swarm-unasked",
    "oversized": "swarm-frame-length",
    "streams": "streams-unagreed",
    "trailing": "swarm-frame",
    "unasked": "swarm-unasked",
    "wrong": "swarm-piece-hash",
}
"""Who breaks a rule that is counted, and under which name; the others only waste time."""


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def attack(bench: Any, name: str, cid: str, misdeed: str, *arguments: str, each: int) -> list[str]:
    """Start hostile peers; return their addresses when all have got hold of a target, if any."""
    program = (hostile_peer.__file__, misdeed, "--cid", cid, "--pieces", str(PIECES))
    log = bench.folder / f"{name}.log"
    peers = Process(*program, "--each", str(each), *arguments, log=log)
    bench.running.append(peers)
    count = each * (len(MISDEEDS) if misdeed == "all" else 1)
    addresses: list[str] = []
    attached = 0
    for event in peers.events(30):
        if event["event"] == "listening":
            addresses += event["addrs"]
        elif event["event"] == "attached":
            attached += 1
        if len(addresses) == count and (attached == count or "--target" not in arguments):
            break
    return addresses


def assert_counted(bench: Any, name: str, reasons: set[str]) -> None:
    """Check that the node's status tells why peers were at fault."""
    ran = bench.run(name, "--json", "status")
    assert ran.returncode == 0, ran.stderr
    faults = json.loads(ran.stdout.splitlines()[0])["faults"]
    assert reasons <= {reason for reason, times in faults.items() if times}, faults


def test_a_seeder_among_hostile_peers_serves_an_honest_one(
    bench: Any, random_file: MakeFile
) -> None:
    path = random_file("film.bin", PIECES)
    alice, address, shared = bench.seed("alice", path)
    cid = shared["cid"]
    attack(bench, "hostile", cid, "all", "--target", address, each=2)
    attack(bench, "crowd", cid, "mute", "--target", address, each=MUTE)

    target = bench.folder / "got.bin"
    complete = bench.get("bob", cid, target, "--peer", address)

    assert sha256_of(target) == sha256_of(path)
    assert complete["banned"] == []
    assert_counted(bench, "alice", set(AGAINST_A_SEEDER.values()))
    assert 0 < alice.peak_bytes() < PEAK
    assert "Traceback" not in bench.log("alice")


def test_a_fetch_from_hostile_peers_and_one_honest_seeder_ends_right(
    bench: Any, random_file: MakeFile
) -> None:
    path = random_file("film.bin", PIECES)
    _, address, shared = bench.seed("alice", path)
    relay = Relay(int(address.split("/")[4]), SEEDER_RATE)
    address = address.replace(f"/tcp/{address.split('/')[4]}/", f"/tcp/{relay.port}/")
    hostile = attack(bench, "hostile", shared["cid"], "all", each=1)
    bob, _ = bench.up("bob")
    peers = [argument for one in (*hostile, address) for argument in ("--peer", one)]
    target = bench.folder / "got.bin"
    try:
        complete = bench.get("bob", shared["cid"], target, *peers, "--timeout", "40")
    finally:
        relay.close()

    assert sha256_of(target) == sha256_of(path)
    assert sum(source["bytes"] for source in complete["sources"]) == PIECES << 20
    assert len(complete["sources"]) == 1
    assert_counted(bench, "bob", set(AGAINST_A_FETCH.values()))
    assert 0 < bob.peak_bytes() < PEAK
    assert "Traceback" not in bench.log("bob")
