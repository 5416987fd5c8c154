"""Table snapshots: grown here, handed to the code tier; and lookups of the model over any snapshot.

A snapshot numbers nodes as their ids were made; the model numbers them by the order of their keys.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..latency import Geography
from ..scenario.model import Latency
from ..snapshot import Snapshot, keys_of
from .growth import grow
from .ids import prefixes
from .lookup import Rules
from .network import Net, make_net
from .runs import Walks, look_up
from .tables import with_contacts, with_random_tables

MAX_WARM: Final = 20_000
"""Nodes of a snapshot that is grown: what the code tier can take."""


def snapshot(nodes: int, seed: int, k: int, *, grown: bool = True, rounds: int = 1) -> Snapshot:
    """Make a network with real keys and its tables.

    Args:
        nodes: How many.
        seed: Decides ids, joins and tables.
        k: Contacts in a bucket.
        grown: As joins leave them; else random ones.
        rounds: Rounds of upkeep behind the joins.
    """
    if grown and nodes > MAX_WARM:
        raise ValueError(f"at most {MAX_WARM} nodes are grown for a snapshot, not {nodes}")
    keys = keys_of(seed, nodes)
    words = prefixes(keys)
    order = np.argsort(words)
    net = make_net(words[order], seed, k, Latency("none"))
    if grown:
        from .living import stored

        net = stored(grow(net, seed, rounds=rounds)[0])
    else:
        net = with_random_tables(net)
    sizes = np.empty(nodes, np.int64)
    sizes[order] = np.diff(net.base)
    starts = np.zeros(nodes + 1, np.int64)
    np.cumsum(sizes, out=starts[1:])
    contacts = np.empty(len(net.contacts), np.int32)
    for number, node in enumerate(order):
        first, end = net.base[number], net.base[number + 1]
        contacts[starts[node] : starts[node + 1]] = order[net.contacts[first:end]]
    return Snapshot(seed, keys, starts, contacts)


def net_of(
    taken: Snapshot, k: int, geography: Geography | None = None
) -> tuple[Net, NDArray[np.int64]]:
    """Return a snapshot as a network of the model, and the model's number of each of its nodes.

    Args:
        taken: The snapshot.
        k: Contacts in a bucket; a fuller one is an error.
        geography: Where its nodes lie, by their numbers in the snapshot; None: no time passes.

    Raises:
        ValueError: A bucket holds more than k, or two keys agree in their first 64 bits.
    """
    words = prefixes(taken.keys)
    order = np.argsort(words)
    number_of = np.empty(len(words), np.int64)
    number_of[order] = np.arange(len(words))
    net = make_net(words[order], taken.seed, k, Latency("none"))
    owners = number_of[np.repeat(np.arange(len(words)), np.diff(taken.starts))]
    contacts = number_of[taken.contacts]
    buckets = leading_zeros_of(net.ids[owners] ^ net.ids[contacts])
    deepest = int(buckets.max(initial=0)) + 1
    place = np.lexsort((np.arange(len(owners)), buckets, owners))
    counts = np.bincount(owners * deepest + buckets, minlength=len(words) * deepest)
    if len(counts) and counts.max() > k:
        raise ValueError(f"a bucket of the snapshot holds more than k = {k} contacts")
    offsets = np.zeros((len(words), deepest + 1), np.uint16)
    np.cumsum(counts.reshape(len(words), deepest), axis=1, dtype=np.uint16, out=offsets[:, 1:])
    if geography is not None:
        where = np.array([geography.x, geography.y, geography.access], np.float64).T[order]
        still = (0.0, 0.0, 0.0, geography.constant)
        net = net._replace(place=np.ascontiguousarray(where), spread=still)
    return with_contacts(net, offsets, contacts[place].astype(np.int32)), number_of


def leading_zeros_of(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return how many leading bits of each word are zero."""
    high = (words >> np.uint64(32)).astype(np.float64)
    low = (words & np.uint64(0xFFFFFFFF)).astype(np.float64)
    # A float64 holds 32 bits exactly; its exponent is the length of the number.
    lengths = np.where(high > 0, np.frexp(high)[1] + 32, np.frexp(low)[1])
    found: NDArray[np.int64] = 64 - lengths.astype(np.int64)
    return found


def look_up_over(
    taken: Snapshot,
    rules: Rules,
    starts: NDArray[np.int64],
    targets: NDArray[np.uint8],
    geography: Geography | None = None,
) -> Walks:
    """Do lookups over a snapshot.

    Args:
        taken: The tables.
        rules: Of the lookups.
        starts: Who looks, by numbers of the snapshot.
        targets: Keys, rows of 32 bytes.
        geography: Where the nodes lie.

    Returns:
        Rows whose `nearest`, and results, are numbers of the snapshot again.
    """
    net, number_of = net_of(taken, rules.k, geography)
    node_of = np.append(np.argsort(number_of), -1)  # -1 stays -1
    done = look_up(net, rules, number_of[starts], prefixes(targets), keep_results=True)
    done.column("nearest")[:] = node_of[done.column("nearest")]
    return Walks(starts, done.targets, done.rows, done.seconds, node_of[done.results])
