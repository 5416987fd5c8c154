"""Whom a content's swarm serves, and what a single seed shows to whom.

It drives the upload slots (`swarm/slots.py`) and super-seeding (`swarm/offers.py`): nothing of
either happens while few peers are here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ...swarm.offers import FEWEST_PIECES, MAX_PIECES, Offers
from ...swarm.slots import Slots
from ...wire.swarm import (
    CHUNK_BITS,
    Bitfield,
    BitfieldKind,
    Choke,
    Reject,
    RejectReason,
    Request,
    Unchoke,
)
from .ranges import ranges_of, runs_of

if TYPE_CHECKING:
    from .content import ContentSwarm
    from .link import Link

TICK_SECONDS = 1.0
"""How often slots and offers are looked after, while there is something to decide."""

AHEAD_SECONDS = 0.5
"""Of its rate that is queued on a stream; what is not queued can still be cancelled."""

LEAST_AHEAD = 256 << 10
MOST_AHEAD = 3 << 20
"""Bytes of pieces queued on a stream."""

EXACT_CHUNKS = 2
"""Chunks of a peer's bits (8 KiB each) that are kept exactly while we only serve."""

PACE_SECONDS = 0.25
"""How often a stream's rate is measured."""


class Dealer:
    """See the top of the file."""

    def __init__(self, swarm: ContentSwarm) -> None:
        self._swarm = swarm
        self._slots = Slots()
        self._offers: Offers | None = None
        self._asked: set[str] = set()  # who asked since the last rotation
        self._running = False

    # Links

    def joined(self, link: Link) -> None:
        """Show a new peer what we hold, or begin to offer it."""
        pieces = self._swarm.pieces or 0
        if not self._alone_with_others(link):
            if pieces and self._swarm.fetch is None:
                # Else each Have would be kept as it came, and an honest peer sends many of them.
                chunks = min(EXACT_CHUNKS, -(-pieces // CHUNK_BITS))
                link.source.bits.size_known(pieces, range(chunks))
            link.tell_bits()
            return
        if self._offers is None:
            name = f"offers {self._swarm.cid}"
            stream = self._swarm.transfers.environment.random.stream(name)
            self._offers = Offers(pieces, stream)
        link.send(Bitfield(BitfieldKind.NONE))
        link.source.bits.size_known(pieces, range(-(-pieces // CHUNK_BITS)))
        self._offers.join(link.source.name, link.source.bits, trio.current_time())
        self._offer(link)
        self._run()

    def _alone_with_others(self, link: Link) -> bool:
        """Return whether we are the only seed, and others are here that lack something."""
        swarm = self._swarm
        if swarm.fetch is not None or not FEWEST_PIECES <= (swarm.pieces or 0) <= MAX_PIECES:
            return False
        others = [other for other in swarm.links.values() if other is not link]
        if not others or any(other.source.bits.everything for other in others):
            return False
        return bool(swarm.held_bits().all())

    def left(self, link: Link) -> None:
        """Forget a peer."""
        name = link.source.name
        self._asked.discard(name)
        if self._offers is not None:
            self._offers.leave(name)
        self._unchoke(self._slots.leave(name, trio.current_time()))

    def has_more(self, link: Link) -> None:
        """A peer holds other pieces than before, or has told what it holds."""
        if len(self._slots) and not (link.upload and link.upload.waiting) and _holds_all(link):
            self._wants_nothing(link)
        if self._offers is None:
            return
        if link.source.bits.everything:
            self._show_all()  # we are not alone any more
        else:
            self._offer(link)

    def _wants_nothing(self, link: Link) -> None:
        """Give a peer's slot, or its place among those who wait, to others at once."""
        self._asked.discard(link.source.name)
        freed = self._slots.leave(link.source.name, trio.current_time())
        self._unchoke([link.source.name, *freed])  # it may ask again, like one that never did

    # Requests

    def asked(self, link: Link, request: Request) -> bool:
        """Return whether a peer's request is answered; if not, it is choked and rejected."""
        answered = self._has_slot(link, request)
        if not answered:
            link.send(Reject(request.id, RejectReason.CHOKED))
        return answered

    def _has_slot(self, link: Link, request: Request) -> bool:
        now = trio.current_time()
        name = link.source.name
        if link.choking:
            return False
        self._asked.add(name)
        if not self._slots.wants(name, now):
            self._choke(link)
            self._run()
            return False
        if self._offers is not None:
            self._offers.asked(name, request.first, request.count, now)
            self._offer(link)
        return True

    def gave(self, link: Link, count: int) -> None:
        """Count bytes that came from a peer."""
        self._slots.gave(link.source.name, count)

    def ahead(self, link: Link) -> int:
        """Return how many bytes may be queued on a link's stream."""
        now = trio.current_time()
        span = now - link.paced_at
        if span >= PACE_SECONDS:
            queued = link.stream.queued
            gone = link.sent_bytes - queued
            rate = (gone - link.paced_bytes) / span
            link.paced_at, link.paced_bytes = now, gone
            # An empty queue says nothing of the stream but that it is quicker than we are.
            wanted = int(rate * AHEAD_SECONDS) if queued else MOST_AHEAD
            link.ahead = max(LEAST_AHEAD, min(MOST_AHEAD, wanted))
        return link.ahead

    # Deciding

    def _run(self) -> None:
        if not self._running:
            self._running = True
            self._swarm.transfers.later(self._look_after)

    async def _look_after(self) -> None:
        try:
            while self._slots.crowded or self._offers is not None:
                await trio.sleep(TICK_SECONDS)
                self._rotate()
                if self._offers is not None:
                    self._go_on()
        finally:
            self._running = False

    def _go_on(self) -> None:
        """Offer more to whoever does not want what it was offered."""
        links = list(self._swarm.links.values())
        if any(_holds_all(link) for link in links) or not self._offers:
            self._show_all()
        for link in links:
            self._offer(link)

    def _rotate(self) -> None:
        idle = [
            link.source.name
            for link in self._swarm.links.values()
            if link.source.name not in self._asked and not (link.upload and link.upload.waiting)
        ]
        links = self._swarm.links.values()
        held = {link.source.name: _held(link) for link in links} if self._slots.crowded else {}
        rotated = self._slots.rotate(trio.current_time(), idle, held)
        if rotated is None:
            return
        self._asked.clear()
        choked, unchoked = rotated
        for link in self._swarm.links.values():
            if link.source.name in choked:
                self._choke(link)
        self._unchoke(unchoked)

    def _choke(self, link: Link) -> None:
        link.choking = True
        if self._offers is not None:
            self._offers.choked(link.source.name)
        link.send(Choke())
        if link.upload is not None:
            # Behind the choke: a downloader has forgotten them by then and counts no refusals.
            for request_id in link.upload.clear():
                link.send(Reject(request_id, RejectReason.CHOKED))
        link.work.set()  # its place at the gate of the limits is for others

    def _unchoke(self, names: list[str]) -> None:
        for link in self._swarm.links.values():
            if link.choking and link.source.name in names:
                link.choking = False
                self._offer(link)
                link.send(Unchoke())

    # Offering

    def _offer(self, link: Link) -> None:
        if self._offers is not None and not link.choking:
            pieces = self._offers.next(link.source.name, trio.current_time())
            if pieces:
                link.tell_have(ranges_of(sorted(pieces)))

    def _show_all(self) -> None:
        offers, self._offers = self._offers, None
        if offers is None:
            return
        for link in self._swarm.links.values():
            hidden = offers.hidden(link.source.name)
            if hidden is not None:
                link.tell_have(runs_of(hidden))


def _holds_all(link: Link) -> bool:
    """Return whether a peer is known to hold every piece."""
    bits = link.source.bits
    if bits.everything or not bits.pieces:
        return bits.everything
    return _held(link) == bits.pieces


def _held(link: Link) -> int:
    """Return how many pieces a peer holds, about; 0 if we do not follow that."""
    bits = link.source.bits
    chunks = range(-(-(bits.pieces or 0) // CHUNK_BITS))
    return sum(bits.count(number) for number in chunks)
