"""A fetching process is killed again and again: what its database claims is always on disk.

The process is a real `shoal get` with real sockets and files. It is killed with SIGKILL at a random
time after its start, or just after it told of some progress. After each kill every claimed piece is
read back and hashed, by plain reads of the files. A slow relay between seeder and fetch makes the
transfer last long enough to be hit.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

import pytest

from shoal.storage.disk import RealDisk
from shoal.storage.model import PIECES_PER_BLOCK, Copy, CopyState, PieceTable
from shoal.storage.store import Store

pytestmark = pytest.mark.processes

MEBIBYTE = 1 << 20
RELAY_RATE = 16 * MEBIBYTE
"""Bytes a second: the content takes about two seconds, so two or three batches."""
PART = 64 << 10
START_SECONDS = 0.7
"""About how long a process takes until it connects."""
KILLS_A_ROUND = 10
LOST_AT_MOST = (128 + 64) * MEBIBYTE
"""Two batches of 64 MiB, and at most one queue of requests in flight."""


class Relay:
    """Passes TCP connections on, slowly in the direction of the one who connected."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.carried = 0
        self._free_at = 0.0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                for source, target, slow in ((near, far, False), (far, near, True)):
                    arguments = (source, target, slow)
                    threading.Thread(target=self._pass, args=arguments, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, slow: bool) -> None:
        with suppress(OSError):
            while data := source.recv(PART):
                if slow:
                    self.carried += len(data)
                    now = time.monotonic()
                    self._free_at = max(self._free_at, now) + len(data) / RELAY_RATE
                    time.sleep(self._free_at - now)
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()

    def close(self) -> None:
        """Take no more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def make_tree(root: Path, chance: random.Random) -> int:
    """Make a folder of 26 MiB with one large file and many small ones; return its bytes."""
    files = {"film.bin": 18 * MEBIBYTE + 12345, "photo.raw": 3 * MEBIBYTE, "empty": 0}
    for number in range(500):
        files[f"notes/{number % 7}/{number}.txt"] = chance.randrange(1, 20_000)
    for name, size in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(size))
    (root / "void").mkdir()
    (root / "link").symlink_to("notes/1/1.txt")
    return sum(files.values())


def same_tree(one: Path, other: Path) -> None:
    """Check that two folders hold the same names, bytes and links."""
    found = [sorted(p.relative_to(root) for p in root.rglob("*")) for root in (one, other)]
    assert found[0] == found[1]
    for name in found[0]:
        mine, theirs = one / name, other / name
        if mine.is_symlink():
            assert mine.readlink() == theirs.readlink()
        elif mine.is_file():
            assert mine.read_bytes() == theirs.read_bytes(), name
        else:
            assert theirs.is_dir()


@dataclass
class Claims:
    """What a database claims about a fetch, every bit of it checked."""

    state: CopyState | None = None
    size: int = 0
    problems: list[str] = field(default_factory=list)


def check_claims(home: Path, scratch: Path) -> Claims:
    """Read a dead node's home, as its next start will, and hash all that it claims to have.

    A copy of the home is opened, so that the next process finds it as the kill left it.
    """
    claims = Claims()
    if not (home / "shoal.db").exists():
        return claims
    shutil.rmtree(scratch, ignore_errors=True)
    ours = shutil.ignore_patterns("*.sock", "lock")
    shutil.copytree(home, scratch, ignore=ours)
    store = Store.open(scratch, RealDisk(), 1.0)
    try:
        claims.problems = store.problems
        for copy in store.copies():
            claims.state = copy.state
            if store.content(copy.cid).pieces is None:  # type: ignore[union-attr]
                assert not store.bits(copy.id).any()
                continue
            held = list(store.bits(copy.id).search(1))
            for block, pieces in groupby(held, lambda piece: piece // PIECES_PER_BLOCK):
                table = store.piece_table(copy.cid, block)
                assert isinstance(table, PieceTable)
                for piece in pieces:
                    claims.size += check_piece(store, copy, table, piece)
    finally:
        store.close()
    return claims


def check_piece(store: Store, copy: Copy, table: PieceTable, piece: int) -> int:
    """Read a claimed piece from its file, hash it, and return its length."""
    at = piece - table.first
    (entry,) = store.entries(copy.cid, table.files[at], 1)
    if entry.size == 0:
        return 0
    with open(copy.place / entry.path, "rb") as file:
        file.seek(table.offsets[at])
        data = file.read(table.lengths[at])
    assert len(data) == table.lengths[at], (piece, entry.path)
    assert hashlib.sha256(data).digest() == table.digest(piece), (piece, entry.path)
    return len(data)


def kill_somewhere(node: Any, chance: random.Random, size: int) -> int:
    """Kill a fetch at a random moment; return what it had reported (-1: it was faster)."""
    if chance.random() < 0.5:
        span = START_SECONDS + 1.3 * size / RELAY_RATE
        with suppress(TimeoutExpired):
            node.process.wait(chance.random() * span)
        node.process.kill()
        node.process.wait()
        wanted = size + 1
    else:  # soon after it told that it has so much; the last steps are worth a closer look
        wanted = chance.choice([chance.randrange(size), size])
    reported, complete = 0, False
    for event in node.events(60):
        assert event["event"] != "error", event
        complete = complete or event["event"] == "complete"
        if event["event"] == "progress":
            reported = event["done_bytes"]
            if reported >= wanted and not complete:
                time.sleep(chance.random() ** 2 * 0.2)
                node.process.kill()
    node.process.wait()
    node.finish()
    return -1 if complete else reported


@pytest.mark.parametrize("kills", [6, pytest.param(200, marks=pytest.mark.long)])
def test_what_a_killed_fetch_claims_is_on_disk(
    bench: Any, tmp_path: Path, kills: int, record_property: Any
) -> None:
    chance = random.Random(kills)
    root = tmp_path / "album"
    size = make_tree(root, chance)
    _, address, shared = bench.seed("alice", root)
    relay = Relay(int(address.split("/")[4]))
    address = address.replace(f"/tcp/{address.split('/')[4]}/", f"/tcp/{relay.port}/")
    killed, rounds, kept, again, resumed = 0, 0, 0, 0, 0
    try:
        while killed < kills:
            rounds += 1
            home, target = f"bob{rounds}", tmp_path / f"got{rounds}"
            arguments = (shared["cid"], "-o", str(target), "--peer", address)
            before = 0
            for _ in range(chance.randrange(2, KILLS_A_ROUND)):
                node = bench.start(home, "get", *arguments, "--listen", "/ip4/127.0.0.1/tcp/0")
                reported = kill_somewhere(node, chance, size)
                claims = check_claims(tmp_path / home, tmp_path / "scratch")
                assert claims.problems == []
                assert claims.size >= before  # nothing that was claimed is fetched again
                assert claims.size >= reported - LOST_AT_MOST
                resumed += claims.size > 0
                before = claims.size
                again += max(0, reported - claims.size)
                if reported < 0 or claims.state is CopyState.COMPLETE:
                    break
                killed += 1
            complete = bench.get(home, shared["cid"], target, "--peer", address)
            assert sum(s["bytes"] for s in complete["sources"]) <= size - before
            same_tree(root, target)
            whole = bench.run(home, "--json", "share", str(target), "--hash-only")
            assert shared["cid"] in whole.stdout
            assert [n for n in os.listdir(tmp_path) if n.startswith(".shoal-")] == []
            kept += size
            shutil.rmtree(target)
            shutil.rmtree(tmp_path / home)
    finally:
        relay.close()
    assert killed >= kills
    assert resumed > 0
    figures = {"kills": killed, "rounds": rounds, "kept after a kill": resumed,
               "bytes reported and fetched again": again,
               "bytes carried": relay.carried, "bytes of contents": kept}  # fmt: skip
    record_property("figures", figures)
    print(figures)
