"""A folder for each run: scenario, seed, versions, summary, tables, report.

It is written beside its place and then put there whole, so that a run that was interrupted or
killed leaves none; what it left beside is removed by the next.
"""

from __future__ import annotations

import json
import math
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import pyarrow as arrow
import pyarrow.parquet as parquet

from ..scenario.reading import parse, write
from ..scenario.result import Column, Result, Value

SCENARIO: Final = "scenario.toml"
SUMMARY: Final = "summary.json"
REPORT: Final = "report.html"
TABLES: Final = "tables"
PARTIAL: Final = ".partial"
"""Ends the name of a folder that is being written."""

OLD: Final = ".old"
"""Ends the name of a folder that is being replaced."""

VERSIONS_OF: Final = ("shoal", "numpy", "numba", "pyarrow", "matplotlib")


class BadRun(ValueError):
    """A folder is not that of a run; one sentence."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it lies on disk."""

    folder: Path
    result: Result
    versions: Mapping[str, str]


def versions() -> dict[str, str]:
    """Return the versions of all that may change a result."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in VERSIONS_OF:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def save(result: Result, folder: Path, report: str) -> None:
    """Write a run's folder; one of the same name that is that of a run is replaced.

    Raises:
        BadRun: Something else is there.
        OSError: The disk says no.
    """
    if folder.exists() and not (folder / SUMMARY).exists() and any(folder.iterdir()):
        raise BadRun(f"{folder} exists and holds no run: name another folder with -o")
    partial, old = (folder.with_name(folder.name + end) for end in (PARTIAL, OLD))
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    try:
        _write(result, partial, report)
        if folder.exists():
            folder.rename(old)  # not removed in its place: it would be half a folder meanwhile
        partial.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:  # also Ctrl-C: half a folder is no use to anybody
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _write(result: Result, folder: Path, report: str) -> None:
    (folder / TABLES).mkdir(parents=True)
    (folder / SCENARIO).write_text(write(result.scenario), encoding="utf-8")
    for name, columns in wanted_tables(result).items():
        table = arrow.table({key: arrow.array(column) for key, column in columns.items()})
        parquet.write_table(table, folder / TABLES / f"{name}.parquet", compression="zstd")
    facts = {
        "name": result.scenario.name,
        "seed": result.seed,
        "digest": result.digest,
        "seconds": result.seconds,
        "peak_bytes": result.peak_bytes,
        "versions": versions(),
        "summary": {key: _plain(value) for key, value in result.summary.items()},
    }
    (folder / SUMMARY).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    (folder / REPORT).write_text(report, encoding="utf-8")


def wanted_tables(result: Result) -> Mapping[str, Mapping[str, Column]]:
    """Return the tables that the scenario asks for."""
    wanted = result.scenario.metrics
    return {name: table for name, table in result.tables.items() if not wanted or name in wanted}


def _plain(value: Value) -> Value:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def load(folder: Path) -> Run:
    """Read a run's folder.

    Raises:
        BadRun: It is not that of a run, or is damaged.
    """
    try:
        facts: dict[str, Any] = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        scenario = parse((folder / SCENARIO).read_text(encoding="utf-8"))
        tables = {
            path.stem: _columns(parquet.read_table(path))
            for path in sorted((folder / TABLES).glob("*.parquet"))
        }
        result = Result(
            scenario=scenario,
            seed=int(facts["seed"]),
            digest=str(facts["digest"]),
            summary=facts["summary"],
            tables=tables,
            seconds=float(facts["seconds"]),
            peak_bytes=int(facts["peak_bytes"]),
        )
    except FileNotFoundError as error:
        raise BadRun(f"{folder} is no folder of a run: {error.filename} is missing") from error
    except (KeyError, TypeError, ValueError, arrow.ArrowException) as error:
        raise BadRun(f"{folder} is damaged: {error}") from error
    return Run(folder, result, facts.get("versions", {}))


def _columns(table: arrow.Table) -> dict[str, Column]:
    return {
        name: column.to_pylist() if arrow.types.is_string(column.type) else column.to_numpy()
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


def find(folders: Iterable[Path]) -> Iterator[Path]:
    """Yield the folders of runs: those given, or else those inside them.

    Raises:
        BadRun: There is none in one of them.
    """
    for folder in folders:
        if (folder / SUMMARY).exists():
            yield folder
            continue
        inside = sorted(path.parent for path in folder.glob(f"*/{SUMMARY}"))
        inside = [path for path in inside if not path.name.endswith((PARTIAL, OLD))]
        if not inside:
            raise BadRun(f"there is no run in {folder}")
        yield from inside


def with_cost(result: Result, seconds: float, peak_bytes: int) -> Result:
    """Return the result with what it took to get it."""
    return replace(result, seconds=seconds, peak_bytes=peak_bytes)
