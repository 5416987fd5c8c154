"""Who can reach whom behind which kind of NAT: boxes map and filter, two nodes dial at once.

There is no table of outcomes: each box does to packets what its kind does, and a connection is what
follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Final, Literal, TypeAlias, get_args

Kind: TypeAlias = Literal[
    "none", "endpoint_independent", "port_restricted", "symmetric", "blocked", "mapped"
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
"""As in `scenario.model.Nat`; none: a public address."""

Path: TypeAlias = Literal["direct", "punched", "relayed"]
Address: TypeAlias = tuple[str, int]
"""A host's public name and a port."""

LISTENING: Final = 4071
"""The port that a node listens on and dials from."""


@dataclass
class Box:
    """The NAT in front of one node: which port a packet leaves from, and which may come in."""

    name: str
    kind: Kind
    ports: Callable[[], int]
    _mapped: dict[Address | None, int] = field(default_factory=dict)
    _sent: set[tuple[int, Address]] = field(default_factory=set)

    def send(self, to: Address) -> Address:
        """Let a packet of the node out; return whom it seems to come from."""
        if self.kind in ("none", "mapped", "blocked"):
            port = LISTENING
        else:
            # A symmetric NAT takes another port for each destination.
            key = to if self.kind == "symmetric" else None
            if key not in self._mapped:
                self._mapped[key] = self.ports()
            port = self._mapped[key]
        self._sent.add((port, to))
        return self.name, port

    def lets_out(self, to: Address) -> bool:
        """Return whether a packet may leave: a firewall that blocks all lets out to services."""
        return self.kind != "blocked" or to[1] == LISTENING

    def lets_in(self, port: int, source: Address) -> bool:
        """Return whether a packet from outside to one of the box's ports reaches the node."""
        match self.kind:
            case "none" | "mapped":
                return port == LISTENING
            case "endpoint_independent":
                return port in self._mapped.values()
            case "port_restricted" | "symmetric":
                return (port, source) in self._sent
            case "blocked":
                return False


def path(getter: Kind, sharer: Kind, lost: Callable[[], bool] | None = None) -> Path:
    """Return how a getter's and a sharer's bytes travel in the end.

    Both have a connection to a relay, which tells each where it saw the other. First each dials
    what the other listens on; then both dial at once, as DCUtR has it.

    Args:
        getter: Its NAT.
        sharer: Its NAT.
        lost: Whether a packet gets lost; none unless given.
    """
    numbers = count(20_000)
    boxes = Box("getter", getter, numbers.__next__), Box("sharer", sharer, numbers.__next__)
    relay: Address = ("relay", LISTENING)
    seen = [box.send(relay) for box in boxes]
    for one, other in ((0, 1), (1, 0)):
        # The one that is dialled has not yet sent anything to the other: a stranger's dial.
        source = Box("stranger", boxes[one].kind, numbers.__next__).send(seen[other])
        leaves = boxes[one].lets_out(seen[other])
        if leaves and boxes[other].lets_in(seen[other][1], source):
            return "direct"
    sources = [boxes[0].send(seen[1]), boxes[1].send(seen[0])]
    for one, other in ((0, 1), (1, 0)):
        arrives = boxes[one].lets_out(seen[other]) and (lost is None or not lost())
        if arrives and boxes[other].lets_in(seen[other][1], sources[one]):
            return "punched"
    return "relayed"
