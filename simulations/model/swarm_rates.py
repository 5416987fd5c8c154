"""Max-min fair rates: every flow gets as much as it can without taking from a smaller one.

Resources are the uplinks, the downlinks and, if there is one, the site line. Progressive filling
(Bertsekas & Gallager, Data Networks, 6.5.2), with all local bottlenecks frozen in one round: a
resource whose fair share is the least among those that its flows cross keeps that share, whatever
happens elsewhere, as the shares of others only grow while smaller flows are frozen.
"""

from __future__ import annotations

import numpy as np

from .compiled import compiled
from .swarm_world import Rules, World


@compiled
def fill_rates(w: World, r: Rules, count: int) -> float:
    """Set the rates of the first `count` flows; return their sum."""
    peers = w.up.shape[0]
    site = 2 * peers
    for resource in range(2 * peers + 1):
        w.users[resource] = 0
    for at in range(count):
        flow = w.flows[at]
        source = flow // r.slots
        w.users[source] += 1
        w.users[peers + w.target[flow]] += 1
        if r.site > 0.0 and source < r.seeds:
            w.users[site] += 1
    for peer in range(peers):
        w.room[peer] = w.up[peer]
        w.room[peers + peer] = w.down[peer]
    w.room[site] = r.site
    total = 0.0
    # What is frozen goes to the end of the list, so the list stays a permutation.
    open_flows = count
    while open_flows > 0:
        for resource in range(2 * peers + 1):
            if w.users[resource] > 0:
                w.share[resource] = max(0.0, w.room[resource]) / w.users[resource]
                w.lowest[resource] = np.inf
        for at in range(open_flows):
            flow = w.flows[at]
            source = flow // r.slots
            sink = peers + w.target[flow]
            least = min(w.share[source], w.share[sink])
            shared = r.site > 0.0 and source < r.seeds
            if shared:
                least = min(least, w.share[site])
                w.lowest[site] = min(w.lowest[site], least)
            w.lowest[source] = min(w.lowest[source], least)
            w.lowest[sink] = min(w.lowest[sink], least)
        at = 0
        while at < open_flows:
            flow = w.flows[at]
            source = flow // r.slots
            sink = peers + w.target[flow]
            shared = r.site > 0.0 and source < r.seeds
            rate = np.inf
            if w.share[source] == w.lowest[source]:
                rate = w.share[source]
            if w.share[sink] == w.lowest[sink]:
                rate = min(rate, w.share[sink])
            if shared and w.share[site] == w.lowest[site]:
                rate = min(rate, w.share[site])
            if rate == np.inf:
                at += 1
                continue
            w.rate[flow] = rate
            total += rate
            w.room[source] -= rate
            w.room[sink] -= rate
            w.users[source] -= 1
            w.users[sink] -= 1
            if shared:
                w.room[site] -= rate
                w.users[site] -= 1
            open_flows -= 1
            w.flows[at] = w.flows[open_flows]
            w.flows[open_flows] = flow
    return total
