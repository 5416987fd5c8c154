"""What the commands on a copy have in common: the arguments CID and PATH."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..node.link import Link
from .settings import NamedPath

F = TypeVar("F", bound=Callable[..., Any])


def copy_arguments(function: F) -> F:
    """Add CID and an optional PATH."""
    function = click.argument("path", required=False, type=NamedPath())(function)
    return click.argument("target", metavar="CID")(function)


def cid_of(target: str) -> str:
    """Return the content id of a CID or link.

    Raises:
        InvalidText: It is neither.
    """
    return str(Link.parse(target).cid)


def whole_path(path: str | None) -> str | None:
    """Return the path as the node must know it, whose current folder is another one."""
    return None if path is None else os.path.abspath(path)
