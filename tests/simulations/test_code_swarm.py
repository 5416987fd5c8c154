"""A swarm at message level: the shipped rules, and how near to the bound they come."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from shoal.simulations.code.swarm import Swarm, check, content_of, run
from shoal.simulations.scenario.model import Latency, LinkClass, Scenario
from shoal.simulations.scenario.model import Swarm as Wanted
from shoal.simulations.scenario.result import AVAILABILITY, COMPLETIONS
from shoal.swarm.picker import Picker
from shoal.swarm.slots import Slots

SLOW = LinkClass("slow", 1e5, 1e6)


def scenario(
    leechers: int,
    pieces: int,
    piece_bytes: int,
    line: LinkClass = SLOW,
    neighbours: int = 20,
) -> Scenario:
    wanted = Wanted(
        pieces=pieces, piece_bytes=piece_bytes, leechers=leechers, neighbours=neighbours
    )
    return Scenario(
        tier="code",
        nodes=leechers + 1,
        duration=24 * 3600.0,
        latency=Latency(median_rtt=0.1),
        links=(line,),
        swarm=wanted,
    )


def ratio(wanted: Scenario, seed: int) -> float:
    """Return how long it took beside the bound."""
    found = run(wanted, seed).summary["ratio"]
    assert isinstance(found, float)
    return found


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_small_crowd_on_slow_lines_comes_near_to_the_bound(seed: int) -> None:
    """Kumar & Ross 2006: T = max(F / d, F / u_seed, L F / (u_seed + L u))."""
    assert 1.0 <= ratio(scenario(12, 128, 32 << 10, neighbours=12), seed) <= 1.2


def test_receivers_slower_than_senders_fetch_little_twice() -> None:
    """Words to them come late, behind what they are sent: a choke, say, and its unchoke."""
    wanted = scenario(20, 64, 256 << 10, LinkClass("uneven", 1e7, 1e6), neighbours=12)
    summary = run(wanted, 1).summary
    ratio, wasted = summary["ratio"], summary["wasted_bytes"]
    assert isinstance(ratio, float)
    assert isinstance(wasted, int)
    assert 1.0 <= ratio <= 1.3
    assert wasted <= 0.05 * 20 * 64 * (256 << 10)


def test_nobody_completes_faster_than_the_slowest_line_lets_it() -> None:
    result = run(scenario(6, 32, 64 << 10, LinkClass("thin", 1e6, 2e5)), 1)
    assert result.summary["bound"] == pytest.approx(32 * (64 << 10) / 2e5)
    assert result.summary["ratio"] >= 1.0  # type: ignore[operator]


def test_tables_tell_who_was_done_when_and_how_rare_pieces_were() -> None:
    result = run(scenario(6, 32, 64 << 10), 1)
    done = result.tables[COMPLETIONS]
    assert len(done["completed"]) == 6
    assert max(done["completed"]) == result.summary["seconds"]
    assert sum(done["down_bytes"]) == 6 * 32 * (64 << 10) + result.summary["wasted_bytes"]  # type: ignore[operator]
    rare = result.tables[AVAILABILITY]
    assert rare["least"][0] == 1
    assert rare["done"][-1] == 6


def test_pieces_are_hashed_if_there_are_bytes() -> None:
    wanted = scenario(4, 24, 16 << 10)
    swarm = Swarm(wanted, 1, content_of(wanted, 1, real=True))
    swarm.seeds[0].store[5] = b"bent"
    with pytest.raises(AssertionError, match="wrong piece 5"):
        swarm.run()


def test_a_piece_that_no_message_brought_is_found_out() -> None:
    wanted = scenario(4, 24, 16 << 10)
    swarm = Swarm(wanted, 1, content_of(wanted, 1))
    swarm.run()
    check(swarm)
    swarm.leechers[0].brought[3] = 0
    with pytest.raises(AssertionError, match="no message brought"):
        check(swarm)


def test_the_same_seed_gives_the_same_digest_whatever_the_hash_seed() -> None:
    program = (
        "from shoal.simulations.code.swarm import run\n"
        "from shoal.simulations.scenario.model import Latency, LinkClass, Scenario, Swarm\n"
        "s = Scenario(tier='code', nodes=13, duration=9e4, latency=Latency(median_rtt=0.1),\n"
        "    links=(LinkClass('slow', 1e5, 1e6),),\n"
        "    swarm=Swarm(pieces=32, piece_bytes=1 << 16, leechers=12, neighbours=12))\n"
        "print(run(s, 7).digest, run(s, 8).digest)\n"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for hash_seed in ("1", "2")
    ]
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]


# Bugs that the bound finds out


def test_a_picker_without_rarity_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # Few neighbours, and two seeds: a single one offers its pieces by rarity whatever is picked.
    wanted = scenario(20, 96, 64 << 10, neighbours=5)
    wanted = replace(wanted, nodes=22, swarm=replace(wanted.swarm, seeds=2))
    right = ratio(wanted, 1)
    monkeypatch.setattr(
        Picker,
        "_choose",
        lambda self, source, offers, most: (offers[0][0].first + offers[0][1].find(1), 1),
    )
    assert ratio(wanted, 1) > 1.15 * right


def test_a_choker_that_never_rotates_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # Few neighbours: with many, those that are let in first serve the others in time.
    wanted = replace(scenario(24, 24, 64 << 10, neighbours=4), duration=500.0)
    right = ratio(wanted, 1)
    monkeypatch.setattr(Slots, "take_turns", lambda *_, **__: ([], []))
    wrong = run(wanted, 1).summary["ratio"]
    assert wrong is None or (isinstance(wrong, float) and wrong > 1.15 * right)


@pytest.mark.long
def test_forty_on_slow_lines_come_near_to_the_bound() -> None:
    assert 1.0 <= ratio(scenario(40, 64, 256 << 10), 1) <= 1.25


@pytest.mark.long
def test_two_hundred_on_slow_lines_come_near_to_the_bound() -> None:
    assert 1.0 <= ratio(scenario(200, 256, 256 << 10), 1) <= 1.25
