"""Whom a content's swarm serves, and what a single seed shows to whom.

It drives the upload slots (`slots.py`) and super-seeding (`offers.py`): nothing of either happens
while few peers are here. A plain object: frames are queued on links; `tick` is to be called
four times a second while `undecided`, and `drained` whenever bytes have left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from bitarray import bitarray

from ..wire.swarm import (
    CHUNK_BITS,
    Bitfield,
    BitfieldKind,
    Body,
    Choke,
    Have,
    NotHave,
    Range,
    Reject,
    RejectReason,
    Request,
    Unchoke,
)
from .bitfield import frames_of
from .offers import FEWEST_PIECES, MAX_PIECES, Draw, Offers
from .ranges import ranges_of, runs_of
from .slots import Slots
from .source import Source
from .uplink import Lane, Uplink
from .upload import Upload

TICK_SECONDS = 0.25
"""How often slots and offers are looked after, while there is something to decide."""

UNREAD_SECONDS = 8.0
"""A peer that takes nothing of what is sent to it for so long keeps no slot from others."""

ACCEPT_SECONDS = 0.25
ACCEPT_PART = 1 / 3
"""Somebody's turn begins when the line has only so much more to send of what it has accepted: what
it carries in that time, and this part of a piece. Whoever waits longer with a request could have
got that piece elsewhere meanwhile, and chose it with older knowledge."""

ACCEPT_PIECES = 2
"""Pieces that a peer waits for which count as accepted at most."""

MAX_RANGES = 1024
"""Ranges in one Have of ours."""

EXACT_CHUNKS = 2
"""Chunks of a peer's bits (8 KiB each) that are kept exactly while we only serve."""


class DealtLink(Protocol):
    """What is needed of a link with a peer."""

    source: Source
    upload: Upload | None
    choking: bool
    lane: Lane

    def send(self, body: Body) -> None:
        """Queue a frame."""

    def wake(self) -> None:
        """Look again at what is to be served: it has changed."""


class Dealt(Protocol):
    """What is needed of a content's swarm."""

    pieces: int | None

    @property
    def fetching(self) -> bool:
        """Whether a fetch of ours runs."""
        ...

    def held_bits(self) -> bitarray:
        """Return which pieces we hold."""
        ...

    def dealt_links(self) -> Iterable[DealtLink]:
        """Return the links whose greeting is over."""
        ...


class Dealer:
    """See the top of the file.

    Args:
        swarm: Whose pieces are dealt.
        uplink: The line that carries them.
        rate: Returns how many bytes a second we can send; None = not known, or more than enough.
        random: Returns the random source for offers.
        wake: Called when `undecided` has become true.
    """

    def __init__(
        self,
        swarm: Dealt,
        uplink: Uplink,
        rate: Callable[[], float | None],
        random: Callable[[], Draw],
        wake: Callable[[], None],
    ) -> None:
        self._swarm = swarm
        self._uplink = uplink
        self._random = random
        self._wake = wake
        self._slots = Slots()
        self._offers: Offers | None = None
        self._rate = rate
        self._piece = 0  # bytes of the longest of late

    @property
    def undecided(self) -> bool:
        """Whether `tick` is to be called."""
        return self._slots.crowded or self._offers is not None

    # Links

    def joined(self, link: DealtLink, now: float) -> None:
        """Show a new peer what we hold, or begin to offer it."""
        pieces = self._swarm.pieces or 0
        if not self._alone_with_others(link):
            if pieces and not self._swarm.fetching:
                # Else each Have would be kept as it came, and an honest peer sends many of them.
                chunks = min(EXACT_CHUNKS, -(-pieces // CHUNK_BITS))
                link.source.bits.size_known(pieces, range(chunks))
            for frame in frames_of(self._swarm.held_bits()):
                link.send(frame)
            return
        if self._offers is None:
            self._offers = Offers(pieces, self._random())
            for other in self._swarm.dealt_links():
                if other is not link:  # it was shown everything, and would choose as others do
                    other.send(NotHave(((0, pieces),)))
                    self._show(other, now)
        link.send(Bitfield(BitfieldKind.NONE))
        self._show(link, now)
        self._wake()

    def _show(self, link: DealtLink, now: float) -> None:
        """Begin to offer a peer that was told that we hold nothing."""
        assert self._offers is not None
        pieces = self._swarm.pieces or 0
        link.source.bits.size_known(pieces, range(-(-pieces // CHUNK_BITS)))
        self._offers.join(link.source.name, link.source.bits, now)
        self._offer(link, now)

    def _alone_with_others(self, link: DealtLink) -> bool:
        """Return whether we are the only seed, and others are here that lack something."""
        swarm = self._swarm
        if swarm.fetching or not FEWEST_PIECES <= (swarm.pieces or 0) <= MAX_PIECES:
            return False
        others = [other for other in swarm.dealt_links() if other is not link]
        if not others or any(other.source.bits.everything for other in others):
            return False
        return bool(swarm.held_bits().all())

    def left(self, link: DealtLink, now: float) -> None:
        """Forget a peer."""
        name = link.source.name
        if self._offers is not None:
            self._offers.leave(name)
        self._slots.leave(name)
        self._turns(now)

    def has_more(self, link: DealtLink, now: float) -> None:
        """A peer holds other pieces than before, or has told what it holds."""
        if len(self._slots) and not (link.upload and link.upload.waiting) and _holds_all(link):
            self._wants_nothing(link, now)
        if self._offers is None:
            return
        if link.source.bits.everything:
            self._show_all()  # we are not alone any more
        else:
            self._offers.grew(link.source.name, now)
            self._offer(link, now)

    def _wants_nothing(self, link: DealtLink, now: float) -> None:
        """Give a peer's slot, or its place among those who wait, to others at once."""
        self._slots.leave(link.source.name)
        self._unchoke([link.source.name], now)  # it may ask again, like one that never did
        self._turns(now)

    # Requests

    def asked(self, link: DealtLink, request: Request, now: float) -> bool:
        """Return whether a peer's request is answered; if not, it is rejected."""
        if not self._has_slot(link, request, now):
            link.send(Reject(request.id, RejectReason.CHOKED))
            return False
        if self._offers is not None:
            name = link.source.name
            if self._offers.hides(name, request.first, request.count):
                link.send(Reject(request.id, RejectReason.NOT_HELD))
                return False
            taken = self._offers.asked(name, request.first, request.count, now)
            for other in self._swarm.dealt_links() if taken else ():
                if other.source.name in taken:
                    other.send(NotHave(tuple(ranges_of(taken[other.source.name]))))
                    self._offer(other, now)
            self._offer(link, now)
        return True

    def _has_slot(self, link: DealtLink, request: Request, now: float) -> bool:
        name = link.source.name
        if link.choking:
            return False
        self._slots.measured(self._rate(), self._piece)
        if not self._slots.wants(name, now):
            self._choke(link)
            self._wake()
            return False
        return True

    def sent(self, link: DealtLink, piece: int, count: int, now: float) -> None:
        """Count a piece that was queued to a peer."""
        self._piece = max(count, self._piece * 7 // 8)
        self._slots.got(link.source.name, count, now)
        if self._offers is not None:
            self._offers.sent(link.source.name, piece)
        self._turns(now)

    def gave(self, link: DealtLink, count: int) -> None:
        """Count bytes that came from a peer."""
        self._slots.gave(link.source.name, count)

    # Deciding

    def drained(self, now: float) -> None:
        """Bytes have left: somebody's turn may begin."""
        if self._slots.crowded and not self._full(now):
            self._turns(now)

    def tick(self, now: float) -> None:
        """Decide anew, if it is time."""
        self._turns(now)
        if self._offers is not None:
            self._go_on(now)

    def _go_on(self, now: float) -> None:
        """Offer more to whoever does not want what it was offered."""
        links = list(self._swarm.dealt_links())
        if any(_holds_all(link) for link in links) or not self._offers:
            self._show_all()
        for link in links:
            self._offer(link, now)

    def _turns(self, now: float) -> None:
        """Let turns end and begin."""
        if not self._slots.crowded:
            return
        self._slots.measured(self._rate(), self._piece)
        links = list(self._swarm.dealt_links())
        busy = [link.source.name for link in links if _is_busy(link, now)]
        ours = self._swarm.held_bits() if (self._swarm.pieces or 0) <= CHUNK_BITS else None
        lacking = [link.source.name for link in links if _lacks(link, ours)]
        held = {link.source.name: _held(link) for link in links}
        full = self._full(now)
        choked, unchoked = self._slots.take_turns(now, busy, lacking, held, full=full)
        for link in links:
            if link.source.name in choked:
                self._choke(link)
        self._unchoke(unchoked, now)

    def _full(self, now: float) -> bool:
        """Return whether the line has enough to do with what was asked for already."""
        uplink, rate = self._uplink, self._rate()
        if rate is None and uplink.quick:
            return False
        load: float = uplink.load(now)
        for link in self._swarm.dealt_links():
            if link.upload and link.upload.waiting and uplink.takes(link.lane, now):
                load += min(ACCEPT_PIECES, link.upload.waiting) * self._piece
        return load > (rate * ACCEPT_SECONDS + self._piece * ACCEPT_PART if rate else 0)

    def _choke(self, link: DealtLink) -> None:
        link.choking = True
        if self._offers is not None:
            lost = self._offers.choked(link.source.name)
            if lost:
                link.send(NotHave(tuple(ranges_of(lost))))
        link.send(Choke())
        if link.upload is not None:
            # Behind the choke: then a downloader counts no refusals.
            for request_id in link.upload.clear():
                link.send(Reject(request_id, RejectReason.CHOKED))
        link.wake()  # its place at the gate of the limits is for others

    def _unchoke(self, names: list[str], now: float) -> None:
        for link in self._swarm.dealt_links():
            if link.choking and link.source.name in names:
                link.choking = False
                self._offer(link, now)
                link.send(Unchoke())

    # Offering

    def _offer(self, link: DealtLink, now: float) -> None:
        if self._offers is not None and not link.choking:
            pieces = self._offers.next(link.source.name, now)
            if pieces:
                _tell(link, ranges_of(sorted(pieces)))

    def _show_all(self) -> None:
        offers, self._offers = self._offers, None
        if offers is None:
            return
        for link in self._swarm.dealt_links():
            hidden = offers.hidden(link.source.name)
            if hidden is not None:
                _tell(link, runs_of(hidden))


def have_frames(ranges: Iterable[Range], held: bool = True) -> Iterator[Have | NotHave]:
    """Yield the frames that tell that we hold pieces, or do not any more."""
    items = list(ranges)
    for at in range(0, len(items), MAX_RANGES):
        part = tuple(items[at : at + MAX_RANGES])
        yield Have(part) if held else NotHave(part)


def _tell(link: DealtLink, ranges: Iterable[Range]) -> None:
    for frame in have_frames(ranges):
        link.send(frame)


def _holds_all(link: DealtLink) -> bool:
    """Return whether a peer is known to hold every piece."""
    bits = link.source.bits
    if bits.everything or not bits.pieces:
        return bits.everything
    return _held(link) == bits.pieces


def _is_busy(link: DealtLink, now: float) -> bool:
    """Return whether a peer has asked for something that has not left, and takes what is sent."""
    if link.lane.queued() and now >= link.lane.moved_at + UNREAD_SECONDS:
        return False
    return bool(link.upload and link.upload.waiting) or link.lane.queued() > 0


def _lacks(link: DealtLink, ours: bitarray | None) -> bool:
    """Return whether a peer lacks something that we hold (None: look at its count alone)."""
    bits = link.source.bits
    view = bits.view(0) if bits.pieces and not bits.everything else False
    if ours is not None and isinstance(view, bitarray):
        return bool((ours & ~view).any())
    return not _holds_all(link)


def _held(link: DealtLink) -> int:
    """Return how many pieces a peer holds, about; 0 if we do not follow that."""
    bits = link.source.bits
    chunks = range(-(-(bits.pieces or 0) // CHUNK_BITS))
    return sum(bits.count(number) for number in chunks)
