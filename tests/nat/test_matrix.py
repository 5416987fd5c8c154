"""Every kind of machine gets a file from another, over the path that its NATs allow."""

from __future__ import annotations

from pathlib import Path

import pytest
from natlab.lab import Lab
from natlab.matrix import Outcome, all_pairs, run_all, table
from natlab.theory import KINDS, Kind, expected, possible

pytestmark = pytest.mark.processes

DOC = Path(__file__).resolve().parents[2] / "docs" / "nat.md"

LETTERS = {kind.letter: kind for kind in KINDS}

SOME = ["a:c", "b:f", "c:e", "d:a", "e:h", "f:d", "g:b", "h:g", "c:c", "d:d", "h:h", "e:c"]
"""Getter and sharer: each kind once on each side, and all that need a hole or a relay."""


def pairs(words: list[str]) -> list[tuple[Kind, Kind]]:
    return [(LETTERS[a], LETTERS[b]) for a, b in (word.split(":") for word in words)]


def wrong(outcomes: list[Outcome]) -> list[str]:
    return [
        f"{o.getter.letter} from {o.sharer.letter}: {o.path}, not {o.expected}; right: {o.right}"
        for o in outcomes
        if not o.agrees
    ]


async def test_each_kind_gets_and_shares(lab: Lab) -> None:
    matrix = await run_all(lab.folder, pairs(SOME), lab)
    print(table(matrix.outcomes))
    assert not wrong(matrix.outcomes)
    assert not [o for o in matrix.outcomes if o.wasted]
    assert len(matrix.outcomes) == len(SOME)


@pytest.mark.long
async def test_every_pair(lab: Lab) -> None:
    matrix = await run_all(lab.folder, all_pairs(), lab)
    print(table(matrix.outcomes))
    assert not wrong(matrix.outcomes)


def test_some_pairs_have_every_kind_on_both_sides() -> None:
    assert {word[0] for word in SOME} == {word[2] for word in SOME} == set(LETTERS)


def test_theory_is_the_same_from_both_sides() -> None:
    """Who gets matters only where both can be dialled."""
    for one, other in all_pairs():
        there, back = expected(one, other)[0], expected(other, one)[0]
        assert there == back or {there, back} == set(possible(one, other))


def test_the_document_shows_the_whole_matrix() -> None:
    rows = [line for line in DOC.read_text().splitlines() if line.startswith("| ")]
    for kind in KINDS:
        assert any(row.startswith(f"| {kind.letter} {kind.title} |") for row in rows), kind.name
