"""Events as text for people: results on standard output, all else on standard error.

One live display shows what moves. Where standard error is no terminal, a calm line now and then.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..node.events import (
    Announced,
    Complete,
    Event,
    Failure,
    Handed,
    Hashing,
    Listening,
    Lookup,
    Notice,
    Paused,
    Progress,
    Removed,
    Resumed,
    Shared,
    Source,
    Status,
    Verifying,
)
from ..node.events_reach import Reachability
from .output import printable, write_out
from .rows import HEADINGS, cells, is_row
from .words import count, duration, moment, percent, rate, size

if TYPE_CHECKING:
    from .drawing import Display

CALM_SECONDS = 10.0
"""Between lines of progress where no terminal shows them live."""

MAX_FAULTS = 8
"""Reasons of faults shown; the rest is only in `--json`."""

MAX_SOURCES = 8
"""Peers shown live; the rest is counted."""


class People:
    """Renders events; use it as a context so that the live display ends cleanly."""

    def __init__(self) -> None:
        self._display: Display | None = None
        self._said_at = 0.0
        self._said_waiting: str | None = None
        self._listing = False
        """The fetches are rows of `status`; none of them is ours."""
        self._rows: list[list[str]] = []
        self._rows_of: type[Event] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._settle()
        self._show_table()

    def say(self, text: str) -> None:
        """Say a sentence, above the live display."""
        for line in text.split("\n"):
            if self._display is not None:
                self._display.say(printable(line))
            else:
                print(printable(line), file=sys.stderr, flush=True)

    def event(self, event: Event) -> None:
        """Show an event."""
        match event:
            case Progress() if self._listing:
                self._result(f"fetch      {event.path or event.cid}: {headline(event)}")
            case Progress() | Hashing() | Verifying():
                self._moving(event)
            case Shared():
                self._settle()
                took = f"{size(event.size)}, {count(event.pieces, 'piece')}"
                self.say(f"{event.name}: {took}, hashed in {duration(event.seconds)}")
                self._result(event.link)
            case Complete():
                self._settle()
                self._complete(event)
            case Failure():
                self._settle()
                from .drawing import draw_failure

                draw_failure(f"shoal: {printable(event.message)}")
            case Status():
                self._listing = True
                self._status(event)
            case _ if is_row(event):
                self._settle()
                self._row(event)
            case _ if type(event).__module__.endswith("events_simulate"):
                self._simulated(event)
            case _:
                self.say(_sentence(event))

    def _simulated(self, event: Event) -> None:
        from .render_simulate import bar_of, lines_of

        moving = bar_of(event)
        if moving is None:
            for line in lines_of(event):
                if self._display is not None:
                    self._display.say(printable(line))
                else:
                    self._result(line)
            return
        head, share = moving
        if self._display is None and share < 1.0:
            from .drawing import Display, can_move

            if not can_move():
                self.say(head)
                return
            self._display = Display()
        if share >= 1.0:
            self._settle()
        elif self._display is not None:
            self._display.show(head, share, [])

    def _row(self, event: Event) -> None:
        """Show a row: in a table on a terminal, as cells with tabs between them elsewhere."""
        if not sys.stdout.isatty() or type(event) not in HEADINGS:
            self._result("\t".join(cell.replace("\t", " ") for cell in cells(event)))
            return
        if self._rows_of is not type(event):
            self._show_table()
            self._rows_of = type(event)
        self._rows.append([printable(cell) for cell in cells(event)])

    def _show_table(self) -> None:
        if self._rows and self._rows_of is not None:
            from .drawing import draw_table

            draw_table(HEADINGS[self._rows_of], self._rows)
            self._rows = []

    def _result(self, text: str) -> None:
        """Write a line to standard output; tabs separate columns."""
        cells = "\t".join(printable(cell) for cell in text.split("\t"))
        write_out(cells.encode("utf-8", "backslashreplace") + b"\n")

    def _moving(self, event: Progress | Hashing | Verifying) -> None:
        if self._display is None:
            from .drawing import Display, can_move

            if not can_move():
                self._calm(event)
                return
            self._display = Display()
        done, total = event.done_bytes, event.total_bytes or 1
        sources = event.sources if isinstance(event, Progress) else ()
        rows = [(share, printable(name)) for name, share in _shares(sources)]
        self._display.show(printable(headline(event)), done / total, rows)

    def _calm(self, event: Progress | Hashing | Verifying) -> None:
        waiting = event.waiting if isinstance(event, Progress) else None
        # The numbers in a reason ("7 asked") change all the time; that alone is no news.
        reason = "".join(char for char in waiting or "" if not char.isdigit())
        now = time.monotonic()
        if now - self._said_at < CALM_SECONDS and reason == self._said_waiting:
            return
        self._said_at, self._said_waiting = now, reason
        self.say(headline(event))

    def _settle(self) -> None:
        """End the live display, so that lines can follow."""
        if self._display is not None:
            self._display.stop()
            self._display = None

    def _complete(self, event: Complete) -> None:
        if event.sources:
            speed = f", {rate(event.bytes / event.seconds)}" if event.seconds else ""
            self.say(f"{size(event.bytes)} in {duration(event.seconds)}{speed}, verified")
        else:
            self.say(f"{size(event.bytes)} are here already: nothing was left to fetch")
        for name, share in _shares(event.sources):
            self.say(f"  {share} from {name}")
        if event.wasted_bytes:
            self.say(f"  {size(event.wasted_bytes)} were received in vain")
        for peer in event.banned:
            self.say(f"  {peer} sent wrong bytes and is banned for a day")
        for path in event.skipped_links:
            self.say(f"  the link {path} leads out of the content and was not made (--links all)")
        self._result(event.path)

    def _status(self, event: Status) -> None:
        running = f"runs since {moment(event.started)}" if event.running else "does not run"
        lines = [
            f"node       {event.peer_id}, {running}",
            f"home       {event.home}",
            *(f"address    {addr}" for addr in event.addrs),
            f"contents   {event.contents} in {count(event.copies, 'copy', 'copies')}, "
            f"{size(event.size)}, {count(event.fetching, 'fetch', 'fetches')} under way",
        ]
        if event.running:
            lines += [
                f"peers      {event.connections} connected; DHT: {event.dht_mode or 'off'}, "
                f"{event.dht_peers or 0} known",
                f"reached    {reached(event)}",
                f"traffic    in {size(event.bytes_in)} ({rate(event.rate_in or 0)}), "
                f"out {size(event.bytes_out)} ({rate(event.rate_out or 0)})",
                f"announced  until {moment(event.announced_until)}",
            ]
        if event.relaying is not None and (event.relaying or event.relayed_bytes):
            text = f"{count(event.relaying, 'circuit')} of others, "
            text += f"{size(event.relayed_bytes or 0)} forwarded"
            if event.relay_left is not None:
                text += f", {size(event.relay_left)} left today"
            lines.append(f"relaying   {text}")
        if event.refused:
            lines.append(f"refused    to others: {_ranked(event.refused)}")
        if event.faults:
            lines.append(f"faults     of peers: {_ranked(event.faults)}")
        lines += [f"problem    {text}" for text in event.problems]
        for line in lines:
            self._result(line)


def _ranked(counts: Mapping[str, int]) -> str:
    """Return reasons and how often, the most frequent first."""
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{reason} {often}" for reason, often in ranked[:MAX_FAULTS])
    return shown + " …" * (len(ranked) > MAX_FAULTS)


def _reach(state: str | None, nat: str | None, relays: Sequence[str]) -> str:
    words = {
        "public": "others can reach us",
        "private": "only through relays, or by hole punching",
    }
    text = words.get(state or "", "not known yet whether others can reach us")
    if nat not in (None, "none", "unknown"):
        text += f"; NAT: {nat}"
    if relays:
        text += f"; places at {count(len(relays), 'relay')}"
    return text


def reached(event: Status) -> str:
    """Return how others reach the node."""
    text = _reach(event.reachability, event.nat, event.relays)
    if event.paths:
        paths = ", ".join(f"{n} {path}" for path, n in sorted(event.paths.items()))
        text += f"; connections: {paths}"
        if event.transports.get("quic"):
            text += f" ({event.transports['quic']} over QUIC)"
    return text


def headline(event: Progress | Hashing | Verifying) -> str:
    """Return one line about what moves."""
    done, total = event.done_bytes, event.total_bytes
    whole = f"{size(done)} of {size(total)}" if total is not None else size(done)
    share = f" ({percent(done, total)})" if total else ""
    match event:
        case Progress(waiting=str() as waiting):
            return f"{whole}{share}, waiting: {waiting}"
        case Progress():
            speed = f", {rate(event.rate)}" if event.rate is not None else ""
            left = f", {duration(event.eta)} left" if event.eta is not None else ""
            return f"{whole}{share}{speed}{left}, {count(event.peers, 'peer')}"
        case Hashing():
            return f"hashing {os.path.basename(event.path)}: {whole}{share}"
        case _:
            return f"verifying {event.path}: {whole}{share}"


def _shares(sources: tuple[Source, ...]) -> list[tuple[str, str]]:
    """Return who gave which share, largest first, at most `MAX_SOURCES` of them."""
    total = sum(source.bytes for source in sources)
    ranked = sorted(sources, key=lambda source: -source.bytes)
    shown = [(source.peer_id, percent(source.bytes, total)) for source in ranked[:MAX_SOURCES]]
    rest = ranked[MAX_SOURCES:]
    if rest:
        part = percent(sum(source.bytes for source in rest), total)
        shown.append((count(len(rest), "other peer"), part))
    return shown


def _sentence(event: Event) -> str:
    """Return an event that is news as a sentence."""
    match event:
        case Listening():
            reached = "".join(f"\n  {addr}" for addr in event.addrs) or " nowhere"
            return f"listening at{reached}"
        case Handed():
            return f"the running node {event.peer_id} does it"
        case Announced():
            if not event.peers:
                return "announced to nobody: no DHT peer is known; name one with --bootstrap"
            return f"announced to {count(event.peers, 'peer')}"
        case Removed():
            return f"forgot {event.path}" + (", and deleted it" if event.deleted else "")
        case Paused():
            return f"paused {event.path}"
        case Resumed():
            return f"goes on with {event.path}"
        case Lookup():
            return f"{count(event.asked, 'peer')} asked, {event.found} found"
        case Notice():
            return event.message
        case Reachability():
            return f"reached: {_reach(event.state, event.nat, event.relays)}"
        case _:
            return event.event
