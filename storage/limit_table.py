"""Limits that the owner set while the node ran: kept until they are changed."""

from __future__ import annotations

from typing import Final

from ..wire.immutable import immutable
from .database import Connection

MAX_LIMITS: Final = 10_000
"""Contents with a limit of their own; further ones are refused by the node."""

NODE: Final = "node"
EACH_PEER: Final = "peer"
"""The scopes beside a content's CID as text."""


@immutable
class LimitRow:
    """What was set for one scope and direction."""

    scope: str
    """`node`, `peer` (each of them), or a CID."""
    up: bool
    rate: int | None
    """Bytes a second; None = explicitly no limit."""


class LimitTable:
    """The rows of `limits`."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def all(self) -> list[LimitRow]:
        """Return all that was set, in a fixed order."""
        rows = self._db.rows("SELECT scope, up, rate FROM limits ORDER BY scope, up DESC")
        return [LimitRow(scope, bool(up), rate) for scope, up, rate in rows]

    def set(self, row: LimitRow) -> None:
        """Keep a limit instead of the one before it."""
        self._db.run(
            "INSERT OR REPLACE INTO limits (scope, up, rate) VALUES (?, ?, ?)",
            (row.scope, int(row.up), row.rate),
        )

    def forget(self, scope: str, up: bool | None = None) -> None:
        """Forget what was set for a scope, in one direction or both."""
        if up is None:
            self._db.run("DELETE FROM limits WHERE scope = ?", (scope,))
        else:
            self._db.run("DELETE FROM limits WHERE scope = ? AND up = ?", (scope, int(up)))
