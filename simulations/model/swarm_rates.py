"""Max-min fair rates: every flow gets as much as it can without taking from a smaller one.

Resources are the uplinks, the downlinks and, if there is one, the site line. Progressive filling
(Bertsekas & Gallager, Data Networks, 6.5.2), with all local bottlenecks frozen in one round: a
resource whose fair share is the least among those that its flows cross keeps that share, whatever
happens elsewhere, as the shares of others only grow while smaller flows are frozen.
"""

from __future__ import annotations

import numpy as np

from .compiled import kernel
from .swarm_world import Rules, World


@kernel
def fill_rates(w: World, r: Rules, count: int) -> float:
    """Set the rates of the first `count` flows; return their sum."""
    peers = w.peer.up.shape[0]
    site = 2 * peers
    for resource in range(2 * peers + 1):
        w.resource.users[resource] = 0
    for at in range(count):
        flow = w.flow.listed[at]
        source = flow // r.slots
        w.resource.users[source] += 1
        w.resource.users[peers + w.flow.target[flow]] += 1
        if r.site > 0.0 and source < r.seeds:
            w.resource.users[site] += 1
    for peer in range(peers):
        w.resource.room[peer] = w.peer.up[peer]
        w.resource.room[peers + peer] = w.peer.down[peer]
    w.resource.room[site] = r.site
    total = 0.0
    # What is frozen goes to the end of the list, so the list stays a permutation.
    open_flows = count
    while open_flows > 0:
        for resource in range(2 * peers + 1):
            if w.resource.users[resource] > 0:
                w.resource.share[resource] = (
                    max(0.0, w.resource.room[resource]) / w.resource.users[resource]
                )
                w.resource.lowest[resource] = np.inf
        for at in range(open_flows):
            flow = w.flow.listed[at]
            source = flow // r.slots
            sink = peers + w.flow.target[flow]
            least = min(w.resource.share[source], w.resource.share[sink])
            shared = r.site > 0.0 and source < r.seeds
            if shared:
                least = min(least, w.resource.share[site])
                w.resource.lowest[site] = min(w.resource.lowest[site], least)
            w.resource.lowest[source] = min(w.resource.lowest[source], least)
            w.resource.lowest[sink] = min(w.resource.lowest[sink], least)
        at = 0
        while at < open_flows:
            flow = w.flow.listed[at]
            source = flow // r.slots
            sink = peers + w.flow.target[flow]
            shared = r.site > 0.0 and source < r.seeds
            rate = np.inf
            if w.resource.share[source] == w.resource.lowest[source]:
                rate = w.resource.share[source]
            if w.resource.share[sink] == w.resource.lowest[sink]:
                rate = min(rate, w.resource.share[sink])
            if shared and w.resource.share[site] == w.resource.lowest[site]:
                rate = min(rate, w.resource.share[site])
            if rate == np.inf:
                at += 1
                continue
            w.flow.rate[flow] = rate
            total += rate
            w.resource.room[source] -= rate
            w.resource.room[sink] -= rate
            w.resource.users[source] -= 1
            w.resource.users[sink] -= 1
            if shared:
                w.resource.room[site] -= rate
                w.resource.users[site] -= 1
            open_flows -= 1
            w.flow.listed[at] = w.flow.listed[open_flows]
            w.flow.listed[open_flows] = flow
    return total
