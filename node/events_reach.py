"""Events about being reached: see `events.py`, where they are registered with all others."""

from __future__ import annotations

from typing import ClassVar

from ..wire.immutable import immutable
from .events import Event


@immutable
class Reachability(Event):
    """Whether others can reach us, or where, is another now."""

    event: ClassVar[str] = "reachability"
    state: str
    """public, private (only over relays, or by hole punching) or unknown."""
    nat: str | None = None
    """How our NAT maps ports: none, endpoint-independent, endpoint-dependent or unknown."""
    addrs: tuple[str, ...] = ()
    """The addresses that others are told."""
    relays: tuple[str, ...] = ()
    """Peer ids of the relays at which we have a place."""


@immutable
class Rung(Event):
    """One rung of the ladder that `doctor` climbs."""

    event: ClassVar[str] = "rung"
    name: str
    verdict: str
    """ok, warn, fail or unknown."""
    text: str
    """What was found."""
    next_step: str | None = None
    """What to do about it."""
