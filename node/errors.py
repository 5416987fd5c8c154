"""What a user of a node can be told: one sentence and an exit code.

Each class stands for one exit code; the texts are written for the reader of a terminal: what
happened, and what to do. The errors of the folders below are turned into these in one place,
`translate`.
"""

from __future__ import annotations

from typing import ClassVar

from ..wire.errors import ContentRefused, InvalidText


class ShoalError(Exception):
    """Something failed as things do in the world; no bug. `code` is the exit code."""

    code: ClassVar[int] = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UsageError(ShoalError):
    """A link, content id, address, option or setting is wrong."""

    code = 2


class NotFound(ShoalError):
    """A content or peer was not found, or cannot be reached."""

    code = 3


class IntegrityError(ShoalError):
    """A hash does not match, or a content is refused."""

    code = 4


class DiskError(ShoalError):
    """A file is missing or unreadable, or there is no room."""

    code = 5


class Refused(ShoalError):
    """Something is busy or stands in the way: home, port, destination."""

    code = 6


class HomeInUse(Refused):
    """Another process holds the home folder."""


class NoNode(Refused):
    """No node of this home runs."""


class NodeStopped(Refused):
    """The node that did the work has ended, or hung up."""


class Interrupted(ShoalError):
    """The user stopped it."""

    code = 130


_BY_CODE: dict[int, type[ShoalError]] = {
    kind.code: kind
    for kind in (ShoalError, UsageError, NotFound, IntegrityError, DiskError, Refused, Interrupted)
}


def error_of(code: int, message: str) -> ShoalError:
    """Build the error that an `error` event stands for; an unknown code becomes 1."""
    return _BY_CODE.get(code, ShoalError)(message)


def translate(error: Exception) -> ShoalError | None:
    """Turn an error of the folders below into what the user is told; None if it is a bug."""
    # Imported here: the command line's help needs none of it.
    from ..storage.errors import HomeBusy, StorageError
    from .net.errors import NetError

    match error:
        case ShoalError():
            return error
        case InvalidText():
            return UsageError(str(error))
        case ContentRefused():
            return IntegrityError(str(error))
        case HomeBusy():
            return HomeInUse(str(error))
        case StorageError():
            return error_of(error.exit_code, str(error))
        case NetError():
            return NotFound(str(error))
        case _:
            return None


def disk_error(error: OSError, doing: str) -> ShoalError:
    """Return what the user is told of an error of the disk; `doing` reads like "writing /a/b"."""
    from ..storage.errors import storage_error

    found = storage_error(error, doing)
    return error_of(found.exit_code, str(found))


def told(error: BaseException) -> ShoalError | None:
    """Return what to tell the user of an error, also of a group in which nothing is a bug."""
    if isinstance(error, BaseExceptionGroup):
        parts = [told(part) for part in error.exceptions]
        return None if None in parts else parts[0]
    return translate(error) if isinstance(error, Exception) else None
