"""What a node does of its own accord to keep its place: refresh, ask the silent, expire, save.

A timetable without a clock: `due(now)` says what to do, and each job is due again one period after
it was handed out.
"""

from __future__ import annotations

from enum import Enum

from ..wire.immutable import immutable
from .keyspace import MAX_PREIMAGE_BITS, common_prefix
from .table import SUB_PREFIX_BITS, Bucket, Table

FIRST_RETRY = 5.0
"""Seconds until the first try to join again with an empty table; it doubles each time."""

MAX_RETRY = 300.0
"""Longest such pause in seconds."""

EARLY = 0.1
"""Part of a period by which a bucket may be younger and yet gets its look. A round's looks begin
one after the other, so at the next round each bucket is some seconds too young: it would be its
turn only every second time."""

JOIN_AT_ONCE = 10
"""Peers that are tried at the same time while joining."""


class Job(Enum):
    """A kind of upkeep."""

    FIND_OURSELVES = "look up our own key: it fills the nearest buckets, clients get findable"
    REFRESH = "look up keys in the buckets that nobody looked into"
    ASK_SILENT = "ask the contacts that were silent whether they live"
    EXPIRE = "drop old provider records"
    SAVE = "write down whom we know"


@immutable
class UpkeepConfig:
    """Periods in seconds."""

    refresh: float = 600.0
    """Between two refreshes of a bucket and two looks for ourselves (kad-dht specification)."""

    ask_silent: float = 60.0
    """Between two looks for silent contacts."""

    expire: float = 600.0
    """Between two sweeps of the provider records."""

    save: float = 300.0
    """Between two savings."""


@immutable
class Prefix:
    """The keys that begin with these bits."""

    value: int
    bits: int


class Upkeep:
    """When each job is due."""

    def __init__(self, now: float, config: UpkeepConfig | None = None) -> None:
        self.config = config or UpkeepConfig()
        self._periods = {
            Job.FIND_OURSELVES: self.config.refresh,
            Job.REFRESH: self.config.refresh,
            Job.ASK_SILENT: self.config.ask_silent,
            Job.EXPIRE: self.config.expire,
            Job.SAVE: self.config.save,
        }
        self._at = {job: now + period for job, period in self._periods.items()}

    def due(self, now: float) -> list[Job]:
        """Return the jobs that are due; they are due again one period from now."""
        found = [job for job, at in self._at.items() if at <= now]
        for job in found:
            self._at[job] = now + self._periods[job]
        return found

    def next_due(self) -> float:
        """Return when the next job is due."""
        return min(self._at.values())

    def hasten(self, job: Job, now: float) -> None:
        """Make a job due now."""
        self._at[job] = min(self._at[job], now)


class Rejoining:
    """When a node whose table is empty tries to join again: ever less often."""

    def __init__(self) -> None:
        self._pause = FIRST_RETRY
        self.at: float | None = None
        """When the next try is due; None = none is needed or possible."""

    def due(self, now: float, *, empty: bool, knows_anyone: bool) -> bool:
        """Return whether to try now.

        Args:
            now: Seconds on the clock of the waiting.
            empty: Whether the table is.
            knows_anyone: Whether there is somebody to join through.
        """
        if not empty:
            self._pause, self.at = FIRST_RETRY, None
        elif self.at is None:
            if knows_anyone:
                self.at = now + self._pause
        elif now >= self.at:
            self._pause, self.at = min(2 * self._pause, MAX_RETRY), None
            return True
        return False


def refresh_plan(
    table: Table, now: float, every: float, *, all_of_them: bool = False
) -> list[Prefix]:
    """Return where in the key space to look, for the buckets not looked into for `every` seconds.

    Those count that would be so old soon after this round (`EARLY`), since the next is far away.
    A full bucket gets one place. One with room gets a place in each quarter of it, since a single
    lookup would fill it with neighbours of one key (simulated: 18-20 % more hops). Our own
    bucket is left out: looking for ourselves fills it. So are buckets deeper than 15 bits.
    """
    plan: list[Prefix] = []
    for bucket in table.buckets:
        depth = table.depth(bucket)
        ours = bucket.range[0] <= int.from_bytes(table.own.key, "big") <= bucket.range[1]
        if depth > MAX_PREIMAGE_BITS or (ours and len(table.buckets) > 1):
            continue
        if not all_of_them and now - bucket.last_updated < (1.0 - EARLY) * every:
            continue
        stem = bucket.range[0] >> (256 - depth)
        if len(bucket) >= table.config.k or depth + SUB_PREFIX_BITS > MAX_PREIMAGE_BITS:
            plan.append(Prefix(stem, depth))
        else:
            plan += _quarters(bucket, stem, depth, table.config.k)
    return plan


def _quarters(bucket: Bucket, stem: int, depth: int, k: int) -> list[Prefix]:
    """Return the sub-prefixes of a bucket that hold less than their share."""
    found: list[Prefix] = []
    bits = depth + SUB_PREFIX_BITS
    for low in range(1 << SUB_PREFIX_BITS):
        prefix = stem << SUB_PREFIX_BITS | low
        start = (prefix << (256 - bits)).to_bytes(32, "big")
        held = sum(common_prefix(contact.id, start) >= bits for contact in bucket.contacts())
        if held < k >> SUB_PREFIX_BITS:
            found.append(Prefix(prefix, bits))
    return found
