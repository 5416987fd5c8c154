"""What can go wrong between us and a peer, told in sentences that a user can read."""

from __future__ import annotations

from collections.abc import Sequence

from ...wire.ids import PeerId


class NetError(Exception):
    """Base of the errors of this folder."""


class ConnectionLost(NetError):
    """The connection has ended; the text says why."""


class StreamRefused(NetError):
    """The peer does not speak the protocol, or takes no more streams."""


class WrongPeer(NetError):
    """Another peer than the expected one answered at an address."""

    def __init__(self, addr: str, expected: PeerId, found: PeerId) -> None:
        super().__init__(
            f"{addr} is not {expected}: the peer there is {found}; ask its owner for the right "
            "address"
        )
        self.expected = expected
        self.found = found


class Unreachable(NetError):
    """No connection to a peer could be made; `attempts` says what each address answered."""

    def __init__(self, whom: str, attempts: Sequence[tuple[str, str]]) -> None:
        self.attempts = tuple(attempts)
        tried = "; ".join(f"{addr}: {reason}" for addr, reason in self.attempts)
        super().__init__(f"{whom} cannot be reached ({tried or 'no address of it is known'})")


class TooMany(NetError):
    """A bound of ours on connections or dials is reached."""


class Shunned(NetError):
    """The peer broke too many rules a moment ago."""
