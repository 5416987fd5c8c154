"""A peer of a simulated swarm: the shipped download and upload rules without a node around them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from bitarray import bitarray
from bitarray.util import zeros

from ...swarm.dealing import TICK_SECONDS as DEAL_SECONDS
from ...swarm.dealing import Dealer, have_frames
from ...swarm.download import TICK_SECONDS, Download
from ...swarm.picker import Order
from ...swarm.source import Drop, Source
from ...swarm.telling import Telling
from ...swarm.uplink import Lane, Uplink
from ...swarm.upload import Upload
from ...wire.swarm import (
    Bitfield,
    Body,
    Cancel,
    Choke,
    Have,
    NotHave,
    Piece,
    Reject,
    RejectReason,
    Request,
    Unchoke,
)
from ..randomness import SeededRandom
from .events import Events
from .swarm_lines import FRAME, Line, Part, Way

POOL_BYTES: Final = 64 << 20
"""As in `node/transfer/pool.py`."""


@dataclass(frozen=True, slots=True)
class Content:
    """What is fetched: bytes that are hashed, or only their count."""

    pieces: int
    piece_bytes: int
    data: tuple[bytes, ...] = ()
    digests: tuple[bytes, ...] = ()

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self.pieces * self.piece_bytes


class Memory:
    """The budget of one peer: bytes asked for and not arrived."""

    def __init__(self) -> None:
        self.reserved = 0

    @property
    def room(self) -> int:
        """Bytes that may still be reserved."""
        return POOL_BYTES - self.reserved

    def reserve(self, count: int) -> None:
        """Take bytes."""
        self.reserved += count

    def release(self, count: int) -> None:
        """Give bytes back."""
        self.reserved -= count


class Link:
    """One end of a link: what its owner knows of the other peer, and the way there."""

    def __init__(self, owner: Peer, other: Peer) -> None:
        self.owner = owner
        self.other = other
        self.source = Source(other.name, tells_again=True)
        self.upload: Upload | None = None
        self.choking = False
        self.lane = Lane(lambda: self.way.queued, self.wake)
        self.way: Way
        self.mirror: Link

    def send(self, body: Body) -> None:
        """Queue a frame."""
        self.way.send(body)

    def wake(self) -> None:
        """Look again at what is to be served."""
        self.owner.serve(self)


class Peer:
    """See the top of the file.

    Args:
        name: Also of its random streams.
        content: What it has, or wants.
        line: Its access line.
        events: Virtual time.
        chance: Its random source.
        order: What comes first; None = it has everything.
        note: Told of what happens, for the digest.
    """

    def __init__(
        self,
        name: str,
        content: Content,
        line: Line,
        events: Events,
        chance: SeededRandom,
        order: Order | None,
        note: Callable[..., None],
    ) -> None:
        self.name = name
        self.content = content
        self.pieces: int | None = content.pieces
        self.line = line
        self.links: dict[str, Link] = {}
        self.held = zeros(content.pieces)
        """Pieces that it serves."""
        self.engine: Download | None = None
        self.brought = zeros(content.pieces)
        """Pieces that a message brought."""
        self.received = 0
        self.wasted = 0
        self.given: dict[str, int] = {}
        self.arrived_at = 0.0
        self.completed_at: float | None = None
        self.leaves = False
        """It leaves when it is done."""
        self.departed = False
        self.store: list[bytes | None] = [None] * content.pieces if content.data else []
        self._events = events
        self._chance = chance
        self._note = note
        self._memory = Memory()
        self._telling = Telling()
        self._dealing = False
        self.uplink = Uplink()
        self.dealer = Dealer(
            self,
            self.uplink,
            lambda: self.uplink.rate,
            lambda: self._stream("offers"),
            self._deal_on,
        )
        if order is None:
            self.held.setall(1)
            self.store = list(content.data)
        else:
            self.engine = Download(
                content.pieces,
                self.held,
                self._stream("picker"),
                lambda piece: content.piece_bytes,
                self._memory,
                order=order,
                piece_size=content.piece_bytes,
            )
            self.engine.know(0, content.pieces)

    def _stream(self, name: str) -> random.Random:
        return self._chance.stream(name)

    @property
    def fetching(self) -> bool:
        """Whether it still lacks something."""
        return self.engine is not None and self.completed_at is None

    def held_bits(self) -> bitarray:
        """Return what it serves."""
        return self.held

    def dealt_links(self) -> Iterable[Link]:
        """Return its links."""
        return self.links.values()

    # Life

    def begin(self) -> None:
        """Begin to fetch."""
        self.arrived_at = self._events.now
        self._events.after(TICK_SECONDS, self._tick)

    def joined(self, link: Link) -> None:
        """A greeting is over."""
        self.links[link.other.name] = link
        self.dealer.joined(link, self._events.now)

    def depart(self) -> None:
        """Leave the swarm."""
        self.departed = True
        for link in list(self.links.values()):
            link.way.close()
            link.mirror.way.close()
            link.other.lost(link.mirror)
        self.links.clear()

    def lost(self, link: Link) -> None:
        """A peer has gone."""
        if self.links.pop(link.other.name, None) is not None:
            self.dealer.left(link, self._events.now)
            self.uplink.close(link.lane, self._events.now)
            if self.engine is not None:
                self.engine.leave(link.source)

    # Receiving

    def deliver(self, link: Link, parts: list[Part]) -> None:
        """Take a segment."""
        now = self._events.now
        for part in parts:
            body = part.body
            if isinstance(body, Piece):
                self._piece(link, body, part, now)
            elif part.last:
                self._frame(link, body, now)
        self._ask(link)

    def _frame(self, link: Link, body: Body, now: float) -> None:
        source, engine = link.source, self.engine
        match body:
            case Have(ranges):
                if self.fetching and engine is not None and source.bits.told:
                    engine.have(source, ranges)
                else:
                    source.bits.change(ranges, True)
                self.dealer.has_more(link, now)
            case NotHave(ranges):
                if self.fetching and engine is not None and source.bits.told:
                    engine.not_have(source, ranges)
                else:
                    source.bits.change(ranges, False)
            case Request():
                self._requested(link, body, now)
            case Bitfield():
                source.bits.take(body)
                if source.bits.told and self.fetching and engine is not None:
                    engine.join(source)
                self.dealer.has_more(link, now)
            case Choke() | Unchoke():
                source.choked = isinstance(body, Choke)
                if self.fetching and engine is not None:
                    engine.choke(source, source.choked)
            case Reject(request_id):
                if self.fetching and engine is not None:
                    engine.rejected(source, request_id, now)
            case Cancel():
                if link.upload is not None:
                    link.upload.cancel(body)
            case _:
                raise TypeError(type(body).__name__)

    def _piece(self, link: Link, piece: Piece, part: Part, now: float) -> None:
        engine = self.engine
        if engine is None or not self.fetching:
            if part.last:
                self.received += piece.length
                self.wasted += piece.length
            return
        if part.first:
            engine.begins(link.source, piece.id, piece.index)
        engine.bytes_came(link.source, part.count - (FRAME if part.first else 0), now)
        if not part.last:
            return
        self.received += piece.length
        self.dealer.gave(link, piece.length)
        if engine.held[piece.index]:
            self.wasted += piece.length
            engine.arrived(link.source, piece.id, piece.index, now)
            return
        if not link.other.held[piece.index]:
            raise AssertionError(f"{link.other.name} sent piece {piece.index} without having it")
        self._verify(link, piece.index)
        self.brought[piece.index] = 1
        self._drop(engine.arrived(link.source, piece.id, piece.index, now))
        engine.verified(piece.index)
        self.given[link.source.name] = self.given.get(link.source.name, 0) + piece.length
        self._note(now, "piece", link.other.name, self.name, piece.index)
        self.held[piece.index] = 1
        at = self._telling.add([piece.index], now)
        if engine.over or (at is not None and at <= now):
            self._tell()
        elif at is not None:
            self._events.at(at, self._tell)

    def _verify(self, link: Link, index: int) -> None:
        if not self.content.data:
            return
        data = link.other.store[index]
        assert data is not None
        if hashlib.sha256(data).digest() != self.content.digests[index]:
            raise AssertionError(f"{link.other.name} sent a wrong piece {index}")
        self.store[index] = data

    def _tell(self) -> None:
        ranges = self._telling.take(self._events.now)
        for link in self.links.values():
            for frame in have_frames(ranges):
                link.send(frame)
        if self.engine is not None and self.engine.over and self.completed_at is None:
            self.completed_at = self._events.now
            self._note(self._events.now, "done", self.name)
            self.engine.close()
            if self.leaves:
                self._events.after(0.0, self.depart)

    # Asking

    def _ask(self, link: Link) -> None:
        if self.engine is not None and self.fetching:
            for ask in self.engine.asks(link.source, self._events.now):
                link.send(Request(ask.id, ask.first, ask.count))

    def _tick(self) -> None:
        if self.engine is None or not self.fetching:
            return
        self._drop(self.engine.late(self._events.now))

        def load(link: Link) -> tuple[int, int]:
            return link.source.outstanding, self.given.get(link.source.name, 0)

        for link in sorted(self.links.values(), key=load):
            self._ask(link)
        self._events.after(TICK_SECONDS, self._tick)

    def _drop(self, drops: Iterable[Drop]) -> None:
        for drop in drops:
            link = self.links.get(drop.source.name)
            if link is not None:
                link.send(Cancel(drop.id))

    # Serving

    def _requested(self, link: Link, request: Request, now: float) -> None:
        if link.upload is None:
            link.upload = Upload(self.content.pieces)
        if self.dealer.asked(link, request, now):
            refused = link.upload.ask(request)
            if refused is not None:
                link.send(refused)
            self.serve(link)

    def serve(self, link: Link) -> None:
        """Send what is asked for, as far as little is queued."""
        upload, now = link.upload, self._events.now
        while upload is not None and (next_one := upload.peek()) is not None:
            request_id, piece = next_one
            if not self.held[piece]:
                link.send(upload.refuse(RejectReason.NOT_HELD))
                continue
            if not self.uplink.may_send(link.lane, now):
                return
            upload.take()
            length = self.content.piece_bytes
            self.uplink.queue(link.lane, length, now)
            link.way.send(Piece(request_id, piece, length), length)
            self.dealer.sent(link, piece, length, now)
        self.uplink.leave(link.lane, now)

    def drained(self) -> None:
        """Bytes have left."""
        self.uplink.look(self._events.now)
        self.dealer.drained(self._events.now)

    # Dealing

    def _deal_on(self) -> None:
        if not self._dealing:
            self._dealing = True
            self._events.after(DEAL_SECONDS, self._deal)

    def _deal(self) -> None:
        self._dealing = self.dealer.undecided
        if self._dealing:
            self.dealer.tick(self._events.now)
            self._events.after(DEAL_SECONDS, self._deal)
