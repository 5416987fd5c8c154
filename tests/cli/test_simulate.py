"""`shoal simulate`: what it prints, writes and refuses."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shoal.node.events import Progress, Source
from shoal.simulations.questions.live import forecast
from shoal.simulations.questions.question import BadQuestion, in_turn, number
from shoal.simulations.questions.registry import questions
from shoal.simulations.running import run

SCENARIO = """
name = "small"
tier = "model"
nodes = 11
duration = 100000.0
seeds = [3, 4]
[[links]]
name = "equal"
up = 1e6
down = 1e8
[swarm]
pieces = 20
leechers = 10
neighbours = 5
"""


@pytest.fixture
def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text(SCENARIO)
    return "s.toml"


def test_a_run_is_told_and_written(shoal: Any, scenario: str, tmp_path: Path) -> None:
    done = shoal("--json", "simulate", "run", scenario, "--set", "swarm.pieces=10")
    assert done.code == 0
    (event,) = done.events
    assert event["event"] == "simulated"
    assert (event["name"], event["tier"], event["seed"]) == ("small", "model", 3)
    assert event["summary"]["completed"] == 10
    assert event["folder"] == str(tmp_path / "small-3")
    assert "pieces = 10\n" in (tmp_path / "small-3" / "scenario.toml").read_text()
    again = shoal("--json", "simulate", "run", scenario, "--set", "swarm.pieces=10", "-o", "b")
    assert again.events[0]["digest"] == event["digest"]
    other = shoal("--json", "simulate", "run", scenario, "--seed", "9", "-o", "c")
    assert other.events[0]["digest"] != event["digest"]
    page = shoal("--json", "simulate", "report", "small-3", "b", "-o", "both.html")
    assert (page.code, page.events[-1]["runs"]) == (0, 2)
    assert "<svg" in (tmp_path / "both.html").read_text()


def test_a_sweep_compares_a_number_that_the_tier_has(shoal: Any, scenario: str) -> None:
    (Path.cwd() / "d.toml").write_text("nodes = 60\n[workload]\nlookups = 50\n")
    done = shoal(
        *("--json", "simulate", "sweep", "d.toml", "--seeds", "1-3", "--vary", "dht.alpha=3,10"),
        *("--workers", "1"),
    )
    assert done.code == 0
    measured = [event for event in done.events if event["event"] == "measured"]
    assert [event["setting"] for event in measured] == ["dht.alpha=3", "dht.alpha=10"]
    assert {event["metric"] for event in measured} == {"lookup_seconds_p50"}
    assert [event["pairs"] for event in done.events if event["event"] == "compared"] == [3]


def test_a_run_is_told_in_words(shoal: Any, scenario: str) -> None:
    done = shoal("simulate", "run", scenario)
    assert done.code == 0
    assert "All 10 leechers got everything" in done.out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("run", "missing.toml"), 5, "missing.toml"),
        (("run", "s.toml", "--set", "swarm.peices=3"), 2, "pieces"),
        (("run", "s.toml", "--set", "pieces"), 2, "KEY=VALUE"),
        (("run", "s.toml", "--set", "tier=code", "--set", "dht.paths=4"), 2, "dht.paths"),
        (("sweep", "s.toml", "--seeds", "5-1"), 2, "go up"),
        (("sweep", "s.toml", "--metric", "colour"), 2, "they have peers, wanting"),
        (("report", "."), 2, "no run"),
        (("validate", "--only", "99"), 2, "99"),
        (("ask", "delivr"), 2, "did you mean 'deliver'"),
        (("ask", "deliver", "size=much"), 2, "much"),
        (("ask", "deliver", "colour=3"), 2, "colour"),
        (("ask", "deliver", "nat=200%"), 2, "nat must be between 0% and 100%"),
        (("ask", "deliver", "machines=2.7"), 2, "machines must be a whole number"),
        (("ask", "records", "session=0"), 2, "session must be at least 1"),
        (("--from-status",), 6, "shoal up"),
    ],
)
def test_mistakes_are_told(
    shoal: Any, scenario: str, arguments: tuple[str, ...], code: int, says: str
) -> None:
    done = shoal("--json", "simulate", *arguments)
    assert done.code == code
    assert done.names[-1] == "error"
    assert says in done.events[-1]["message"]


def test_without_the_extra_it_says_how_to_get_it(
    shoal: Any, scenario: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "shoal.cli.simulating.find_spec", lambda name: None if name == "numba" else real(name)
    )
    done = shoal("--json", "simulate", "run", scenario)
    assert done.code == 6
    assert "pip install 'shoal[simulate]'" in done.events[-1]["message"]


def test_help_of_every_subcommand_imports_nothing_heavy() -> None:
    program = (
        "import sys; from shoal.cli.main import main\n"
        "for name in ('run', 'sweep', 'report', 'validate', 'agree', 'ask'):\n"
        "    main(['simulate', name, '--help'])\n"
        "print('LOADED', *{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split("LOADED")[1].split())
    assert not loaded & {"numpy", "numba", "matplotlib", "pyarrow", "distributed", "trio"}


def test_a_question_is_answered_with_its_interval(
    shoal: Any, scenario: str, tmp_path: Path
) -> None:
    done = shoal(
        *("--json", "simulate", "ask", "more-seeds", "size=20MB", "machines=20"),
        *("--seeds", "1-3", "-o", "answer"),
    )
    assert done.code == 0
    *steps, event = done.events
    assert [(step["event"], step["done"]) for step in steps] == [
        ("sweeping", number) for number in range(7)
    ]
    assert event["question"] == "more-seeds"
    assert event["numbers"]["verdict"] == "lower"
    assert "sooner" in event["text"]
    assert (tmp_path / "answer" / "after-3" / "report.html").exists()
    assert (tmp_path / "answer" / "answer.txt").read_text().strip() == event["text"]


def test_the_questions_are_listed(shoal: Any) -> None:
    done = shoal("simulate", "ask")
    assert done.code == 0
    assert all(name in done.err for name in questions())


@pytest.mark.parametrize(
    ("text", "value"),
    [("30%", 0.3), ("2TB", 2e12), ("20Mbit/s", 2.5e6), ("1GiB", 2.0**30), ("2h", 7200.0)],
)
def test_numbers_take_units(text: str, value: float) -> None:
    assert number(text) == pytest.approx(value)


def test_tonights_transfer_follows_the_rate_of_now() -> None:
    sources = (Source("a", 3_000_000, 3), Source("b", 1_000_000, 1))
    fetch = Progress("cid", 4_000_000, 404_000_000, 4, 404, 2e6, 2, 200.0, None, sources=sources)
    answer = forecast(fetch, (1, 2, 3, 4, 5), in_turn(run))
    took = answer.numbers["seconds"]
    assert isinstance(took, float)
    assert 130 < took < 300  # 400 MB at 2 MB/s, give or take
    assert "95 % interval" in answer.text
    with pytest.raises(BadQuestion, match="nothing flows"):
        forecast(Progress("cid", 0, 10, 0, 1, None, 0, None, "no provider"), (1,), in_turn(run))


def test_validation_of_the_swarm_is_told_number_by_number(shoal: Any, scenario: str) -> None:
    done = shoal("--json", "simulate", "validate", "--quick", "--only", "9", "--seeds", "1-3")
    assert [event["event"] for event in done.events] == ["checked"] * 3
    assert [event["passes"] for event in done.events] == [True] * 3
    assert done.code == 0
    assert json.dumps(done.events[0])


def test_a_scenario_that_does_not_exist(shoal: Any, tmp_path: Path) -> None:
    done = shoal("--json", "simulate", "run", str(tmp_path / "none.toml"))
    assert (done.code, done.events[0]["code"]) == (5, 5)
    assert done.events[0]["message"] == f"{tmp_path / 'none.toml'}: it does not exist"
