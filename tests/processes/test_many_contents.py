"""A home that shares very many contents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic import fill_contents

pytestmark = pytest.mark.processes

CONTENTS = 1000


def test_a_home_with_a_thousand_contents_starts_lists_and_serves_them(
    bench: Any, tmp_path: Path
) -> None:
    fill_contents(tmp_path / "library", tmp_path / "data", CONTENTS)
    _, address = bench.up("library")
    listed = bench.run("library", "--json", "ls")
    assert listed.returncode == 0, listed.stderr
    rows = [json.loads(line) for line in listed.stdout.splitlines()]
    assert len({row["cid"] for row in rows}) == CONTENTS
    assert {row["state"] for row in rows} == {"shared"}
    assert {row["problem"] for row in rows} == {None}
    last = rows[-1]
    bench.get("reader", last["cid"], tmp_path / "fetched", "--peer", address)
    assert (tmp_path / "fetched").read_bytes() == Path(last["path"]).read_bytes()
