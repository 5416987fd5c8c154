"""The events: what the documentation says is what goes over the wire."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.node.events import (
    EVENTS,
    Complete,
    Copy,
    Event,
    Progress,
    Source,
    Status,
    Time,
    from_json,
    to_line,
)
from shoal.node.events_simulate import Numbers

DOCS = Path(__file__).parents[3] / "docs" / "events.md"


def documented() -> dict[str, list[str]]:
    """Return each event of the documentation with its fields."""
    found: dict[str, list[str]] = {}
    name = None
    for line in DOCS.read_text().splitlines():
        if line.startswith("#"):
            heading = re.fullmatch(r"### `(\w+)`", line)
            name = heading[1] if heading else None
            if name is not None:
                found[name] = []
        elif name is not None and (item := re.match(r"- `(\w+)`: ", line)):
            found[name].append(item[1])
    return found


def test_the_documentation_lists_every_event_and_field() -> None:
    events: dict[str, type[Any]] = dict(EVENTS)
    assert documented() == {
        name: [field.name for field in fields(kind)] for name, kind in events.items()
    }


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Return values of a field's type."""
    if hint == Time:
        return st.integers(0, 4_000_000_000_000).map(lambda milliseconds: milliseconds / 1000)
    if hint is float:
        return st.floats(allow_nan=False, allow_infinity=False)
    if get_args(hint)[:1] == (Source,):
        return st.lists(st.builds(Source, st.text(), st.integers(0), st.integers(0))).map(tuple)
    if hint == Numbers:
        plain_values = st.none() | st.booleans() | st.integers() | st.text()
        return st.dictionaries(st.text(), plain_values)
    if hint == dict[str, int]:
        return st.dictionaries(st.text(), st.integers(0))
    if get_args(hint)[1:] == (...,):
        return st.lists(st.text()).map(tuple)
    if get_args(hint):
        return st.one_of(*(values(part) for part in get_args(hint)))
    plain = {str: st.text(), int: st.integers(), bool: st.booleans(), type(None): st.none()}
    return plain[hint]


@st.composite
def events(draw: st.DrawFn) -> Event:
    kind: Any = draw(st.sampled_from(sorted(EVENTS.values(), key=lambda kind: kind.event)))
    hints = get_type_hints(kind)
    return kind(**{field.name: draw(values(hints[field.name])) for field in fields(kind)})  # type: ignore[no-any-return]


@given(events())
def test_an_event_survives_the_journey_as_a_line(event: Event) -> None:
    line = to_line(event)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    data = json.loads(line)
    assert next(iter(data)) == "event"
    assert from_json(data) == event


def test_times_are_rfc_3339() -> None:
    event = Status("12D3me", True, "/home", started=Time(1_700_000_000.25))
    assert event.to_json()["started"] == "2023-11-14T22:13:20.250Z"


def test_a_path_that_is_not_text_survives() -> None:
    event = Copy("cid", b"/data/\xff\xfe".decode("utf-8", "surrogateescape"), "shared")
    assert from_json(json.loads(to_line(event))) == event


def test_what_is_new_is_skipped_and_what_is_damaged_refused() -> None:
    assert from_json({"event": "invented later", "x": 1}) is None
    known = Complete("cid", "/p", 1, 0.5).to_json()
    assert from_json({**known, "new": 1}) == Complete("cid", "/p", 1, 0.5)
    del known["cid"]
    with pytest.raises(ValueError, match="complete"):
        from_json(known)
    with pytest.raises(ValueError, match="complete"):
        from_json({**Complete("cid", "/p", 1, 0.5).to_json(), "sources": ["x"]})


def test_fields_of_the_published_table_have_these_names() -> None:
    """The names that scripts rely on; they never go."""
    published = {
        "listening": "peer_id addrs",
        "shared": "cid link name size pieces seconds path",
        "announced": "cid peers",
        "progress": "cid done_bytes total_bytes pieces_done pieces rate peers eta waiting",
        "complete": "cid path bytes seconds sources wasted_bytes banned skipped_links",
        "error": "code message",
    }
    for name, names in published.items():
        kind: Any = EVENTS[name]
        assert set(names.split()) <= {field.name for field in fields(kind)}


def test_progress_needs_all_that_is_published() -> None:
    needed = [field.name for field in fields(Progress) if field.default is MISSING]
    assert "waiting" in needed
