"""The ways that lead to a peer, best first."""

from __future__ import annotations

from enum import IntEnum

from multiaddr import Multiaddr

from ...wire.addresses import Scope, is_relayed, scope_of


class Path(IntEnum):
    """How a connection reaches its peer; a better one is a smaller number."""

    LAN = 0
    """On this machine or network."""
    DIRECT = 1
    """Over the internet, to an address that can be dialled."""
    PUNCHED = 2
    """Over the internet, through two NATs that were opened at one moment."""
    RELAYED = 3
    """Through a third peer, which sees ciphertext."""

    @property
    def word(self) -> str:
        """The word for it that people and scripts see."""
        return self.name.lower()


def path_to(remote: Multiaddr) -> Path:
    """Return the kind of path that a connection with this other end is."""
    if is_relayed(remote):
        return Path.RELAYED
    near = scope_of(remote) in (Scope.LOOPBACK, Scope.PRIVATE)
    return Path.LAN if near else Path.DIRECT
