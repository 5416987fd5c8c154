"""What only a terminal shows: the live display, tables and colour (rich).

It is imported when there is something to draw: a node that starts is up sooner without it.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

BAR_WIDTH = 40


class Display:
    """A picture on standard error that moves, and the lines above it."""

    def __init__(self) -> None:
        self._console = _console(stderr=True)
        # Not refreshed by a thread of its own: events come often enough.
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            transient=True,
        )
        self._live.start()

    def say(self, line: str) -> None:
        """Write a line above the picture."""
        self._console.print(Text(line), soft_wrap=True)

    def show(self, head: str, share: float, rows: Sequence[tuple[str, str]]) -> None:
        """Draw the picture: a line, a bar that is `share` (0 to 1) full, rows of two cells."""
        bar = ProgressBar(total=1.0, completed=share, width=BAR_WIDTH)
        parts: list[RenderableType] = [Text(head, no_wrap=True), bar]
        if rows:
            table = Table.grid(padding=(0, 1))
            for left, right in rows:
                table.add_row("  ", Text(left, justify="right"), Text(right))
            parts.append(table)
        self._live.update(Group(*parts), refresh=True)

    def stop(self) -> None:
        """Take the picture away."""
        self._live.stop()


def draw_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table to standard output."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    _console().print(table)


def draw_failure(line: str) -> None:
    """Write a line to standard error so that it is seen."""
    _console(stderr=True).print(Text(line, "bold red"), soft_wrap=True)


def can_move() -> bool:
    """Tell whether standard error can show something that moves."""
    return _console(stderr=True).is_terminal


def _console(*, stderr: bool = False) -> Console:
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)
