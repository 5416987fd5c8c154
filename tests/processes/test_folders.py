"""Folders come out as they went in."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.processes


def make_tree(root: Path, flat: int, many: int) -> None:
    """Make a folder with everything that folders have."""
    (root / "nested" / "deeper" / "deepest").mkdir(parents=True)
    (root / "nested" / "deeper" / "deepest" / "file.txt").write_text("down here")
    (root / ".hidden").write_text("kept")
    (root / ".config").mkdir()
    (root / ".config" / "inside").write_text("kept too")
    (root / "empty").touch()
    (root / "empty folder").mkdir()
    (root / "name with spaces").write_text("a")
    (root / "🐟 shoal 魚群").write_text("b")
    (root / ("n" * 251 + ".bin")).write_bytes(os.urandom(1000))
    (root / "big.bin").write_bytes(os.urandom((3 << 20) + 17))
    (root / "link to a file").symlink_to("nested/deeper/deepest/file.txt")
    (root / "nested" / "up").symlink_to("../big.bin")
    (root / "outward").symlink_to("/etc/hostname")
    (root / "climbing").symlink_to("../../elsewhere")
    for name, count in (("flat", flat), ("many", many)):
        (root / name).mkdir()
        for number in range(count):
            (root / name / f"{number}.txt").write_text(f"{name} {number}")


def test_a_folder_comes_out_identical(bench: Any, tmp_path: Path) -> None:
    root = tmp_path / "album"
    root.mkdir()
    make_tree(root, 4000, 10_000)
    _, address, shared = bench.seed("alice", root)
    target = tmp_path / "copy"
    complete = bench.get("bob", shared["cid"], target, "--peer", address)
    assert sorted(complete["skipped_links"]) == ["climbing", "outward"]
    (root / "outward").unlink()
    (root / "climbing").unlink()
    compared = subprocess.run(
        ["diff", "-r", "--no-dereference", str(root), str(target)], capture_output=True, check=False
    )
    assert compared.returncode == 0, compared.stdout[:2000]
    assert os.readlink(target / "nested" / "up") == "../big.bin"
    leftovers = [name for name in os.listdir(tmp_path) if name.startswith(".shoal-")]
    assert leftovers == []


def test_a_fetched_folder_is_shared_under_the_same_name(bench: Any, tmp_path: Path) -> None:
    root = tmp_path / "album"
    root.mkdir()
    make_tree(root, 10, 10)
    (root / "outward").unlink()
    (root / "climbing").unlink()
    _, address, shared = bench.seed("alice", root)
    target = tmp_path / "copy"
    bench.get("bob", shared["cid"], target, "--peer", address)
    again = bench.run("carol", "share", str(target), "--hash-only", "--json")
    assert again.returncode == 0, again.stderr
    assert shared["cid"] in again.stdout
