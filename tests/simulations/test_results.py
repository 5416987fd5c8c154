"""What a run leaves behind, and how runs are compared."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shoal.simulations.paired import paired
from shoal.simulations.results.compare import compare_folders
from shoal.simulations.results.folder import REPORT, SUMMARY, BadRun, find, load, save
from shoal.simulations.results.report import report
from shoal.simulations.results.words import reading, seconds
from shoal.simulations.scenario.model import LinkClass, Scenario, Swarm
from shoal.simulations.scenario.result import (
    AVAILABILITY,
    COMPLETIONS,
    EDGES,
    LOOKUPS,
    RECORDS,
    UTILISATION,
    Result,
)


def made(name: str = "made", seed: int = 1, last: float = 100.0) -> Result:
    return Result(
        Scenario(
            name=name, links=(LinkClass("home", 1e6, 1e6),), swarm=Swarm(pieces=4, leechers=3)
        ),
        seed,
        "d1" * 32,
        {"last_seconds": last, "bound_seconds": 50.0, "wanting": 3, "upload_use": 0.75},
        {
            COMPLETIONS: {
                "node": np.array([1, 2, 3]),
                "link": ["home", "home", "office <b>"],
                "arrived": [0.0, 0.0, 0.0],
                "completed": np.array([60.0, 80.0, last]),
                "up_bytes": [1.0, 2.0, 3.0],
                "down_bytes": [1.0, 2.0, 3.0],
            },
            AVAILABILITY: {
                "time": [0.0, 30.0, last], "least": [1, 2, 4], "mean": [1.0, 2.5, 4.0],
                "done": [0, 0, 3],
            },
            UTILISATION: {"time": [1.0, 50.0, last], "used": [1e6, 2e6, 0.0],
                          "possible": [2e6, 2e6, 2e6]},
            LOOKUPS: {"hops": [1, 2, 2, 3], "rpcs": [3, 4, 5, 6],
                      "seconds": [0.1, 0.2, 0.3, 5.4], "found": [1, 1, 1, 0],
                      "group": ["a"] * 4},
            RECORDS: {"time": [0.0, 3600.0], "alive": [1.0, 0.99], "holders": [20.0, 18.0]},
            EDGES: {"source": np.array([0, 0, 1]), "target": np.array([1, 2, 3])},
        },
        seconds=1.5,
        peak_bytes=100 << 20,
    )  # fmt: skip


def test_a_run_reads_back_as_it_was_written(tmp_path: Path) -> None:
    result = made()
    save(result, tmp_path / "run", report(result))
    found = load(tmp_path / "run").result
    assert (found.scenario, found.seed, found.digest) == (result.scenario, 1, result.digest)
    assert found.summary == result.summary
    assert (found.seconds, found.peak_bytes) == (1.5, 100 << 20)
    assert set(found.tables) == set(result.tables)
    for name, table in result.tables.items():
        for column, values in table.items():
            assert list(found.tables[name][column]) == list(values)
    versions = json.loads((tmp_path / "run" / SUMMARY).read_text())["versions"]
    assert {"python", "numpy", "shoal"} <= set(versions)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
import pyarrow.parquet
sys.path.insert(0, {tests!r})
from test_results import made
from shoal.simulations.results.folder import save

def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)

def die_removing(path, **options):
    if Path(path).exists():
        next(Path(path).glob("*.toml")).unlink()
        die()

def die_at_the_second(self, target):
    os.rename(self, target)
    die()

match {when!r}:
    case "writing": pyarrow.parquet.write_table = die
    case "between": Path.rename = die_at_the_second
    case "removing": shutil.rmtree = die_removing
save(made(last=120.0), Path("run"), "")
"""


@pytest.mark.parametrize("when", ["writing", "between", "removing"])
def test_a_killed_run_leaves_a_whole_folder_or_none(tmp_path: Path, when: str) -> None:
    save(made(), tmp_path / "run", "")
    program = KILLED.format(tests=str(Path(__file__).parent), when=when)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False)
    assert done.returncode == -signal.SIGKILL
    if (tmp_path / "run").exists():
        load(tmp_path / "run")
        assert list(find([tmp_path])) == [tmp_path / "run"]
    save(made("next"), tmp_path / "run", "")
    assert load(tmp_path / "run").result.scenario.name == "next"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(BadRun, match="-o"):
        save(made(), tmp_path, "")
    assert (tmp_path / "photo.jpg").exists()
    with pytest.raises(BadRun, match="no folder of a run"):
        load(tmp_path)


def test_the_report_stands_alone_and_shows_every_table() -> None:
    text = report(made())
    assert text.count("<svg") == 7
    assert not re.search(r'(src|href)="(?!#|data:)', text.replace("xlink:href", "href"))
    assert "office &lt;b&gt;" in text
    assert "<b>" not in text.split("<h2>Numbers")[0].split("</svg>")[-1]
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert report(made()) == text


def test_a_run_in_words() -> None:
    text = reading(made())
    for part in (
        "All 3 leechers got everything: half of them within 80 s",
        "the last one at 100 s",
        "2.00 times as long",
        "75 % of the present peers' uplinks",
        "From 30 s on, every piece had a second holder",
        "4 lookups among 1000 nodes took 2.00 hops on average",
        "75.0 % found",
        "99.50 % could be found on average, 99.00 % at the worst",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.25, "250 ms"), (90.0, "90 s"), (7200.0, "120 min"), (864000.0, "10 days")],
)
def test_times_in_words(value: float, text: str) -> None:
    assert seconds(value) == text


def test_runs_of_two_settings_are_compared_seed_by_seed(tmp_path: Path) -> None:
    for seed in (1, 2):
        for name, last in (("slow", 200.0 + seed), ("quick", 100.0 + seed)):
            result = made(name, seed, last)
            save(result, tmp_path / f"{name}-{seed}", "")
    path, runs, sentences = compare_folders([tmp_path], None)
    assert (path.name, runs) == ("comparison.html", 4)
    # The scenarios differ by their names alone, so they count as one setting.
    assert "differ by their seeds" in sentences[0]
    assert path.read_text().count("<svg") == 6
    path, runs, _ = compare_folders([tmp_path / "slow-1"], None)
    assert (path, runs) == (tmp_path / "slow-1" / REPORT, 1)
    with pytest.raises(BadRun, match="no run"):
        compare_folders([tmp_path / "slow-1" / "tables"], None)


def test_a_paired_comparison_knows_what_it_does_not_know() -> None:
    base = {seed: 100.0 + 20 * seed for seed in range(1, 6)}
    lower = {seed: value - 10 - 0.1 * seed for seed, value in base.items()}
    found = paired("time", "a", base, "b", lower)
    assert found.verdict == "lower"  # though either varies by far more between seeds
    assert found.low < -10 < found.high < -9 or found.high < -10
    assert "lower by 10.3" in found.text
    noisy = {seed: value + (30 if seed % 2 else -30) for seed, value in base.items()}
    assert paired("time", "a", base, "b", noisy).verdict == "unknown"
    assert "not enough runs to say" in paired("time", "a", base, "b", noisy).text
    assert paired("time", "a", {1: 5.0}, "b", {1: 9.0}).verdict == "unknown"
    assert paired("time", "a", {1: 5.0}, "b", {2: 9.0}).pairs == 0
    assert paired("time", "a", base, "b", dict(base)).verdict == "same"
