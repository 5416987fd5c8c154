"""Every mistake gets its exit code and one sentence that says what to do; never a traceback."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.processes

MakeFile = Callable[[str, int], Path]
UNKNOWN = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"


def check(done: Any, code: int, *words: str) -> None:
    """Check the exit code and that the message is one readable sentence with these words."""
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert lines, done.stdout
    message = " ".join(lines)
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("get", "not-a-cid"), ("not-a-cid",)),
        (("get", "shoal:"), ()),
        (("get", f"shoal:{UNKNOWN},peer=/ip4/1.2.3/tcp/1"), ("1.2.3",)),
        (("get", UNKNOWN, "--peer", "/ip4/127.0.0.1/tcp/99999"), ("99999",)),
        (("get", UNKNOWN, "--peer", "nonsense"), ("nonsense",)),
        (("up", "--listen", "/ip4/nowhere/tcp/1"), ("nowhere",)),
        (("up", "--bootstrap", "nonsense"), ("nonsense",)),
        (("up", "--dht", "sometimes"), ("sometimes",)),
        (("share",), ()),
        (("no-such-command",), ("no-such-command",)),
        (("get", UNKNOWN, "--no-such-option"), ("--no-such-option",)),
    ],
)
def test_usage(bench: Any, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    check(bench.run("home", *arguments), 2, *words)


def test_nothing_known_to_ask(bench: Any) -> None:
    check(bench.run("home", "get", UNKNOWN, "--timeout", "5"), 3, "--bootstrap")


def test_an_unknown_content(bench: Any) -> None:
    _, address = bench.up("router")
    check(
        bench.run("home", "get", UNKNOWN, "--bootstrap", address, "--timeout", "3"), 3, "provider"
    )


def test_a_peer_that_is_gone(bench: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    peer = f"/ip4/127.0.0.1/tcp/{port}/p2p/12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq"
    check(bench.run("home", "get", UNKNOWN, "--peer", peer, "--timeout", "3"), 3)


def test_a_peer_with_another_key(bench: Any, random_file: MakeFile) -> None:
    path = random_file("film.bin", 1)
    _, address, shared = bench.seed("alice", path)
    wrong = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq"
    peer = f"{address.rpartition('/')[0]}/{wrong}"
    target = str(bench.folder / "got")
    done = bench.run("home", "get", shared["cid"], "-o", target, "--peer", peer, "--timeout", "3")
    check(done, 3, wrong)


def test_missing_unreadable_and_special_files(bench: Any, tmp_path: Path) -> None:
    done = bench.run("home", "share", str(tmp_path / "missing"))
    check(done, 5, "missing")
    assert "serving" not in done.stderr
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    check(bench.run("home", "share", str(fifo)), 5, "pipe")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "fine").write_text("x")
    os.mkfifo(folder / "pipe")
    check(bench.run("home", "share", str(folder), "--hash-only"), 5, "pipe", "--skip-special")
    done = bench.run("home", "share", str(folder), "--hash-only", "--skip-special")
    assert done.returncode == 0, done.stderr
    if os.getuid() != 0:  # root reads everything
        (folder / "fine").chmod(0)
        done = bench.run("home", "share", str(folder), "--hash-only", "--skip-special")
        check(done, 5, "fine")


def test_a_running_node_survives_what_cannot_be_shared(bench: Any, tmp_path: Path) -> None:
    bench.up("home")
    check(bench.run("home", "share", str(tmp_path / "missing")), 5, "missing")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    check(bench.run("home", "share", str(pipe)), 5, "pipe")
    assert bench.run("home", "status").returncode == 0


def test_a_place_that_cannot_be_written_is_said_once(bench: Any, random_file: MakeFile) -> None:
    _, address, shared = bench.seed("alice", random_file("film.bin", 1))
    target = "/proc/no-place/film.bin"
    done = bench.run("home", "get", shared["cid"], "-o", target, "--peer", address)
    check(done, 5)
    said = [line for line in done.stderr.splitlines() if "no-place" in line]
    assert len(said) == 1, done.stderr


def test_an_existing_destination_is_left_alone(bench: Any, random_file: MakeFile) -> None:
    path = random_file("film.bin", 1)
    _, address, shared = bench.seed("alice", path)
    taken = bench.folder / "taken"
    taken.write_text("mine")
    done = bench.run("home", "get", shared["cid"], "-o", str(taken), "--peer", address)
    check(done, 6, "taken", "exists")
    assert taken.read_text() == "mine"


def test_a_second_node_on_a_home(bench: Any) -> None:
    bench.up("home")
    check(bench.run("home", "up"), 6)


def test_a_port_in_use(bench: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = bench.run("home", "up", "--listen", f"/ip4/127.0.0.1/tcp/{port}")
    check(done, 6, str(port))


def test_commands_that_need_a_node(bench: Any) -> None:
    for command in (("peers",), ("pause", UNKNOWN), ("dht", "table")):
        check(bench.run("home", *command), 6, "shoal up")


def test_an_unknown_key_in_the_configuration(bench: Any) -> None:
    home = bench.folder / "home"
    home.mkdir()
    (home / "config.toml").write_text('lisen = ["/ip4/127.0.0.1/tcp/0"]\n')
    check(bench.run("home", "up"), 2, "lisen", "listen")


def test_a_key_that_is_none(bench: Any) -> None:
    home = bench.folder / "home"
    home.mkdir()
    (home / "identity.key").write_bytes(b"ten bytes!")
    check(bench.run("home", "id"), 5, "identity.key", "backup")
    assert (home / "identity.key").read_bytes() == b"ten bytes!"


def test_errors_as_json(bench: Any) -> None:
    done = bench.run("home", "--json", "get", "not-a-cid")
    assert done.returncode == 2
    event = json.loads(done.stdout.splitlines()[-1])
    assert (event["event"], event["code"]) == ("error", 2)
    assert event["message"]


def test_a_home_with_a_very_long_path_works(bench: Any, random_file: MakeFile) -> None:
    name = "/".join(["h" * 60] * 4)
    (bench.folder / name).parent.mkdir(parents=True)
    path = random_file("film.bin", 1)
    bench.up(name)
    done = bench.run(name, "share", str(path), "--json")
    assert done.returncode == 0, done.stderr
    listed = bench.run(name, "ls")
    assert "film.bin" in listed.stdout
