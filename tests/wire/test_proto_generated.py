"""The committed protobuf modules are what the `.proto` files beside them say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from shoal.wire.proto.__main__ import HERE, generate

NAMES = sorted(path.stem for path in HERE.glob("*.proto"))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("proto")
    assert generate(folder) == 0
    return folder


def descriptor(module: str) -> bytes:
    """The serialised descriptor in a generated module: all that it says of the messages."""
    for item in ast.walk(ast.parse(module)):
        match item:
            case ast.Call(
                func=ast.Attribute(attr="AddSerializedFile"), args=[ast.Constant(bytes(v))]
            ):
                return v
    raise AssertionError("no descriptor")


def generator(module: str) -> str:
    """The version that wrote a generated module."""
    found = re.search(r"^# Protobuf Python Version: (\S+)$", module, re.MULTILINE)
    assert found is not None
    return found[1]


def test_there_is_a_module_for_each_proto_file_and_no_other() -> None:
    assert NAMES
    assert sorted(path.name for path in HERE.glob("*_pb2.py*")) == sorted(
        f"{name}_pb2{suffix}" for name in NAMES for suffix in (".py", ".pyi")
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_generated_module_is_up_to_date(name: str, fresh: Path) -> None:
    committed, made = (
        (folder / f"{name}_pb2.py").read_text(encoding="utf-8") for folder in (HERE, fresh)
    )
    assert descriptor(committed) == descriptor(made)
    if generator(committed) == generator(made):  # another version lays the text out differently
        assert committed == made
        stub = f"{name}_pb2.pyi"
        assert (HERE / stub).read_text(encoding="utf-8") == (fresh / stub).read_text(
            encoding="utf-8"
        )


@pytest.mark.parametrize("name", NAMES)
def test_file_and_package_names_cannot_clash_with_another_library_s(name: str) -> None:
    # protobuf keeps all descriptors of a process in one pool.
    source = (HERE / f"{name}.proto").read_text(encoding="utf-8")
    assert name.startswith("shoal_")
    assert f"package shoal.{name.removeprefix('shoal_')};" in source


def test_the_declared_protobuf_can_load_the_modules() -> None:
    # A generated module refuses a runtime that is older than its generator.
    project = (HERE.parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    declared = re.search(r'"protobuf >= ([\d.]+)', project)
    assert declared is not None
    lowest = tuple(map(int, declared[1].split(".")))
    for name in NAMES:
        written_by = generator((HERE / f"{name}_pb2.py").read_text(encoding="utf-8"))
        assert lowest >= tuple(map(int, written_by.split(".")))[: len(lowest)], written_by
