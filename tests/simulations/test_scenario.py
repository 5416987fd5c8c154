"""A scenario file says what it means, and what is wrong with it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.simulations.scenario.model import (
    Attack,
    Churn,
    Dht,
    Fault,
    Latency,
    LinkClass,
    Nat,
    Scenario,
    Swarm,
    Workload,
)
from shoal.simulations.scenario.reading import (
    BOUNDS,
    METRICS,
    BadScenario,
    change,
    keys,
    parse,
    read,
    write,
)
from shoal.simulations.scenario.support import NotExpressible, check, gaps

PLACES = {
    Latency: "latency",
    LinkClass: "links",
    Churn: "churn",
    Dht: "dht",
    Workload: "workload",
    Swarm: "swarm",
    Attack: "attacks",
    Fault: "faults",
    Scenario: "",
}


def of(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Any value of a dataclass of the model whose numbers are in their bounds."""
    at = f"{PLACES[kind]}." if PLACES[kind] else ""
    parts: dict[str, st.SearchStrategy[Any]] = {}
    for item in dataclasses.fields(kind):
        bounds = BOUNDS.get(at + item.name)
        kinds = str(item.type)
        if bounds is None:
            continue
        if "int" in kinds and "tuple" not in kinds:
            parts[item.name] = st.integers(int(bounds[0]), int(bounds[1]))
        elif "float" in kinds:
            number = st.floats(*bounds)
            parts[item.name] = number | st.none() if "None" in kinds else number
    return st.builds(kind, **parts)


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    share = st.floats(0.0, 0.2)
    dht = draw(of(Dht))
    names = draw(st.lists(st.text(max_size=20), max_size=3, unique=True))
    faults = draw(st.lists(of(Fault), max_size=3))
    links = [dataclasses.replace(draw(of(LinkClass)), name=name, share=1.0) for name in names]
    plain: Scenario = draw(of(Scenario))
    return dataclasses.replace(
        plain,
        name=draw(st.text(max_size=30)),
        tier=draw(st.sampled_from(["code", "code-full", "model", "model-hashed"])),
        seeds=tuple(draw(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=3))),
        latency=draw(of(Latency)),
        links=tuple(links),
        nat=Nat(*(draw(share) for _ in dataclasses.fields(Nat))),
        churn=draw(of(Churn)),
        dht=dataclasses.replace(dht, beta=min(dht.k, dht.beta)),
        workload=draw(of(Workload)),
        swarm=draw(of(Swarm)),
        attacks=tuple(
            dataclasses.replace(attack, share=draw(share))
            for attack in draw(st.lists(of(Attack), max_size=3))
        ),
        faults=tuple(dataclasses.replace(fault, amount=abs(fault.amount)) for fault in faults),
        metrics=tuple(draw(st.lists(st.sampled_from(METRICS), max_size=2))),
    )


@settings(max_examples=60, deadline=None)
@given(scenarios())
def test_what_is_written_reads_back_the_same(scenario: Scenario) -> None:
    assert parse(write(scenario)) == scenario


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "empty.toml"
    path.write_text("")
    assert read(path) == Scenario()


def test_every_number_has_bounds_and_every_bound_a_number() -> None:
    numbers = {key for key in keys() if any(part in _type_of(key) for part in ("int", "float"))}
    assert numbers == set(BOUNDS)


def _type_of(key: str) -> str:
    section, _, name = key.rpartition(".")
    kind = next(kind for kind, place in {**PLACES, Nat: "nat"}.items() if place == section)
    return str(next(item.type for item in dataclasses.fields(kind) if item.name == name))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("node = 5", "node is no key of a scenario: did you mean nodes?"),
        ("[dht]\nalhpa = 3", "dht.alhpa is no key of a scenario: did you mean dht.alpha?"),
        ("alpha = 3", "alpha is no key of a scenario: did you mean dht.alpha?"),
        ("[dht]\nxyzzyx = 3", "allowed here are dht.k, dht.alpha"),
        ("nodes = 'many'", "nodes must be a whole number, not 'many'"),
        ("nodes = true", "nodes must be a whole number, not True"),
        ("nodes = 3.0", "nodes must be a whole number"),
        ("nodes = 0", "nodes must lie between 1 and"),
        ("duration = nan", "duration must lie between 0 and"),
        ("[nat]\nblocked = 1.5", "nat.blocked must lie between 0 and 1"),
        ("[nat]\nblocked = 0.7\nmapped = 0.7", "nat must add up to at most 1"),
        ("tier = 'modle'", "tier must be one of code, code-full, model, model-hashed, not 'modle'"),
        ("[churn]\nlaw = 'weibul'", "did you mean weibull?"),
        ("seeds = 3", "seeds must be a list, not 3"),
        ("seeds = []", "seeds must name at least one seed"),
        ("latency = 3", "latency must be a table such as [latency], not 3"),
        ("links = 3", "links must be tables such as [[links]], not 3"),
        ("[[links]]\nup = 1", "links.name is missing"),
        ("metrics = ['lookup']", "did you mean lookups?"),
        ("[[faults]]\nkind = 'cut'\namount = -1", "faults.amount must be at least 0"),
        ("[dht]\nk = 2", "dht.beta must be at most dht.k, which is 2"),
        ("nodes = ", "this is not TOML"),
    ],
)
def test_a_mistake_is_named_in_one_sentence(text: str, words: str) -> None:
    with pytest.raises(BadScenario) as caught:
        parse(text)
    assert words in str(caught.value)


def test_one_key_is_changed() -> None:
    scenario = change(Scenario(), "dht.k", "40")
    assert scenario.dht.k == 40
    assert change(scenario, "tier", "code").tier == "code"
    assert change(scenario, "latency.median_rtt", "0.2").latency.median_rtt == 0.2
    assert change(scenario, "seeds", "[7, 8]").seeds == (7, 8)
    with pytest.raises(BadScenario, match=r"did you mean dht\.refresh"):
        change(scenario, "dht.refersh", "40")
    with pytest.raises(BadScenario, match=r"duration\.x|cannot be set"):
        change(scenario, "duration.x", "40")


FITS = {
    "code": "tier = 'code'",
    "code-full": "tier = 'code-full'\nnodes = 50\n[dht]\ntables = 'joined'",
    "model": "tier = 'model'",
    "model-hashed": "tier = 'model-hashed'\n[dht]\ntables = 'random'",
}


@pytest.mark.parametrize("tier", FITS)
def test_what_a_tier_can_express_is_not_refused(tier: str) -> None:
    check(parse(FITS[tier]))


@pytest.mark.parametrize(
    ("tier", "key", "value", "words"),
    [
        ("code", "dht.paths", "4", "the tier code cannot express dht.paths"),
        ("code-full", "dht.paths", "4", "the tier code-full cannot express dht.paths"),
        ("code", "nodes", "50000", "cannot express nodes"),
        ("code-full", "nodes", "1000", "at most 500 whole nodes"),
        ("code-full", "churn.law", "weibull", "cannot express churn.law"),
        ("code-full", "nat.symmetric", "0.5", "cannot express nat"),
        ("code-full", "dht.record_life", "60.0", "cannot express dht"),
        ("code", "faults", "[{kind = 'disk-full'}]", "there are no disks"),
        ("code", "faults", "[{kind = 'reset'}]", "no streams to reset"),
        ("code", "attacks", "[{kind = 'lie', share = 0.1}]", "has no attackers"),
        ("code", "links", "[{name = 'a', up = 1, down = 1}]", "cannot express links"),
        ("model", "faults", "[{kind = 'cut'}]", "the model has no faults"),
        ("model", "dht.tables", "joined", "cannot express dht.tables"),
        ("model-hashed", "dht.tables", "grown", "cannot express dht.tables"),
        ("model-hashed", "workload.contents", "5", "cannot express workload"),
    ],
)
def test_what_a_tier_lacks_is_refused_by_name(tier: str, key: str, value: str, words: str) -> None:
    scenario = change(parse(FITS[tier]), key, value)
    with pytest.raises(NotExpressible, match=words):
        check(scenario)


def test_all_gaps_are_told_at_once() -> None:
    scenario = parse("tier = 'code'\nnodes = 50000\n[dht]\npaths = 2")
    assert len(gaps(scenario)) == 2


def test_every_fault_and_attack_is_known_to_some_tier() -> None:
    kinds = get_args(Fault.__annotations__["kind"]) or (
        *("cut", "heal", "reset", "slow", "silent", "crash", "disk-full", "disk-torn", "skew"),
    )
    for kind in kinds:
        full = change(parse(FITS["code-full"]), "faults", f"[{{kind = '{kind}'}}]")
        assert gaps(full) == []
