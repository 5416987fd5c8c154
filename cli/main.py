"""The command `shoal`: its options, and where each command is found.

Nothing heavy is imported before it is needed: `--help` and a mistyped option answer at once. A
command's module is imported when it is called; its one line of help stands here.
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from types import TracebackType

import click
from click.exceptions import NoArgsIsHelpError

from .settings import Settings, common_options

COMMANDS = {
    "up": "Run a node until it is stopped.",
    "share": "Share a file or folder where it lies.",
    "get": "Fetch a content, verified; run again, it goes on where it was.",
    "ls": "List the copies of this home.",
    "status": "Show the node and its fetches.",
    "peers": "List the connections.",
    "doctor": "Find out how far others can reach us, and what to do.",
    "id": "Show who this node is.",
    "rm": "Forget a copy; your data stay unless you say --delete-data.",
    "verify": "Hash the copies of a content again.",
    "pause": "Pause the fetches of a content.",
    "resume": "Go on with paused fetches.",
    "limit": "Limit the bytes a second that come and go.",
    "dht": "Look into the DHT.",
    "simulate": "Try it with thousands or millions of simulated nodes.",
}
"""Each command's line of help. `NAME` is the function `NAME_command` of the module `NAME`.

A command is added by its line here and its module.
"""


class Commands(click.Group):
    """The commands, imported one by one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f".{cmd_name}", __package__)
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was named; a mistyped one is told the nearest."""
        near = get_close_matches(args[0], COMMANDS, 1)
        if args[0] not in COMMANDS and near:
            ctx.fail(f"No such command {args[0]!r}, did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@common_options
@click.version_option(package_name="shoal", prog_name="shoal")
def root() -> None:
    """Move files of any size straight between machines, found and verified by their hash."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    An unexpected error is not caught: the hook says one sentence, Python exits with 1.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    settings = Settings(
        home_text=os.environ.get("SHOAL_HOME"), json=_asked_for(given, "SHOAL_JSON", "--json")
    )
    sys.excepthook = partial(_unexpected, settings)
    # What is imported lives on: to look for garbage in it meanwhile is a tenth of the start.
    # `Session` turns the collector on again when there is a node to talk to.
    gc.disable()
    try:
        code = root.main(given, prog_name="shoal", standalone_mode=False, obj=settings)
    except click.Abort:
        return _fail(settings, 130, "interrupted")
    except NoArgsIsHelpError as error:
        if settings.json:
            return _fail(settings, 2, "a command is missing; see: shoal --help")
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "shoal"
        return _fail(settings, 2, f"{error.format_message().rstrip('.')}; see: {where} --help")
    except click.ClickException as error:
        return _fail(settings, 2, error.format_message())
    except KeyboardInterrupt:
        return _fail(settings, 130, "interrupted")
    finally:
        gc.enable()
    return code if isinstance(code, int) else 0


def _asked_for(arguments: list[str], variable: str, flag: str) -> bool:
    """Tell whether a flag was given, before the arguments are known to be right."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return flag in options or os.environ.get(variable, "") not in ("", "0")


def _fail(settings: Settings, code: int, message: str) -> int:
    from ..node.events import Failure
    from .output import output_for

    with output_for(settings) as output:
        output.event(Failure(code, message))
    return code


def _unexpected(
    settings: Settings,
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
) -> None:
    """Say an unexpected error in one sentence (`sys.excepthook`)."""
    if settings.verbose:
        traceback.print_exception(kind, error, trace)
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    hint = "" if settings.verbose else "; run it again with -v to see where"
    _fail(settings, 1, f"something unexpected went wrong ({what}){hint}")
