"""What the tests behind real NATs need, and what is said if they cannot run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from natlab.lab import Lab, a_lab, missing
from natlab.town import Town

WHY = missing()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say it loudly: nothing else shows that a node gets out of a home network."""
    if WHY:
        terminalreporter.section("NAT", sep="!", yellow=True, bold=True)
        terminalreporter.line(f"the tests behind real NATs did not run: {WHY}")


@contextmanager
def a_town(folder: Path) -> Iterator[Town]:
    """Have a lab with the nodes of others in it."""
    with a_lab(folder) as lab:
        town = Town(lab, folder)
        try:
            trio.run(town.populate)
            yield town
        finally:
            town.close()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab of its own."""
    if WHY:
        pytest.skip(WHY)
    with a_lab(tmp_path) as lab:
        yield lab


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A lab with the nodes of others in it, for the tests of one file."""
    if WHY:
        pytest.skip(WHY)
    with a_town(tmp_path_factory.mktemp("town")) as town:
        yield town
