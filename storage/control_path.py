"""Where the control socket of a home is found by others than its node (`home.py` places it)."""

from __future__ import annotations

from pathlib import Path

from .home import POINTER_NAME, SOCKET_NAME


def find_control_socket(home: Path) -> Path:
    """Return where the control socket of a node with this home is, if one runs."""
    try:
        named = (home / POINTER_NAME).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return home / SOCKET_NAME
    return Path(named)
