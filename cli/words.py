"""Numbers as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def size(count: float | None) -> str:
    """Return bytes with a decimal unit, three digits: `1.07 GB`; `?` when unknown."""
    if count is None:
        return "?"
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(UNITS) - 1:
        value, unit = value / 1000, unit + 1
    digits = 0 if unit == 0 or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {UNITS[unit]}"


def rate(count: float | None) -> str:
    """Return bytes a second: `512 MB/s`."""
    return f"{size(count)}/s"


def duration(seconds: float | None) -> str:
    """Return a length of time, its two largest units: `1 h 5 min`; `?` when unknown."""
    if seconds is None:
        return "?"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for length, unit, part, part_unit in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= length:
            rest = whole % length // part
            return f"{whole // length} {unit}" + (f" {rest} {part_unit}" if rest else "")
    return f"{whole} s"


def count(number: int, one: str, many: str | None = None) -> str:
    """Return `1 piece`, `3 pieces`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def percent(done: float, total: float | None) -> str:
    """Return a share as `37 %`; 100 only when all is done."""
    if not total:
        return "100 %" if total == 0 else "?"
    return f"{int(100 * done / total)} %"


def moment(time: float | None) -> str:
    """Return a point in time, UTC to the minute; `?` when unknown."""
    return "?" if time is None else datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M UTC")
