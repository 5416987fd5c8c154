"""What is common to all commands: the options that every command takes, and where the home is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

STARTED = time.monotonic()
"""When the command began, near enough: this module is the first of ours to be imported."""


class NamedPath(click.Path):
    """A path that is not empty.

    `"$UNSET"` in a script comes as "", which would stand for the current folder, and that whole
    folder would be shared, or written to.
    """

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """Refuse an empty path; otherwise as `click.Path`."""
        if not os.fspath(value):
            self.fail("the path is empty; name a file or folder", param, ctx)
        return super().convert(value, param, ctx)


@dataclass
class Settings:
    """The options before the command, and those of the same name after it."""

    home_text: str | None = None
    json: bool = False
    verbose: bool = False
    started: float = field(default_factory=lambda: STARTED)

    @property
    def home(self) -> Path:
        """The home folder: the one given, or the platform's place for data."""
        if self.home_text:
            return Path(self.home_text).expanduser().absolute()
        import platformdirs

        return platformdirs.user_data_path("shoal", appauthor=False)

    @property
    def elapsed(self) -> float:
        """Seconds since the command began."""
        return time.monotonic() - self.started


def _set_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    settings = context.ensure_object(Settings)
    settings.json = settings.json or value


def _set_verbose(context: click.Context, _: click.Parameter, value: bool) -> None:
    settings = context.ensure_object(Settings)
    settings.verbose = settings.verbose or value


def _set_home(context: click.Context, _: click.Parameter, value: str | None) -> None:
    settings = context.ensure_object(Settings)
    settings.home_text = value or settings.home_text


def common_options(function: F) -> F:
    """Add `--home`, `--json` and `-v`, which stand before or after the command."""
    for option in (
        click.option(
            "-v", "--verbose", is_flag=True, expose_value=False, callback=_set_verbose,
            help="Say more; with an unexpected error, the traceback.",
        ),
        click.option(
            "--json", is_flag=True, expose_value=False, callback=_set_json,
            help="One JSON object a line on standard output (docs/events.md).",
        ),
        click.option(
            "--home", metavar="DIR", expose_value=False, callback=_set_home,
            help="The folder with the node's key and database. [default: SHOAL_HOME, or the "
            "platform's place for data]",
        ),
    ):  # fmt: skip
        function = option(function)
    return function


def node_options(function: F) -> F:
    """Add the options of a node that this command may have to run itself."""
    for option in (
        click.option(
            "--mdns/--no-mdns", default=None,
            help="Find nodes on the same network, and be found. [default: yes]",
        ),
        click.option(
            "--quic/--no-quic", default=None,
            help="Use QUIC (UDP) beside TCP. [default: yes, if it is installed]",
        ),
        click.option(
            "--port-mapping/--no-port-mapping", default=None,
            help="Ask the router to forward our port. [default: yes]",
        ),
        click.option(
            "--via", multiple=True, metavar="MA",
            help="A relay to be reached through. May be repeated.",
        ),
        click.option(
            "--dht", type=click.Choice(["auto", "server", "client"]),
            help="Answer others in the DHT, or only ask. [default: auto]",
        ),
        click.option(
            "--bootstrap", multiple=True, metavar="MA|ID",
            help="A node through which to join the DHT. May be repeated.",
        ),
        click.option(
            "--announce", multiple=True, metavar="MA",
            help="A further address to tell to others, as of a forwarded port. May be repeated.",
        ),
        click.option(
            "--listen", multiple=True, metavar="MA",
            help="An address to listen on, as /ip4/0.0.0.0/tcp/4071. May be repeated.",
        ),
    ):  # fmt: skip
        function = option(function)
    return function


def peer_option(help_text: str) -> Callable[[F], F]:
    """Add `--peer`."""
    return click.option("--peer", "peers", multiple=True, metavar="MA|ID", help=help_text)
