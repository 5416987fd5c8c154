"""The live display, on something that says it is a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shoal.cli.render import People, headline
from shoal.node.events import Complete, Failure, Progress, Source, Verifying

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
        people.event(Complete(CID, "/out/\x1bx", 1000, 2.0))
        out, err = read()
        assert out == "/out/\\x1bx\n"
        assert "500 B/s, verified" in err


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
