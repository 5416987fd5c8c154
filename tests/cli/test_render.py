"""The live display, on something that says it is a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shoal.cli.render import People, headline
from shoal.node.events import (
    Complete,
    Contact,
    Copy,
    Failure,
    Peer,
    Progress,
    Source,
    Status,
    Time,
    Verified,
    Verifying,
)
from shoal.node.events_reach import Reachability

CID = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"


def progress(done: int, **changes: Any) -> Progress:
    values: dict[str, Any] = {
        "cid": CID, "done_bytes": done, "total_bytes": 1000, "pieces_done": 0, "pieces": 1,
        "rate": 10.0, "peers": 2, "eta": 90.0, "waiting": None,
    }  # fmt: skip
    return Progress(**{**values, **changes})


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def read(capsys: pytest.CaptureFixture[str]) -> Callable[[], tuple[str, str]]:
    return lambda: tuple(capsys.readouterr())  # type: ignore[return-value]


def test_the_display_moves_and_then_is_gone(terminal: None, read: Any) -> None:
    sources = tuple(Source(f"12D3peer{number}", 100 - number, 1) for number in range(12))
    with People() as people:
        people.event(progress(100, sources=sources))
        people.event(progress(200, waiting="the disk is full"))
        _, err = read()
        assert "100 B of 1.00 kB (10 %), 10 B/s, 1 min 30 s left, 2 peers" in err
        assert "12D3peer0" in err
        assert "12D3peer11" not in err
        assert "4 other peers" in err
        assert "waiting: the disk is full" in err
        people.event(Complete(CID, "/out/\x1bx", 1000, 2.0, sources))
        out, err = read()
        assert out == "/out/\\x1bx\n"
        assert "500 B/s, verified" in err


def test_what_is_here_already_has_no_rate(terminal: None, read: Any) -> None:
    with People() as people:
        people.event(Complete(CID, "/out/x", 1000, 2.0))
    err = read()[1]
    assert "1.00 kB are here already" in err
    assert "B/s" not in err


def test_the_cursor_comes_back_after_an_error(terminal: None, read: Any) -> None:
    show_cursor = "\x1b[?25h"
    with People() as people:
        people.event(progress(1))
    assert show_cursor in read()[1]
    with People() as people:
        people.event(progress(1))
        people.event(Failure(3, "nobody has [it]"))
        err = read()[1]
    assert show_cursor in err
    assert "shoal: nobody has [it]" in err


def test_calm_lines_without_a_terminal(read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with People() as people:
        for done in range(40):
            now += 0.25
            people.event(progress(done))
        assert read()[1].count("\n") == 1
        now += 1
        people.event(progress(40))
        people.event(progress(41, waiting="the disk is full"))
        people.event(progress(41, waiting="the disk is full"))
        lines = read()[1].splitlines()
    assert [line.startswith("4") for line in lines] == [True, True]
    assert "the disk is full" in lines[1]


def test_headlines() -> None:
    assert headline(progress(5, total_bytes=None, rate=None, eta=None)) == "5 B, 2 peers"
    assert headline(Verifying(CID, "/x", 5, 10)) == "verifying /x: 5 B of 10 B (50 %)"


def test_rows_are_a_table_on_a_terminal_and_tabs_in_a_pipe(
    terminal: None, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        Copy(CID, "/data/\x1b[31mred", "shared", "x", 1500, 2, 2),
        Copy(CID, "/b", "fetching"),
        Peer("12D3a", "/ip4/1.2.3.4/tcp/1", "in", "kubo", 0.02),
        Contact("12D3b", ("/ip4/1.2.3.4/tcp/1",), 3, Time(0)),
        Verified(CID, "/b", 3, 1, "degraded"),
    ]
    with People() as people:
        for row in rows:
            people.event(row)
    lines = read()[0].splitlines()
    assert lines[0] == f"{CID}\tshared\t1.50 kB\t2/2\t/data/\\x1b[31mred\t"
    assert lines[3] == "12D3b\t3\t1970-01-01 00:00 UTC\t/ip4/1.2.3.4/tcp/1"
    assert len(lines) == len(rows)

    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with People() as people:
        for row in rows[:4]:
            people.event(row)
    out = read()[0]
    assert "content" in out
    assert "program" in out
    assert "last seen" in out
    assert "\x1b[31m" not in out


def test_status_lists_its_fetches(terminal: None, read: Any) -> None:
    with People() as people:
        people.event(Status("12D3me", True, "/home", problems=("/x was changed",)))
        people.event(progress(100, path="/out/a"))
        people.event(progress(200, path="/out/b", waiting="dialling"))
    out, err = read()
    assert "fetch      /out/a: 100 B of 1.00 kB (10 %)" in out
    assert "fetch      /out/b: 200 B of 1.00 kB (20 %), waiting: dialling" in out
    assert "/x was changed" in out
    assert err == ""


def test_status_tells_what_a_relay_does_and_what_it_refuses(terminal: None, read: Any) -> None:
    with People() as people:
        people.event(
            Status(
                "12D3me",
                True,
                "/home",
                reachability="private",
                nat="endpoint-dependent",
                relays=("12D3a", "12D3b"),
                paths={"relayed": 1, "direct": 3},
                relaying=2,
                relayed_bytes=3_000_000_000,
                relay_left=1_000_000_000,
                refused={"relay-no-member": 2, "autonat-address": 5},
            )
        )
        people.event(Reachability("public", "none"))
    out, err = read()
    assert (
        "reached    only through relays, or by hole punching; NAT: endpoint-dependent; places at 2 "
        "relays; connections: 3 direct, 1 relayed" in out
    )
    assert "relaying   2 circuits of others, 3.00 GB forwarded, 1.00 GB left today" in out
    assert "refused    to others: autonat-address 5, relay-no-member 2" in out
    assert "reached: others can reach us" in err


def test_a_connection_that_carries_no_content_says_so(terminal: None, read: Any) -> None:
    with People() as people:
        people.event(Peer("12D3a", "/ip4/5.6.7.8/tcp/1", "in", path="relayed", limited=True))
        people.event(Peer("12D3b", "/ip4/5.6.7.8/tcp/1", "out", path="punched"))
    out, _ = read()
    assert "relayed, no content" in out
    assert "punched" in out
