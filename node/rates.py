"""Bytes a second as people write them: `10MB`, `500kB/s`, `1.5MiB`, `none`."""

from __future__ import annotations

import re
from typing import Final

from ..swarm.bucket import LEAST_RATE
from ..wire.errors import InvalidText

NONE: Final = "none"

_UNITS: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY: Final = {"Ki": 1 << 10, "ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}
_FORM: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([KkMGT]i|[kKMGT]?)B?(?:/s)?")

HIGHEST: Final = 10**15
"""Bytes a second; more is a mistake."""


def parse_rate(text: str) -> int | None:
    """Return bytes a second; None for `none`, which is no limit.

    Raises:
        InvalidText: It is no rate, or one that is too low or too high.
    """
    if text == NONE:
        return None
    match = _FORM.fullmatch(text)
    if match is None:
        raise InvalidText(
            f"{text!r} is no rate: write bytes a second as 500kB, 10MB or 1.5MiB, or none"
        )
    unit = match[2].replace("K", "k") if len(match[2]) == 1 else match[2]
    rate = float(match[1]) * (_UNITS[unit] if unit in _UNITS else _BINARY[unit])
    if not LEAST_RATE <= rate <= HIGHEST:
        raise InvalidText(
            f"{text!r} is no useful rate: a limit is at least 1kB a second and at most 1000TB, or "
            "none"
        )
    return int(rate)
