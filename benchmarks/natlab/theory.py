"""What must come of two machines that want to reach each other, from the behaviour of their NATs.

Written before anything was measured. The words are those of RFC 4787 and RFC 5382: a NAT *maps* a
port of ours to one of its own, the same for all peers (endpoint-independent) or another for each
(endpoint-dependent), and *filters* what comes in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DIRECT: Final = "direct"
MAPPED: Final = "mapped"
PUNCHED: Final = "punched"
RELAYED: Final = "relayed"

PATHS: Final = (DIRECT, MAPPED, PUNCHED, RELAYED)


@dataclass(frozen=True)
class Kind:
    """A way to be connected."""

    letter: str
    name: str
    title: str
    words: str
    """For people: what it is."""
    advice: str
    """For people: what one can do."""
    accepts: str | None = None
    """How it is when a stranger dials it: direct or mapped; None = nobody gets in."""
    same_port: bool = True
    """All peers see it at one port: that of its listener."""
    v4: bool = True
    v6: bool = False


KINDS: Final = (
    Kind(
        "a",
        "public",
        "no NAT",
        "The machine has a public address, and nothing stands before it: a rented server.",
        "Nothing is to be done. It serves others as a relay for meeting; with `shoal up --relay` "
        "it also carries their transfers.",
        accepts=DIRECT,
        v6=True,
    ),
    Kind(
        "b",
        "cone",
        "NAT that lets all in",
        'Endpoint-independent mapping and filtering ("full cone", or a router in which this '
        'machine is the "exposed host" or DMZ): whatever comes to the router\'s address is '
        "handed to the machine.",
        "Nothing is to be done: peers tell the node how they see it, tests show that the address "
        "works, and it is announced.",
        accepts=DIRECT,
    ),
    Kind(
        "c",
        "restricted",
        "home router",
        "The port is kept, and an answer is let in only from where something was sent to "
        "(address-and-port-dependent filtering). Most home routers are like this.",
        "Nothing need be done. Switching on UPnP or NAT-PMP in the router, or forwarding the "
        "port by hand, turns it into kind f, which needs no relay to meet over.",
    ),
    Kind(
        "d",
        "symmetric",
        "symmetric NAT",
        "Another random port for each connection (endpoint-dependent mapping): nobody can know "
        "at which port the next one will come out. Company networks and some mobile networks.",
        "If the other side is of kind c, d, e or h a relay that carries transfers is needed: "
        "`shoal up --relay` on any machine that both reach, and `--via ADDRESS` where you share.",
        same_port=False,
    ),
    Kind(
        "e",
        "double",
        "two NATs in a row",
        "A home router behind the provider's NAT (carrier-grade NAT, 100.64.0.0/10), both as in c.",
        "Nothing need be done if both keep ports. A port mapping in the home router is of no use "
        "(`shoal doctor` says so); IPv6, or a public IPv4 address from the provider, is.",
    ),
    Kind(
        "f",
        "upnp",
        "router that maps ports",
        "As c, and the router forwards a port when it is asked to (PCP, NAT-PMP or UPnP).",
        "Nothing is to be done: the node asks, renews, and takes the mapping back when it ends.",
        accepts=MAPPED,
    ),
    Kind(
        "g",
        "ipv6",
        "IPv6 only",
        "A global IPv6 address and no IPv4 at all.",
        "It meets IPv4-only peers through a relay that has both. With many of those, run such a "
        "relay yourself: `shoal up --relay` on a machine with both, `--via ADDRESS` here.",
        accepts=DIRECT,
        v4=False,
        v6=True,
    ),
    Kind(
        "h",
        "firewall",
        "firewall",
        "A public address, and a firewall that lets nothing in that was not asked for.",
        "Nothing need be done: it behaves as c. Opening the node's TCP port turns it into a.",
    ),
)


def kind_of(name: str) -> Kind:
    """Return the kind of this name."""
    return next(kind for kind in KINDS if kind.name == name)


def expected(getter: Kind, sharer: Kind) -> tuple[str, str]:
    """Return the path that a `get` must end up with, and why.

    Who accepts strangers is dialled: the sharer at an address that it announces, or else the
    getter, once both have met at a relay (the sharer then dials back).
    """
    if not (getter.v4 and sharer.v4) and not (getter.v6 and sharer.v6):
        return RELAYED, "they have no IP version in common"
    if sharer.accepts is not None:
        return sharer.accepts, "the sharer can be dialled"
    if getter.accepts is not None:
        return getter.accepts, "they meet at a relay, then the sharer dials the getter"
    if getter.same_port and sharer.same_port:
        return PUNCHED, "each is seen at one port, so both dial each other at one moment"
    return (
        RELAYED,
        "one comes out at a port that the other cannot know, and that one lets in "
        "only whom it dialled",
    )


def possible(getter: Kind, sharer: Kind) -> tuple[str, ...]:
    """Return the paths that do not contradict theory, the expected one first.

    Where both accept strangers they may be connected already: then it is whom the other had dialled
    that decides, for the DHT as a rule.
    """
    path, _ = expected(getter, sharer)
    both = getter.accepts is not None and sharer.accepts is not None and path != RELAYED
    return (path, *({str(getter.accepts)} - {path})) if both else (path,)
