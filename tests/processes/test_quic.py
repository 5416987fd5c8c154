"""Real processes over QUIC: alone, and beside TCP."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(importlib.util.find_spec("qh3") is None, reason="shoal[quic] is missing"),
]

MakeFile = Callable[[str, int], Path]
QUIC = ("--listen", "/ip4/127.0.0.1/udp/0/quic-v1")


def test_a_file_travels_over_quic_alone(bench: Any, random_file: MakeFile, tmp_path: Path) -> None:
    file = random_file("file", 24)
    seeder = bench.start("seeder", "share", str(file), *QUIC)
    address = seeder.wait_for("listening", 30)["addrs"][0]
    assert "/quic-v1/p2p/" in address
    link = seeder.wait_for("shared", 60)["link"]
    assert "/tcp/" not in link
    getter = bench.start("getter", "get", link, "-o", str(tmp_path / "out"), *QUIC)
    complete = getter.wait_for("complete", 90)
    assert (tmp_path / "out").read_bytes() == file.read_bytes()
    assert complete["wasted_bytes"] == 0
    words = ("get", link, "-o", str(tmp_path / "none"), "--no-quic", "--timeout", "2")
    refused = bench.run("refuser", *words)
    assert refused.returncode == 3
    assert not (tmp_path / "none").exists()


def test_a_node_listens_on_both_and_tells_which_is_used(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"small")
    first = bench.start("first", "share", str(tmp_path / "small"))
    addrs = first.wait_for("listening", 30)["addrs"]
    near = [addr for addr in addrs if addr.startswith("/ip4/127.0.0.1/")]
    (tcp,) = [addr for addr in near if "/tcp/" in addr]
    (quic,) = [addr for addr in near if "/quic-v1/" in addr]
    assert tcp.split("/")[4] == quic.split("/")[4]  # the same number
    second = bench.start("second", "up", "--bootstrap", quic, *QUIC)
    second.wait_for("listening", 30)
    for _ in range(60):
        rows = bench.run("second", "--json", "peers").stdout.splitlines()
        if rows:
            break
        time.sleep(0.25)
    assert [json.loads(row)["transport"] for row in rows] == ["quic"]
    status = json.loads(bench.run("first", "--json", "status").stdout.splitlines()[0])
    assert status["transports"] == {"quic": 1}
