"""A router with one outer address and a network behind it: how it maps ports, whom it lets in.

The two questions that decide whether a hole can be punched (RFC 4787): does a place's port look the
same to everybody, or anew to each peer; and does what comes to that port from strangers pass, or
only what comes from where something was sent.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from .network import Place

Rule = Literal["endpoint-independent", "endpoint-dependent"]
"""Endpoint-dependent: for each address and port on its own (the strictest kind)."""

End = tuple[str, int]
"""An IP address and a port."""

FIRST_PORT: Final = 10_000
LAST_PORT: Final = 65_535
"""Outer ports of mappings for which the inner port is not kept."""


@dataclass(slots=True)
class _Mapping:
    place: Place
    inner: End
    sent_to: set[End] = field(default_factory=set)
    open_to_all: bool = False
    """Made by hand: it lets everybody in, whatever the filter."""


class NatBox:
    """See the top of the file; made by `Network.box`.

    Args:
        place: The box itself, with its outer address.
        mapping: Whether a port looks the same to everybody. The same keeps the inner port if it is
            free, as most boxes do; one for each peer is drawn at random.
        filtering: Whether strangers get to a port that is mapped.
        chance: Where ports come from.
    """

    def __init__(self, place: Place, mapping: Rule, filtering: Rule, chance: random.Random) -> None:
        self.place = place
        self.mapping = mapping
        self.filtering = filtering
        self.members: list[Place] = []
        """Places behind it."""
        self._chance = chance
        self._outer: dict[tuple[Place, End, End | None], int] = {}
        self._mappings: dict[int, _Mapping] = {}

    @property
    def ip(self) -> str:
        """The outer address."""
        return self.place.ips[0]

    def forward(self, port: int, place: Place, inner: End) -> None:
        """Forward a port to a place for good, as an owner does by hand."""
        self._mappings[port] = _Mapping(place, inner, open_to_all=True)
        self._outer[place, inner, None] = port

    def send(self, place: Place, inner: End, target: End) -> End:
        """Let a packet out; return the address that it comes from, as the world sees it."""
        key = (place, inner, target if self.mapping == "endpoint-dependent" else None)
        port = self._outer.get(key) or self._outer.get((place, inner, None))
        if port is None:
            port = self._outer[key] = self._new_port(inner[1])
            self._mappings[port] = _Mapping(place, inner)
        self._mappings[port].sent_to.add(target)
        return self.ip, port

    def receive(self, port: int, source: End) -> tuple[Place, End] | None:
        """Take a packet that came to an outer port; return whom it is for, None = dropped."""
        mapping = self._mappings.get(port)
        if mapping is None:
            return None
        open_to_all = mapping.open_to_all or self.filtering == "endpoint-independent"
        if not open_to_all and source not in mapping.sent_to:
            return None
        return mapping.place, mapping.inner

    def restart(self) -> None:
        """Forget all mappings but those made by hand; what ran through them breaks."""
        for port in [p for p, mapping in self._mappings.items() if not mapping.open_to_all]:
            del self._mappings[port]
        self._outer = {k: port for k, port in self._outer.items() if port in self._mappings}
        for member in self.members:
            for stream, other in list(member.streams.items()):
                if other.behind is not self:
                    stream.break_off("the router was started again")

    def _new_port(self, inner: int) -> int:
        if self.mapping == "endpoint-independent" and inner not in self._mappings:
            return inner
        while (port := self._chance.randint(FIRST_PORT, LAST_PORT)) in self._mappings:
            pass
        return port
