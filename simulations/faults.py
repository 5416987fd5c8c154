"""What goes wrong in a network: cuts, silence, resets, slow lines, crashed machines.

Bytes of a stream are late or the stream breaks; they are never lost from its middle.
"""

from __future__ import annotations

from collections.abc import Iterator

from .link import Link
from .network import Network, Place


def paths_between(network: Network, one: str, other: str) -> Iterator[tuple[Place, Place]]:
    """Yield both directions between two places."""
    first, second = network.places[one], network.places[other]
    yield first, second
    yield second, first


def set_link(network: Network, one: str, other: str, link: Link) -> None:
    """Give both directions other conditions from now on."""
    for source, target in paths_between(network, one, other):
        network.path(source, target).link = link


def set_access(
    network: Network, name: str, *, up: float | None = None, down: float | None = None
) -> None:
    """Bound what a place sends and receives, over all its streams (bytes per second)."""
    place = network.places[name]
    place.up.rate, place.down.rate = up, down


def cut(network: Network, one: str, other: str) -> None:
    """Cut two places off from each other: nothing arrives until `heal`."""
    network.note("cut", one, other)
    for source, target in paths_between(network, one, other):
        network.path(source, target).cut = True


def heal(network: Network, one: str, other: str) -> None:
    """Mend a cut: what was held back arrives, in order."""
    network.note("heal", one, other)
    for source, target in paths_between(network, one, other):
        network.release(network.path(source, target))


def silence(network: Network, name: str) -> None:
    """Cut a place off from all others: streams stay open, and nothing comes."""
    for other in network.places:
        if other != name:
            cut(network, name, other)


def rejoin(network: Network, name: str) -> None:
    """End the silence of a place."""
    for other in network.places:
        if other != name:
            heal(network, name, other)


def reset(network: Network, one: str, other: str) -> int:
    """Break all streams between two places; return how many."""
    place, target = network.places[one], network.places[other]
    broken = [stream for stream, end in place.streams.items() if end is target]
    network.note("reset", one, other, len(broken))
    for stream in broken:
        stream.break_off("connection reset by the network")
        place.streams.pop(stream, None)
    for stream in [stream for stream, end in target.streams.items() if end is place]:
        target.streams.pop(stream, None)
    return len(broken)


def move(network: Network, name: str, *ips: str) -> None:
    """Give a machine other addresses, as another Wi-Fi does; nothing tells its peers."""
    network.note("move", name, *ips)
    network.move(network.places[name], ips)


def crash(network: Network, name: str) -> None:
    """Let a machine die: its listeners are gone, its streams break at both ends."""
    network.note("crash", name)
    place = network.places[name]
    for listener in dict.fromkeys(place.listeners.values()):
        listener.close()
    for other in network.places:
        reset(network, name, other)
