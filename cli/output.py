"""Where a command's events go: JSON lines for programs, or text for people (`render.py`)."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self

from ..node.errors import Interrupted
from ..node.events import Event, to_line
from .settings import Settings


class Output(AbstractContextManager["Output"], Protocol):
    """Tells events, and what else is to be said, in the order of the calls."""

    def event(self, event: Event) -> None:
        """Tell an event."""
        ...

    def say(self, text: str) -> None:
        """Say a sentence to the person who looks on."""
        ...


class JsonLines:
    """`--json`: events on standard output, everything for people on standard error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def event(self, event: Event) -> None:
        """Write the event as a line, at once."""
        write_out(to_line(event))

    def say(self, text: str) -> None:
        """Write a sentence to standard error."""
        print(printable(text), file=sys.stderr, flush=True)


def output_for(settings: Settings) -> Output:
    """Return the output that the options ask for."""
    if settings.json:
        return JsonLines()
    from .render import People

    return People()


def write_out(data: bytes) -> None:
    """Write to standard output, at once.

    Raises:
        Interrupted: Whoever read it is gone (`| head`); further output is dropped.
    """
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Interrupted("nobody reads the output any more") from error


def printable(text: str) -> str:
    """Return the text with control and direction characters escaped.

    Names and messages come from strangers; a terminal would obey what is in them.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
