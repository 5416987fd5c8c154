"""An operation, awaited for its outcome or iterated for its events; and what documents it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shoal.node.api.routes import COMMANDS, QUERIES
from shoal.node.client import Operation
from shoal.node.errors import (
    DiskError,
    Interrupted,
    NotFound,
    Refused,
    ShoalError,
    UsageError,
    error_of,
    told,
)
from shoal.node.events import Announced, Event, Hashing, Shared
from shoal.wire.errors import ContentRefused, InvalidText

SHARED = Shared("cid", "shoal:cid", "x", 1, 1, 0.1, "/x")


def operation(events: list[Event], closed: list[bool]) -> Operation[Shared]:
    async def work() -> AsyncIterator[Event]:
        try:
            for event in events:
                yield event
        finally:
            closed.append(True)

    start: Any = work
    return Operation(start, Shared)


async def test_awaiting_returns_at_the_outcome_and_closes_the_rest() -> None:
    closed: list[bool] = []
    assert await operation([Hashing("/x", 1), SHARED, Announced("cid", 1)], closed) is SHARED
    assert closed == [True]


async def test_without_an_outcome_is_an_error() -> None:
    with pytest.raises(ShoalError, match="'shared'"):
        await operation([Hashing("/x", 1)], [])


async def test_nothing_runs_before_it_is_asked_for() -> None:
    ran: list[bool] = []

    def start() -> Any:
        ran.append(True)

    Operation(start, Shared)
    assert not ran


@pytest.mark.parametrize("kind", [UsageError, NotFound, DiskError, Refused, Interrupted])
def test_an_error_travels_as_its_code(kind: type[ShoalError]) -> None:
    again = error_of(kind.code, "why")
    assert type(again) is kind
    assert str(again) == "why"


def test_errors_of_the_folders_below_get_their_codes() -> None:
    known = told(ExceptionGroup("", [ExceptionGroup("", [InvalidText("no link")])]))
    assert known is not None
    assert (known.code, known.message) == (2, "no link")
    refused = told(ContentRefused("made with another profile"))
    assert refused is not None
    assert refused.code == 4
    assert told(ExceptionGroup("", [NotFound("x"), ZeroDivisionError()])) is None
    assert told(KeyboardInterrupt()) is None
    assert told(ZeroDivisionError()) is None


def test_the_documentation_names_every_request() -> None:
    text = (Path(__file__).parents[3] / "docs" / "events.md").read_text()
    table = text.partition("## The control socket")[2]
    for path in (*QUERIES, *COMMANDS):
        assert f"{path}`" in table
