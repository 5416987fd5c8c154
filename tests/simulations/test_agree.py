"""The model and the shipped code agree on the same lookups, and a bug in either is seen."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import pytest

from shoal.dht.lookup import Lookup
from shoal.simulations.agree import Outcome, agree, compare, questions
from shoal.wire.ids import PeerId


@pytest.mark.parametrize("dead", [0.0, 0.1])
def test_the_tiers_agree(dead: float) -> None:
    found = agree(200, 150, 1, dead=dead)
    assert found.agrees, [row.line() for row in found.rows]
    by_name = {row.name: row for row in found.rows}
    assert by_name["success"].code >= 0.98
    assert (by_name["latency 99 %"].code > 1.0) == (dead > 0.0)


def test_a_lookup_that_forgets_whom_it_heard_of_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bug: of each answer only the first five are remembered."""
    hear = Lookup._hear

    def forgetful(self: Lookup, peers: Iterable[PeerId]) -> None:
        hear(self, islice(peers, 5))

    monkeypatch.setattr(Lookup, "_hear", forgetful)
    found = agree(200, 150, 1)
    assert not found.agrees
    assert any("DIFFERS" in row.line() for row in found.rows)


def test_a_lookup_that_waits_for_everybody_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bug: a slow peer keeps its place in the width until it failed."""

    def pass_time(self: Lookup, now: float) -> None:
        for candidate in list(self._open.values()):
            if now >= candidate.asked_at + self.config.fail_after:
                self.failed(candidate.peer)

    monkeypatch.setattr(Lookup, "_pass_time", pass_time)
    monkeypatch.setattr(
        Lookup,
        "next_change",
        lambda self: min(
            (c.asked_at + self.config.fail_after for c in self._open.values()), default=None
        ),
    )
    assert not agree(200, 150, 1, dead=0.3).agrees


def test_bands_hold_means_and_percentiles_apart() -> None:
    one = Outcome([2.0] * 100, [20.0] * 100, [1.0] * 100, [1.0] * 100)
    other = Outcome([2.09] * 100, [21.9] * 100, [0.985] * 100, [1.0] * 98 + [1.2, 1.2])
    verdicts = {row.name: row.agrees for row in compare(one, other)}
    assert verdicts == {
        "hops": True,
        "rpcs": True,
        "success": False,
        "latency 50 %": True,
        "latency 90 %": True,
        "latency 99 %": False,
    }


def test_the_dead_ask_nothing() -> None:
    asked = questions(100, 500, 3, 0.5)
    assert len(asked.dead) == 50
    assert not asked.dead & set(asked.starts)
    assert asked == questions(100, 500, 3, 0.5) != questions(100, 500, 4, 0.5)
