"""The least time in which a swarm can be done, whatever its rules (Kumar & Ross 2006).

T >= max(F / d_min, F / u(S), |L| F / (u(S) + u(L))) for a file of F bytes, seeds S, leechers L.
Here also with leechers that arrive later, and with a line between seeds and leechers.
"""

from __future__ import annotations

from collections.abc import Sequence


def least_seconds(
    size: float,
    seeds_up: float,
    leechers: Sequence[tuple[float, float, float]],
    site: float | None = None,
) -> float:
    """Return when the last leecher can have everything at the earliest.

    Args:
        size: Bytes of the content.
        seeds_up: Sum of the seeds' uplinks.
        leechers: (arrival, uplink, downlink) of each that wants the content.
        site: Rate of the line between the seeds and the leechers.
    """
    if not leechers:
        return 0.0
    ordered = sorted(leechers)
    outside = seeds_up if site is None else min(seeds_up, site)
    if outside <= 0.0:
        return float("inf")
    alone = max(arrival + size / down for arrival, _, down in ordered)
    from_seeds = ordered[0][0] + size / outside
    return max(alone, from_seeds, _together(size * len(ordered), outside, ordered))


def _together(wanted: float, outside: float, ordered: list[tuple[float, float, float]]) -> float:
    """Return when all uplinks, each from its arrival on, have sent that many bytes."""
    now, rate, sent = ordered[0][0], outside, 0.0
    for arrival, up, _ in ordered:
        by_then = sent + rate * (arrival - now)
        if by_then >= wanted:
            break
        now, sent, rate = arrival, by_then, rate + up
    return now + (wanted - sent) / rate
