"""Each command: what it asks of the node, what it prints, how it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shoal.node.errors import DiskError, NodeStopped, NotFound
from shoal.node.events import (
    Announced,
    Complete,
    Contact,
    Copy,
    FoundPeer,
    Hashing,
    Limit,
    Lookup,
    Notice,
    Peer,
    Progress,
    Provider,
    Removed,
    Resumed,
    Shared,
    Source,
    Status,
    Verified,
    Verifying,
)

CID = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
SHARED = Shared(CID, f"shoal:{CID},name=film.bin", "film.bin", 10, 1, 0.5, "/data/film.bin")
PROGRESS = Progress(CID, 5, 10, 0, 1, 100.0, 1, 0.1, None, "/out", (Source("12D3a", 5, 0),))
COMPLETE = Complete(CID, "/out", 10, 0.1, (Source("12D3a", 10, 1),), 3, ("12D3b",), ("a/link",))


def test_share_seeds_until_it_is_stopped(shoal: Any, node: Any, terminate: Any) -> None:
    node.tells = [Hashing("/data/film.bin", 5, 10), SHARED, Announced(CID, 2), terminate]
    done = shoal("--json", "share", "film.bin")
    assert done.code == 0
    assert done.names == ["listening", "hashing", "shared", "announced"]
    assert node.closed == 1
    ((home, config, purpose, offline),) = node.opened
    assert (purpose, offline, home.name) == ("share", False, "home")
    assert config.listen is None


def test_share_hands_over_and_ends(shoal: Any, node: Any) -> None:
    node.running = True
    node.tells = [SHARED, Announced(CID, 0)]
    done = shoal("--json", "share", "film.bin", "--public", "--no-hidden", "--no-announce")
    assert (done.code, done.names) == (0, ["node", "shared", "announced"])
    ((_, path, options),) = node.asked
    assert path == "film.bin"
    assert (options["public"], options["hidden"], options["announce"]) == (True, False, False)
    assert not node.opened


def test_share_prints_only_the_link_on_standard_output(shoal: Any, node: Any) -> None:
    node.running = True
    node.tells = [Hashing("/data/film.bin", 5, 10), SHARED, Announced(CID, 0)]
    done = shoal("share", "film.bin")
    assert done.out == SHARED.link + "\n"
    assert "hashing film.bin: 5 B of 10 B (50 %)" in done.err
    assert "no DHT peer is known" in done.err


def test_share_interrupted_while_hashing(shoal: Any, node: Any, ctrl_c: Any) -> None:
    node.tells = [Hashing("/data/film.bin", 5, 10), ctrl_c]
    done = shoal("--json", "share", "film.bin")
    assert done.code == 130
    assert done.events[-1]["event"] == "error"
    assert "nothing is shared" in done.events[-1]["message"]
    assert node.closed == 1


def test_hash_only_needs_no_network(shoal: Any, node: Any) -> None:
    node.tells = [SHARED]
    done = shoal("--json", "share", "--hash-only", "--hash", "blake3", "film.bin")
    assert (done.code, done.names) == (0, ["shared"])
    assert node.opened[0][3] is True
    assert node.asked[0][2]["hash_only"] is True
    assert node.asked[0][2]["hash"] == "blake3"


def test_get_exits_when_complete(shoal: Any, node: Any, tmp_path: Path) -> None:
    node.tells = [PROGRESS, COMPLETE]
    done = shoal("--json", "get", CID, "-o", str(tmp_path), "--timeout", "5", "--links", "none")
    assert (done.code, done.names) == (0, ["listening", "progress", "complete"])
    ((_, target, destination, options),) = node.asked
    assert (target, destination) == (CID, tmp_path)
    assert (options["timeout"], options["links"], options["leave"]) == (5.0, "none", "continue")
    assert done.events[-1]["seconds"] > COMPLETE.seconds  # from the command's start
    assert node.opened[0][2] == "get"


def test_get_tells_people_what_happened(shoal: Any, node: Any) -> None:
    node.running = True
    waiting = Progress(CID, 0, None, 0, None, None, 0, None, "nobody has it (7 asked)")
    again = Progress(CID, 0, None, 0, None, None, 0, None, "nobody has it (8 asked)")
    node.tells = [waiting, again, PROGRESS, COMPLETE]
    done = shoal("get", CID)
    assert done.out == "/out\n"
    assert done.err.count("nobody has it") == 1  # calm: only news
    for words in (
        "the running node 12D3me does it", "5 B of 10 B (50 %), 100 B/s, 0.1 s left, 1 peer",
        "100 % from 12D3a", "3 B were received in vain", "12D3b sent wrong bytes", "a/link",
    ):  # fmt: skip
        assert words in done.err


@pytest.mark.parametrize("running", [True, False])
def test_ctrl_c_pauses_a_fetch(shoal: Any, node: Any, ctrl_c: Any, running: bool) -> None:
    node.running = running
    node.tells = [PROGRESS, ctrl_c]
    done = shoal("--json", "get", CID)
    assert done.code == 130
    assert node.asked[-1] == ("pause", CID, "/out")
    assert done.events[-1] == {
        "event": "error", "code": 130,
        "message": f"paused; to go on, run it again, or: shoal resume {CID}",
    }  # fmt: skip


def test_flags_for_a_node_that_runs_already(shoal: Any, node: Any) -> None:
    node.running = True
    node.tells = [COMPLETE]
    bootstrap = "/ip4/127.0.0.1/tcp/4071"
    done = shoal("--json", "get", CID, "--bootstrap", bootstrap, "--dht", "client")
    assert done.code == 0
    assert node.asked[0][3]["peers"] == [bootstrap]
    assert "--dht is ignored" in done.err


def test_up_tells_what_happens_until_it_is_stopped(shoal: Any, node: Any, ctrl_c: Any) -> None:
    node.notices = ["port 4071 is in use"]
    node.happens = [COMPLETE, ctrl_c]
    done = shoal("up", "--json", "--listen", "/ip4/127.0.0.1/tcp/0", "--dht", "server")
    assert done.code == 0
    assert done.names == ["listening", "notice", "complete"]
    _, config, purpose, _ = node.opened[0]
    assert purpose == "up"
    assert (config.listen, config.dht) == (("/ip4/127.0.0.1/tcp/0",), "server")
    assert node.closed == 1


def test_up_beside_a_node_is_refused(shoal: Any, node: Any) -> None:
    node.busy = 1
    done = shoal("up")
    assert done.code == 6
    assert "the home is in use" in done.err


def test_a_home_that_is_just_starting_is_waited_for(shoal: Any, node: Any, autojump: None) -> None:
    node.busy = 3
    node.tells = [SHARED, Notice("x")]
    done = shoal("--json", "share", "--hash-only", "x")
    assert (done.code, done.names) == (0, ["shared", "notice"])


def test_a_home_that_stays_busy_is_refused(shoal: Any, node: Any, autojump: None) -> None:
    node.busy = 10_000
    done = shoal("--json", "get", CID)
    assert done.code == 6
    assert done.names == ["error"]


def test_notices_of_our_own_node_are_told(shoal: Any, node: Any, ctrl_c: Any) -> None:
    node.notices = ["/data/x was changed"]
    node.tells = [SHARED, ctrl_c]
    done = shoal("share", "x")
    assert done.code == 0
    assert "/data/x was changed" in done.err


def test_a_fetch_goes_on_when_a_passing_node_ends(shoal: Any, node: Any) -> None:
    """Another `get` had the home; its node ended with it."""
    node.running, node.purpose = True, "get"

    def ended() -> None:
        node.running = False
        node.tells = [COMPLETE]
        raise NodeStopped("the node stopped")

    node.tells = [PROGRESS, ended]
    done = shoal("--json", "get", CID)
    assert (done.code, done.names) == (0, ["node", "progress", "listening", "complete"])


def test_a_fetch_does_not_take_the_home_of_a_service(shoal: Any, node: Any) -> None:
    node.running = True
    node.tells = [PROGRESS, NodeStopped("the node stopped")]
    done = shoal("--json", "get", CID)
    assert (done.code, done.names) == (6, ["node", "progress", "error"])
    assert not node.opened


def test_a_share_stays_beside_a_passing_node_and_goes_on(
    shoal: Any, node: Any, ctrl_c: Any
) -> None:
    node.running, node.purpose = True, "share"

    def ended() -> None:
        node.running = False
        node.happens = []
        node.tells = [SHARED, ctrl_c]
        raise NodeStopped("the node stopped")

    node.tells = [SHARED]
    node.happens = [ended]
    done = shoal("--json", "share", "film.bin")
    assert (done.code, done.names) == (0, ["node", "shared", "listening", "shared"])


ROWS: dict[str, tuple[tuple[str, ...], Any, str]] = {
    "ls": (("ls",), Copy(CID, "/data/x", "shared", "x", 1500, 1, 1), "1.50 kB"),
    "status": (("status",), Status("12D3me", False, "/home", contents=2), "does not run"),
    "rm": (("rm", CID), Removed(CID, "/data/x", False), "forgot /data/x"),
    "limit": (("limit",), Limit("node", None, 1_500_000, None), "1.50 MB/s\tno limit"),
}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("running", [True, False])
def test_some_commands_need_no_node(shoal: Any, node: Any, name: str, running: bool) -> None:
    arguments, row, words = ROWS[name]
    node.running = running
    node.rows = [row]
    done = shoal("--json", *arguments)
    assert (done.code, done.events) == (0, [row.to_json()])
    assert [offline for *_, offline in node.opened] == ([] if running else [True])
    people = shoal(*arguments)
    assert words in people.out + people.err


def test_id(shoal: Any, node: Any) -> None:
    assert shoal("id").out.startswith("12D3me\t/ip4/")


def test_rm_of_one_copy_with_its_data(shoal: Any, node: Any, tmp_path: Path) -> None:
    shoal("rm", CID, str(tmp_path / "x"), "--delete-data")
    assert node.asked == [("rm", CID, str(tmp_path / "x"), {"delete_data": True})]


NEED_A_NODE: dict[str, tuple[tuple[str, ...], Any, str]] = {
    "peers": (("peers",), Peer("12D3a", "/ip4/1.2.3.4/tcp/1", "out", rtt=0.02), "20 ms"),
    "resume": (("resume", CID), Resumed(CID, "/out"), "goes on with /out"),
    "dht table": (("dht", "table"), Contact("12D3a", ("/ip4/1.2.3.4/tcp/1",), 7), "7"),
    "dht find-peer": (("dht", "find-peer", "12D3a"), FoundPeer("12D3a", ("/x",)), "12D3a"),
}


@pytest.mark.parametrize("name", NEED_A_NODE)
def test_others_say_how_to_start_one(shoal: Any, node: Any, name: str) -> None:
    arguments, row, words = NEED_A_NODE[name]
    done = shoal("--json", *arguments)
    assert done.code == 6
    assert "start one: shoal up" in done.events[0]["message"]
    assert not node.opened
    node.running, node.rows = True, [row]
    done = shoal(*arguments)
    assert done.code == 0
    assert words in done.out + done.err


def test_limit_passes_on_what_was_said(shoal: Any, node: Any) -> None:
    shoal("limit", "--up", "10MB", "--down", "none", f"shoal:{CID},name=x")
    shoal("limit", "--each-peer", "--up", "default")
    assert [options for *_, options in node.asked] == [
        {"each_peer": False, "up": "10MB", "down": "none"},
        {"each_peer": True, "up": "default", "down": None},
    ]
    assert [arguments[1] for arguments in node.asked] == [CID, None]


def test_pause(shoal: Any, node: Any) -> None:
    node.running = True
    assert "paused /out" in shoal("pause", f"shoal:{CID},name=x").err
    assert node.asked == [("pause", CID, None)]


def test_verify_ends_with_its_own_code(shoal: Any, node: Any) -> None:
    node.tells = [Verifying(CID, "/x", 1, 2), Verified(CID, "/x", 2, 0, "complete")]
    assert shoal("verify", CID).code == 0
    node.tells = [Verified(CID, "/x", 2, 0, "complete"), Verified(CID, "/y", 1, 1, "degraded")]
    done = shoal("--json", "verify", CID)
    assert (done.code, done.names) == (4, ["verified", "verified", "error"])
    assert "shoal get" in done.events[-1]["message"]


def test_find_providers(shoal: Any, node: Any) -> None:
    node.running = True
    node.tells = [Provider(CID, "12D3a", ("/x",)), Lookup(CID, 20, 1)]
    assert shoal("dht", "find-providers", CID).out == "12D3a\t/x\n"
    node.tells = [Lookup(CID, 20, 0)]
    done = shoal("--json", "dht", "find-providers", CID)
    assert (done.code, done.names) == (3, ["lookup", "error"])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DiskError("the disk is full; make room"), 5),
        (NotFound("nobody has it"), 3),
        (ExceptionGroup("nursery", [NotFound("nobody has it")]), 3),
    ],
)
def test_errors_are_one_sentence_and_a_code(
    shoal: Any, node: Any, error: Exception, code: int
) -> None:
    node.tells = [error]
    done = shoal("get", CID)
    assert done.code == code
    assert done.err.splitlines()[-1].startswith("shoal: ")
    assert "Traceback" not in done.err
    done = shoal("--json", "get", CID)
    assert done.events[-1]["event"] == "error"
    assert done.events[-1]["code"] == code


@pytest.mark.parametrize(
    "words",
    [
        ("share", ""),
        ("get", CID, "-o", ""),
        ("rm", CID, ""),
        ("simulate", "run", ""),
    ],
)
def test_an_empty_path_is_not_the_current_folder(
    shoal: Any, node: Any, words: tuple[str, ...]
) -> None:
    done = shoal("--json", *words)
    assert done.code == 2
    assert "the path is empty; name a file or folder" in done.events[0]["message"]
    assert not node.opened
    assert not node.asked
