"""How a lookup begins, and what a search for providers hands out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from multiaddr import Multiaddr

from ..wire.ids import PeerId
from .keyspace import K
from .lookup import Lookup, LookupConfig
from .providers import MAX_ADDRS, Provider
from .table import Contact, Table

WALK_DEADLINE = 60.0
"""Seconds after which a walk ends with what it has."""

MAX_FOUND = 256
"""Providers handed out by one search, new addresses of a known one included."""

MAX_LOOKED_FOR = 8
"""Providers without an address that are looked for one by one when the walk is over."""


def begin(
    table: Table,
    target: bytes,
    now: float,
    config: LookupConfig,
    width: int | None = None,
) -> tuple[Lookup, list[Contact]]:
    """Begin a lookup from the nearest contacts, and return it with them.

    Args:
        table: Whom we know; it takes note that the target's bucket is looked into.
        target: The key.
        now: Seconds on the clock of the waiting.
        config: Widths and patience.
        width: How many of the nearest must have answered; None = beta, to search.
    """
    if width is not None:
        config = replace(config, k=width, enough=width)
    nearest = table.nearest(target, config.k)
    table.refreshed(target, now)
    return Lookup(target, (contact.peer for contact in nearest), table.own, config), nearest


def refresh_width(key: bytes, own: PeerId) -> int | None:
    """Return the width of a refresh that looks up what `key` hashes to.

    A look for ourselves shall know all our neighbours, one into a bucket just passes through.
    """
    return K if key == own.raw else None


class FoundProviders:
    """What one search has handed out: a provider comes again when a new address turns up."""

    def __init__(self) -> None:
        self._addrs: dict[PeerId, set[Multiaddr]] = {}
        self._given = 0

    def __len__(self) -> int:
        return len(self._addrs)

    def offer(self, peer: PeerId, addrs: Iterable[Multiaddr]) -> Provider | None:
        """Return what is to be handed out: a new provider, or a known one's new addresses."""
        known = self._addrs.get(peer)
        fresh = known is None
        if known is None:
            if len(self._addrs) >= MAX_FOUND:
                return None
            known = self._addrs[peer] = set()
        room = MAX_ADDRS - len(known)
        new = [addr for addr in dict.fromkeys(addrs) if addr not in known][:room]
        known.update(new)
        if not (fresh or new) or self._given >= MAX_FOUND:
            return None
        self._given += 1
        return Provider(peer, tuple(new))

    def without_addrs(self) -> list[PeerId]:
        """Return providers for which no address is known, at most 8."""
        return [peer for peer, addrs in self._addrs.items() if not addrs][:MAX_LOOKED_FOR]
