"""One peer as a place to fetch from: what it holds, what it was asked for, how fast it is."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..wire.immutable import immutable
from .peer_bits import PeerBits

FIRST_QUEUE = 2
"""Pieces that a new peer is asked for at once."""

SLOWEST_RATE = 16 * 1024.0
"""Bytes a second that a peer is taken to reach at least, so that whoever drips gets late, too."""

RATE_MEMORY = 0.8
"""Weight of the past in a peer's rate, each time it is measured anew."""

RATE_SECONDS = 0.25
"""How often it is."""

SOON_SECONDS = 0.5
"""A piece of which all but so much of its rate has come makes room for the next request."""

LATE_SECONDS = 2.0
"""No request is late sooner; so long is what a peer of unknown rate is taken to need."""

SILENT_SECONDS = 1.0
SILENT_BYTES = 4 * 65536
SILENT_PIECES = 3
"""A peer that sends nothing for 1 s, or for as long as four frames or three pieces take it, while
others send is late with all that it was asked for. (A slow line sends others theirs first.)"""

FIRST_PROBE_SECONDS = 4.0
LONGEST_PROBE_SECONDS = 60.0
"""Pauses between the single pieces that a parked peer is asked for: doubling in between."""


@dataclass(eq=False, slots=True)
class Run:
    """A request under way."""

    id: int
    left: dict[int, int]
    """Pieces still to come, each with the bytes that are reserved for it."""
    due: float = 0.0
    """When it is late."""


@dataclass(eq=False, slots=True)
class Source:
    """See the top of the file."""

    name: str
    """For people and totals: its peer id."""
    bits: PeerBits = field(default_factory=PeerBits)
    tells_again: bool = False
    """It answers questions for chunks of its bitfield (feature `bitfield-request`)."""
    choked: bool = False
    runs: dict[int, Run] = field(default_factory=dict)
    queue: int = FIRST_QUEUE
    """Pieces that may be asked for at a time."""
    rate: float = 0.0
    """Bytes a second, smoothed; 0 = not known."""
    parked: bool = False
    """It was late and has delivered nothing since."""
    probe_at: float = 0.0
    """When a parked peer may be asked again, though others are at hand."""
    probe_pause: float = FIRST_PROBE_SECONDS
    last_end: int = -1
    """Piece behind its last run: going on there keeps disks and caches happy."""
    refused: dict[int, float] = field(default_factory=dict)
    """Pieces that it rejected, and until when they are not asked of it again."""
    rejects: int = 0
    """Requests rejected since its last piece."""
    paused_until: float = 0.0
    """It rejects everything: nothing is asked of it before."""
    due_from: float = -1.0
    """When it was last counted when its requests are late."""
    window_bytes: int = 0
    window_from: float = 0.0
    outstanding: int = 0
    """Pieces asked for and not arrived."""
    arriving: int = 0
    """Bytes still to come of the piece that is arriving."""
    chunks_asked: dict[int, float] = field(default_factory=dict)
    """Chunks of its bitfield that it was asked for again, and when."""

    @property
    def live(self) -> bool:
        """Whether it answers, as far as we know."""
        return not (self.choked or self.parked)

    def expected(self, count: int) -> float:
        """Return how long `count` more bytes would take, by its rate; 0 if that is not known."""
        return count / max(self.rate, SLOWEST_RATE) if self.rate else 0.0

    def patience(self, piece_size: int) -> float:
        """For how long a peer of this rate may send nothing before it is taken for silent."""
        count = max(SILENT_BYTES, SILENT_PIECES * piece_size)
        return max(SILENT_SECONDS, count / max(self.rate, SLOWEST_RATE))

    @property
    def nearly(self) -> int:
        """Pieces asked for of which little is still to come."""
        return int(self.arriving > 0 and self.arriving < self.rate * SOON_SECONDS)

    def measure(self, count: int, now: float) -> bool:
        """Count bytes that came; return whether its rate is known only now."""
        self.window_bytes += count
        self.arriving = max(0, self.arriving - count)
        span = now - self.window_from
        if span < RATE_SECONDS:
            return False
        measured = self.window_bytes / span
        old = self.rate
        self.rate = RATE_MEMORY * old + (1 - RATE_MEMORY) * measured if old else measured
        self.window_from, self.window_bytes = now, 0
        return not old

    def park(self, now: float) -> None:
        """Ask it for single pieces only, from time to time, until it delivers."""
        self.parked = True
        self.queue = FIRST_QUEUE
        self.probe_at = now + self.probe_pause
        self.probe_pause = min(2 * self.probe_pause, LONGEST_PROBE_SECONDS)

    def ask_again(self, now: float) -> None:
        """Forget until when it was to be left alone."""
        self.probe_at = min(self.probe_at, now)
        self.paused_until = 0.0
        self.refused.clear()

    def delivered(self) -> None:
        """Take note of a piece: it is alive."""
        self.parked = False
        self.rejects = 0
        self.probe_pause = FIRST_PROBE_SECONDS


@immutable
class Ask:
    """A request to send."""

    source: Source
    id: int
    first: int
    count: int


@immutable
class Drop:
    """A request to cancel."""

    source: Source
    id: int


@immutable
class AskChunk:
    """A chunk of its bitfield to be asked of a peer again."""

    source: Source
    chunk: int
