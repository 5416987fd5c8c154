"""Reading `config.toml` of a home folder (the node itself opens no files)."""

from __future__ import annotations

from pathlib import Path

MAX_CONFIG_BYTES = 1 << 20
"""A configuration is a few lines; more is a mistake."""


def read_config(home: Path) -> str | None:
    """Return the text of the home's `config.toml`, or None if there is none.

    Raises:
        OSError: It cannot be read.
        ValueError: It is over 1 MiB or not UTF-8.
    """
    try:
        with (home / "config.toml").open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError:
        return None
    if len(data) > MAX_CONFIG_BYTES:
        raise ValueError("config.toml is over 1 MiB")
    return data.decode()
