"""A scenario as a TOML file: read with every key checked, written so that it reads back the same.

The dataclasses of `model` are the schema: their fields are the keys, their types what is allowed.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import tomllib
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from ...wire.errors import InvalidText
from .model import Attack, Fault, LinkClass, Scenario
from .result import (
    AVAILABILITY,
    COMPLETIONS,
    EDGES,
    LOOKUPS,
    RECORDS,
    TRAFFIC,
    UTILISATION,
)

MAX_FILE_BYTES: Final = 1 << 20
"""Longest scenario file."""

MAX_ITEMS: Final = 10_000
"""Members of a list: seeds, link classes, faults."""

MAX_SECONDS: Final = 10 * 366 * 86400.0
"""Longest time: ten years."""

MAX_RATE: Final = 1e15
"""Highest rate, bytes a second."""

METRICS: Final = (LOOKUPS, COMPLETIONS, AVAILABILITY, UTILISATION, RECORDS, TRAFFIC, EDGES)
"""Tables that a run may write."""

SHARE: Final = (0.0, 1.0)
SECONDS: Final = (0.0, MAX_SECONDS)

BOUNDS: Final[Mapping[str, tuple[float, float]]] = {
    "nodes": (1, 10**10),
    "duration": SECONDS,
    "seeds": (0, 2**63 - 1),
    "latency.median_rtt": (0.0, 60.0),
    "latency.jitter": (0.0, 10.0),
    "links.up": (1.0, MAX_RATE),
    "links.down": (1.0, MAX_RATE),
    "links.share": (0.0, 1e9),
    "nat.endpoint_independent": SHARE,
    "nat.port_restricted": SHARE,
    "nat.symmetric": SHARE,
    "nat.blocked": SHARE,
    "nat.mapped": SHARE,
    "churn.median": (1.0, MAX_SECONDS),
    "churn.shape": (0.05, 20.0),
    "churn.offline": (1.0, MAX_SECONDS),
    "churn.crash": SHARE,
    "dht.k": (1, 1000),
    "dht.alpha": (1, 1000),
    "dht.beta": (1, 1000),
    "dht.paths": (1, 64),
    "dht.refresh": (1.0, MAX_SECONDS),
    "dht.republish": (1.0, MAX_SECONDS),
    "dht.record_life": (1.0, MAX_SECONDS),
    "workload.lookups": (0, 10**10),
    "workload.contents": (0, 10**9),
    "workload.fetches": (0, 10**10),
    "workload.zipf": (0.0, 10.0),
    "workload.every": SECONDS,
    "swarm.pieces": (0, 2**31),
    "swarm.piece_bytes": (1, 2**31),
    "swarm.seeds": (0, 10**9),
    "swarm.leechers": (0, 10**9),
    "swarm.neighbours": (0, 10**9),
    "swarm.arrival": SECONDS,
    "swarm.site_bytes": (1.0, MAX_RATE),
    "swarm.slots": (1, 64),
    "swarm.rotate": (0.001, MAX_SECONDS),
    "attacks.share": SHARE,
    "attacks.at_key": (0, 10**9),
    "faults.at": SECONDS,
    "faults.share": SHARE,
    "faults.amount": (-MAX_SECONDS, MAX_RATE),
}
"""Least and greatest value of each number, by its key in the file."""


class BadScenario(InvalidText):
    """A scenario that cannot be read; one sentence names the key and says what is allowed."""


def read(path: Path) -> Scenario:
    """Read a scenario file.

    Raises:
        BadScenario: It is no scenario.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise BadScenario(f"{path} is longer than {MAX_FILE_BYTES} bytes, which no scenario is")
    try:
        return parse(data.decode())
    except UnicodeDecodeError as error:
        raise BadScenario(f"{path} is not UTF-8 text: {error.reason}") from error


def parse(text: str) -> Scenario:
    """Read a scenario from TOML text; keys that are left out keep their defaults.

    Raises:
        BadScenario: It is no scenario.
    """
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadScenario(f"this is not TOML: {error}") from error
    return _checked(_read_table(Scenario, table, ""))


def change(scenario: Scenario, key: str, text: str) -> Scenario:
    """Return the scenario with one key, such as `dht.k`, set to a value written as in TOML.

    A word that is no TOML value is taken as a string, so `tier=code` needs no quotes.

    Raises:
        BadScenario: There is no such key, or the value is not allowed.
    """
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        value = text
    table = tomllib.loads(write(scenario))
    *sections, last = key.split(".")
    place = table
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise BadScenario(f"{key} cannot be set one by one: write {section} into the file")
    place[last] = value
    return _checked(_read_table(Scenario, table, ""))


def write(scenario: Scenario) -> str:
    """Return the scenario as TOML text, every key spelt out."""
    return "\n".join(_lines(scenario, "")) + "\n"


def keys() -> Iterator[str]:
    """Yield every key that a file may have, dotted."""
    yield from _keys(Scenario, "")


def _keys(kind: type[Any], at: str) -> Iterator[str]:
    for name, hint in get_type_hints(kind).items():
        inner = _dataclass_in(hint)
        if inner is None:
            yield at + name
        else:
            yield from _keys(inner, f"{at}{name}.")


def _dataclass_in(hint: Any) -> type[Any] | None:
    """Return the dataclass that a field is or holds many of."""
    if get_origin(hint) is tuple:
        hint = get_args(hint)[0]
    return hint if isinstance(hint, type) and dataclasses.is_dataclass(hint) else None


def _read_table(kind: type[Any], table: Mapping[str, Any], at: str) -> Any:
    hints = get_type_hints(kind)
    for name in table:
        if name not in hints:
            raise BadScenario(_unknown(at + name, hints, at))
    values = {name: _read_value(hints[name], value, at + name) for name, value in table.items()}
    for item in dataclasses.fields(kind):
        needed = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if needed and item.name not in values:
            raise BadScenario(f"{at}{item.name} is missing: every {at.rstrip('.')} must have one")
    return kind(**values)


def _unknown(key: str, hints: Mapping[str, Any], at: str) -> str:
    name = key.removeprefix(at)
    near = difflib.get_close_matches(name, hints, n=1, cutoff=0.5)
    if near:
        return f"{key} is no key of a scenario: did you mean {at}{near[0]}?"
    elsewhere = [known for known in keys() if known.rpartition(".")[2] == name]
    if elsewhere:
        return f"{key} is no key of a scenario: did you mean {elsewhere[0]}?"
    return f"{key} is no key of a scenario: allowed here are {', '.join(at + n for n in hints)}"


def _read_value(hint: Any, value: Any, key: str) -> Any:
    """Return a value of a field's type, or raise BadScenario."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
        origin = get_origin(hint)
    if origin is Literal:
        allowed = get_args(hint)
        if isinstance(value, str) and value in allowed:
            return value
        near = difflib.get_close_matches(str(value), allowed, n=1)
        hint_text = f" (did you mean {near[0]}?)" if near else ""
        raise BadScenario(f"{key} must be one of {', '.join(allowed)}, not {value!r}{hint_text}")
    if origin is tuple:
        return _read_list(get_args(hint)[0], value, key)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise BadScenario(f"{key} must be a table such as [{key}], not {value!r}")
        return _read_table(hint, value, f"{key}.")  # type: ignore[arg-type]
    return _read_plain(hint, value, key)


def _read_list(hint: Any, value: Any, key: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        form = f"tables such as [[{key}]]" if dataclasses.is_dataclass(hint) else "a list"
        raise BadScenario(f"{key} must be {form}, not {value!r}")
    if len(value) > MAX_ITEMS:
        raise BadScenario(f"{key} must have at most {MAX_ITEMS} members, not {len(value)}")
    return tuple(_read_value(hint, item, key) for item in value)


def _read_plain(hint: Any, value: Any, key: str) -> Any:
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
        raise BadScenario(f"{key} must be {names[hint]}, not {value!r}")
    if hint in (int, float):
        least, most = BOUNDS[key]
        if not (math.isfinite(value) and least <= value <= most):
            raise BadScenario(f"{key} must lie between {least:g} and {most:g}, not {value!r}")
    return value


def _checked(scenario: Scenario) -> Scenario:
    """Refuse what no single key decides."""
    if not scenario.seeds:
        raise BadScenario("seeds must name at least one seed")
    if sum(dataclasses.astuple(scenario.nat)) > 1.0 + 1e-9:
        raise BadScenario("the shares of nat must add up to at most 1: the rest is not behind one")
    if sum(attack.share for attack in scenario.attacks) > 1.0 + 1e-9:
        raise BadScenario("the shares of attacks must add up to at most 1")
    if scenario.links and not any(link.share for link in scenario.links):
        raise BadScenario("links.share must be above 0 for one link class at least")
    names = [link.name for link in scenario.links]
    if len(set(names)) < len(names):
        raise BadScenario("links.name must differ from one link class to the other")
    if any(fault.kind != "skew" and fault.amount < 0.0 for fault in scenario.faults):
        raise BadScenario("faults.amount must be at least 0: only a clock's skew may be negative")
    for metric in scenario.metrics:
        if metric not in METRICS:
            near = difflib.get_close_matches(metric, METRICS, n=1)
            also = f" (did you mean {near[0]}?)" if near else ""
            raise BadScenario(f"metrics must be among {', '.join(METRICS)}, not {metric!r}{also}")
    if scenario.dht.beta > scenario.dht.k:
        raise BadScenario(f"dht.beta must be at most dht.k, which is {scenario.dht.k}")
    return scenario


def _lines(part: Any, at: str) -> Iterator[str]:
    """Yield the lines of a table: its own keys first, then the tables in it."""
    inner: list[tuple[str, Any]] = []
    for item in dataclasses.fields(part):
        value = getattr(part, item.name)
        holds = _holds_tables(value)
        if holds:
            inner.append((item.name, value))
        elif value is not None and not (value == () and item.name in _TABLES):
            yield f"{item.name} = {_text(value)}"
    for name, value in inner:
        if dataclasses.is_dataclass(value):
            yield from ("", f"[{at}{name}]", *_lines(value, f"{at}{name}."))
        else:
            for member in value:
                yield from ("", f"[[{at}{name}]]", *_lines(member, f"{at}{name}."))


_TABLES: Final = ("links", "attacks", "faults")
"""Lists of tables: an empty one is not written."""


def _holds_tables(value: Any) -> bool:
    if isinstance(value, tuple):
        return bool(value) and isinstance(value[0], (LinkClass, Attack, Fault))
    return dataclasses.is_dataclass(value)


def _text(value: Any) -> str:
    """Return a value as TOML."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case _:
            return f"[{', '.join(map(_text, value))}]"
