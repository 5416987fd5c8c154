"""The ladder from a cable to a stranger's connection: what holds, what does not, what to do.

Each rung is judged from what the node knows by then; nothing here waits or dials.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from multiaddr import Multiaddr

from ...wire.addresses import Scope, is_quic, place_of, scope_of
from ..events_reach import Rung
from ..net.paths import Path
from .observed import CONFIRMED_GROUPS

if TYPE_CHECKING:
    from .mdns import MdnsState
    from .nat import Nat
    from .portmap.state import PortMapState

OK: Final = "ok"
WARN: Final = "warn"
FAIL: Final = "fail"
UNKNOWN: Final = "unknown"

RELAY_HINT: Final = (
    "run `shoal up --relay` on a machine that others can reach, and name it here with --via"
)


@dataclass(frozen=True)
class Facts:
    """What the ladder is judged by."""

    listening: Sequence[Multiaddr]
    nat: Nat
    mdns: MdnsState | None
    """None: it is switched off, or there is no network for it."""
    mapping: PortMapState | None
    """None: nobody asks the router."""
    paths: Counter[Path]
    """Connections by path."""
    dht_peers: int
    quic: bool | None = None
    """Whether QUIC is in use; None = its library is missing."""
    by_quic: int = 0
    """Connections over QUIC."""


def climb(facts: Facts) -> list[Rung]:
    """Return all rungs, the lowest first."""
    return [
        _interfaces(facts),
        _lan(facts),
        _quic(facts),
        _peers(facts),
        _port_mapping(facts),
        _observed(facts),
        _reachability(facts),
        _nat_kind(facts),
        _relays(facts),
        _punching(facts),
    ]


def _interfaces(facts: Facts) -> Rung:
    by_scope = Counter(scope_of(addr) for addr in facts.listening)
    shown = ", ".join(_short(facts.listening))
    if by_scope[Scope.GLOBAL]:
        text = f"listens on {shown}; a global address is among them"
        return Rung("interfaces", OK, text)
    if by_scope[Scope.PRIVATE]:
        return Rung("interfaces", OK, f"listens on {shown}: addresses of a local network")
    if facts.listening:
        text = f"listens on {shown}: only programs of this machine get there"
        return Rung("interfaces", FAIL, text, "connect to a network, or check --listen")
    return Rung("interfaces", FAIL, "listens nowhere", "check --listen")


def _lan(facts: Facts) -> Rung:
    near = facts.paths[Path.LAN]
    if facts.mdns is None:
        hint = "leave out --no-mdns to find neighbours by themselves"
        return Rung("local network", WARN, "LAN discovery is switched off", hint)
    text = f"{facts.mdns.verdict}; {_count(near, 'connection')} within it"
    if facts.mdns.reach:
        return Rung("local network", OK, text)
    hint = "check that the firewall of this machine lets multicast to UDP port 5353 pass"
    return Rung("local network", WARN, text, hint)


def _quic(facts: Facts) -> Rung:
    if facts.quic is None:
        hint = "pip install 'shoal[quic]': some routers let UDP through where they stop TCP"
        return Rung("QUIC", WARN, "is not installed: TCP is all there is", hint)
    if not facts.quic:
        return Rung("QUIC", WARN, "is switched off: TCP is all there is", "leave out --no-quic")
    listening = _short(addr for addr in facts.listening if is_quic(addr))
    text = f"{_count(facts.by_quic, 'connection')} over it"
    if not listening:
        hint = "name an address of it as well, as --listen /ip4/0.0.0.0/udp/4071/quic-v1"
        return Rung("QUIC", WARN, f"listens nowhere; {text}", hint)
    return Rung("QUIC", OK, f"listens beside TCP; {text}")


def _peers(facts: Facts) -> Rung:
    far = sum(facts.paths.values()) - facts.paths[Path.LAN]
    text = f"{_count(far, 'connection')} beyond it, {_count(facts.dht_peers, 'node')} of the DHT"
    if far:
        return Rung("peers", OK, text)
    hint = "name a node of the network with --bootstrap: without peers nothing below can be tested"
    return Rung("peers", FAIL, text, hint)


def _port_mapping(facts: Facts) -> Rung:
    state = facts.mapping
    if state is None:
        hint = "leave out --no-port-mapping to ask the router"
        return Rung("port mapping", WARN, "no router is asked", hint)
    said = "; ".join(dict.fromkeys(v.sentence.rstrip(".") for v in state.verdicts))
    if state.public_addrs:
        text = f"{state.via} works: {', '.join(_short(state.public_addrs))} leads here"
        return Rung("port mapping", OK, text)
    if state.external_is_private:
        text = "the router forwards to us, but its own address is private: a second NAT lies behind"
        hint = "ask the provider for an address of your own, or for IPv6"
        return Rung("port mapping", WARN, text, hint)
    if any(scope_of(addr) is Scope.GLOBAL for addr in facts.listening):
        return Rung("port mapping", OK, said or "not needed: we have a global address")
    hint = "switch on UPnP or NAT-PMP in the router, or forward the port there by hand"
    return Rung("port mapping", WARN, said or "no router has answered yet", hint)


def _observed(facts: Facts) -> Rung:
    groups = facts.nat.observations.groups()
    if groups:
        addr, most = next(iter(groups.items()))
        text = f"peers see us at {', '.join(_short(groups))}; {_short([addr])[0]} in "
        text += _count(most, "network")
        if most >= CONFIRMED_GROUPS:
            return Rung("observed addresses", OK, text)
        hint = f"it counts when peers in {CONFIRMED_GROUPS} networks agree: connect to more"
        return Rung("observed addresses", WARN, text, hint)
    ips = facts.nat.observations.ips()
    if ips:
        text = f"peers see us at {', '.join(ips)}, but at ports that say nothing"
        return Rung("observed addresses", WARN, text)
    return Rung("observed addresses", UNKNOWN, "no peer has said how it sees us")


def _reachability(facts: Facts) -> Rung:
    tested = facts.nat.tests.tested()
    shown = "; ".join(
        f"{_short([addr])[0]} {_VERDICTS[verdict]}" for addr, verdict in tested.items()
    )
    match facts.nat.reachability:
        case "public":
            return Rung("reachability", OK, f"others can reach us: {shown or 'so they say'}")
        case "private":
            hint = "forward the port in the router, or rely on the rungs below"
            text = f"nobody can reach us directly: {shown or 'so peers say'}"
            return Rung("reachability", WARN, text, hint)
    hint = "peers that test addresses (AutoNAT) are needed: any shoal node that others can reach"
    return Rung("reachability", UNKNOWN, f"not tested yet{': ' + shown if shown else ''}", hint)


_VERDICTS = {"public": "can be reached", "private": "cannot be reached", "unknown": "is untested"}


def _nat_kind(facts: Facts) -> Rung:
    match facts.nat.mapping:
        case "none":
            return Rung("NAT", OK, "there is none")
        case "endpoint-independent":
            return Rung("NAT", OK, "it maps our port the same for all peers: holes can be punched")
        case "endpoint-dependent":
            text = "it maps our port anew for each peer: holes can only be punched to peers whose "
            text += "NAT lets anybody in"
            return Rung("NAT", WARN, text, f"forward the port in the router, or {RELAY_HINT}")
    return Rung("NAT", UNKNOWN, "peers in two networks at least must tell how they see us")


def _relays(facts: Facts) -> Rung:
    places = facts.nat.keeper.places()
    own = facts.nat.relay
    if own is not None and own.policy.limit is None:
        has = own.statistics()
        text = f"this is a relay that carries content: {_count(has.places, 'place')} taken, "
        text += f"{_count(has.circuits, 'circuit')}"
        if own.left_today is not None:
            text += f", {own.left_today / 1e9:.1f} GB left today"
        if facts.nat.reachability != "private":
            return Rung("relays", OK, text)
        hint = "forward its port in the router: who cannot reach it gets no place there"
        return Rung("relays", WARN, text, hint)
    if places:
        carrying = _carrying(facts)
        text = f"places at {len(places)} relays; {carrying or 'none'} of them "
        text += f"carr{'y' if carrying > 1 else 'ies'} content"
        if len(places) == 1:
            text = f"a place at one relay, which carries {'' if carrying else 'no '}content"
        if carrying:
            return Rung("relays", OK, text)
        return Rung(
            "relays", OK, text, f"to fall back on when no hole can be punched, {RELAY_HINT}"
        )
    if facts.nat.reachability == "public":
        return Rung("relays", OK, "none are needed")
    failures = list(facts.nat.keeper.failures().values())
    text = failures[-1] if failures else "no relay is known"
    return Rung("relays", WARN, text, f"connect to more peers, or {RELAY_HINT}")


def _carrying(facts: Facts) -> int:
    """Return how many relays carry content to us."""
    return sum(place.carries for place in facts.nat.keeper.places())


def _punching(facts: Facts) -> Rung:
    outcomes = list(facts.nat.puncher.outcomes.values())
    good = sum(outcome.path is not None for outcome in outcomes)
    if good:
        text = f"worked with {good} of {_count(len(outcomes), 'peer')}"
        return Rung("hole punching", OK, text)
    if outcomes:
        text = f"failed with {_count(len(outcomes), 'peer')}: {outcomes[-1].text}"
        if _carrying(facts):
            return Rung("hole punching", OK, f"{text}; a relay carries content instead")
        return Rung("hole punching", WARN, text, f"to be reached all the same, {RELAY_HINT}")
    if facts.nat.reachability == "public":
        return Rung("hole punching", OK, "is not needed")
    if facts.nat.mapping == "endpoint-independent":
        return Rung("hole punching", OK, "was not tried yet, and should work with this NAT")
    return Rung("hole punching", UNKNOWN, "was not tried yet: no peer came over a relay")


def _short(addrs: Iterable[Multiaddr]) -> list[str]:
    found = []
    for addr in addrs:
        pair = place_of(addr)
        if pair is None:
            found.append(str(addr))
        else:
            host = f"[{pair[0]}]" if ":" in pair[0] else pair[0]
            found.append(f"{host}:{pair[1]}{' (QUIC)' if is_quic(addr) else ''}")
    return found


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
