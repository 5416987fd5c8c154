"""The README's Python example runs as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.processes
def test_the_python_example_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    script = tmp_path / "example.py"
    script.write_text(code)
    shared = tmp_path / "shared.bin"
    shared.write_bytes(bytes(range(256)) * 10_000)
    homes = tmp_path / "homes"
    homes.mkdir()
    done = subprocess.run(
        [sys.executable, str(script), str(shared), str(homes)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "'event': 'complete'" in done.stdout
    assert (homes / "copy").read_bytes() == shared.read_bytes()


def test_every_command_of_the_readme_exists() -> None:
    from shoal.cli.main import COMMANDS

    named = set(re.findall(r"^ *(?:\S*\$ )?shoal (?:--json )?([a-z]+)", README.read_text(), re.M))
    assert {"share", "get", "up"} <= named
    assert named <= set(COMMANDS)
