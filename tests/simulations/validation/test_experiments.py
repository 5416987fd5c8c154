import math

import pytest

from shoal.simulations.model.network import Net, make_net
from shoal.simulations.validation import hops
from shoal.simulations.validation.experiment import Check, Experiment, conduct, interval, table
from shoal.simulations.validation.registry import experiments


def named(number: int) -> Experiment:
    return next(experiment for experiment in experiments() if experiment.number == number)


def test_experiments_have_numbers_of_their_own_sources_and_bands() -> None:
    numbers = [experiment.number for experiment in experiments()]
    assert numbers == sorted(set(numbers))
    assert set(numbers) >= {1, 2, 3, 4, 5, 6, 7, 8, 9, 11}
    for experiment in experiments():
        assert experiment.source
        assert all(check.low <= check.high for check in experiment.checks)


def test_an_interval_is_students() -> None:
    low, high = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (low + high) / 2 == pytest.approx(3.0)
    assert high - low == pytest.approx(2 * 2.776 * math.sqrt(2.5 / 5))
    assert interval([4.0]) == (-math.inf, math.inf)


def test_a_finding_passes_when_its_interval_meets_the_band() -> None:
    values = iter([0.9, 1.0, 1.1, 2.9, 3.0, 3.1])
    experiment = Experiment(
        99,
        "title",
        "setting",
        "source",
        (Check("x", 0.0, 1.2, "1"),),
        lambda s, q: {"x": next(values)},
    )
    good, bad = conduct(experiment, (1, 2, 3)), conduct(experiment, (1, 2, 3))
    assert good[0].passes
    assert "passes" in good[0].line()
    assert not bad[0].passes
    assert bad[0].facts()["passes"] is False
    assert "**misses**" in list(table(finding.facts() for finding in bad))[-1]


@pytest.mark.parametrize("number", [1, 3, 5])
def test_published_hop_counts_are_met(number: int) -> None:
    assert all(finding.passes for finding in conduct(named(number), (1, 2), quick=True))


def test_a_fault_in_the_tables_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def half_full(*args: object) -> Net:
        ids, seed, k, latency = args
        return make_net(ids, seed, k // 2, latency)  # type: ignore[arg-type,operator]

    monkeypatch.setattr(hops, "make_net", half_full)
    found = conduct(named(1), (1, 2, 3, 4, 5), quick=True)
    assert not found[0].passes
