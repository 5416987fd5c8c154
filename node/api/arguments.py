"""What a request to the control socket asks for: JSON fields, checked one by one.

A field that is unknown or of the wrong kind is refused, so that a typing mistake in a script does
not silently do something else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar, cast

from ..errors import UsageError

T = TypeVar("T", bound=str)

MAX_TEXTS = 64
"""Of a list (peers); a link has 16 and a command line few more."""

MAX_TIMEOUT = 10 * 365 * 86400.0
"""Seconds; longer means for ever."""


class Arguments:
    """The fields of one request, taken out by name; `done` refuses what is left over."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    @classmethod
    def parse(cls, body: bytes) -> Arguments:
        """Read a request's body; an empty one has no fields.

        Raises:
            UsageError: It is not one JSON object.
        """
        if not body:
            return cls({})
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise UsageError("the request is not JSON") from error
        if not isinstance(fields, dict):
            raise UsageError("the request is not a JSON object")
        return cls(fields)

    def text(self, name: str) -> str:
        """Take a text that must be there."""
        value = self.maybe_text(name)
        if value is None:
            raise UsageError(f"the request lacks {name!r}")
        return value

    def maybe_text(self, name: str) -> str | None:
        """Take a text, or None."""
        value = self._fields.pop(name, None)
        if value is not None and (not isinstance(value, str) or "\0" in value or not value):
            raise UsageError(f"{name!r} is a text that is not empty")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """Take true or false."""
        value = self._fields.pop(name, default)
        if not isinstance(value, bool):
            raise UsageError(f"{name!r} is true or false")
        return value

    def texts(self, name: str) -> Sequence[str]:
        """Take a list of texts."""
        value = self._fields.pop(name, [])
        if not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise UsageError(f"{name!r} is a list of texts")
        if len(value) > MAX_TEXTS:
            raise UsageError(f"{name!r} has at most {MAX_TEXTS} entries")
        return value

    def seconds(self, name: str) -> float | None:
        """Take a positive number of seconds, or None."""
        value = self._fields.pop(name, None)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UsageError(f"{name!r} is a number of seconds")
        if not 0 < value <= MAX_TIMEOUT:
            raise UsageError(f"{name!r} is more than 0 and at most {MAX_TIMEOUT:.0f} seconds")
        return float(value)

    def choice(self, name: str, choices: tuple[T, ...]) -> T:
        """Take one of a few words; the first is the default."""
        value = self._fields.pop(name, choices[0])
        if value not in choices:
            raise UsageError(f"{name!r} is one of {', '.join(choices)}")
        return cast(T, value)

    def done(self) -> None:
        """Refuse what no one took."""
        if self._fields:
            names = ", ".join(repr(name) for name in sorted(self._fields))
            raise UsageError(f"the request has unknown fields: {names}")
