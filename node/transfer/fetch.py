"""A fetch: one copy of one content coming in, from the index to the finished file.

It drives the engine (`swarm/download.py`): tells it what peers hold and send, sends what it asks
for, verifies every piece before it is written, and says at any time how far it is and what it waits
for. Where the pieces go is `saver.py`; where peers come from is `seeking.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio
from bitarray import bitarray

from ...storage.errors import DiskFull, StorageError
from ...storage.finish import Links
from ...storage.model import UNKNOWN_LENGTH, Copy, Finished, PieceTable
from ...storage.writer import CopyWriter
from ...swarm.download import TICK_SECONDS, Download
from ...swarm.picker import Order
from ...swarm.source import Drop
from ...wire.errors import ContentRefused, PeerFault
from ...wire.ids import Cid, PeerId
from ...wire.swarm import MAX_PIECE, Bitfield, PieceRun, Range, Request
from .arrivals import Arrivals
from .blocks import BlockFeeder
from .content import ContentSwarm
from .indexing import NodeFetcher, fetch_index
from .limits import Allowance
from .link import Link
from .room import FULL_SECONDS, Room
from .saver import Arrived, Saver
from .standing import Snapshot, held_bytes, why_waiting
from .waiting import Rate

if TYPE_CHECKING:
    from .transfers import Transfers

BAN_SECONDS = 24 * 3600.0
"""How long nothing of a content is taken from a peer that sent a wrong piece of it."""


class Fetch:
    """See the top of the file; whoever runs it sets `done` behind it."""

    def __init__(
        self, transfers: Transfers, swarm: ContentSwarm, copy: Copy, links: Links = "inside"
    ) -> None:
        self.transfers = transfers
        self.swarm = swarm
        self.copy = copy
        """With what was wanted of it when the fetch began."""
        self.cid: Cid = copy.cid
        self.links_option: Links = links
        self.done = trio.Event()
        self.finished: Finished | None = None
        self.failure: Exception | None = None
        """Why it ended without the content (an error that the user is told)."""
        self.followers = 0
        """Who will be told themselves how it ends."""
        self.behind: Fetch | None = None
        """Another fetch of this content, that goes first."""
        self.successor: Fetch | None = None
        """It was stopped for this one: other files are wanted now, or another order."""
        self.replaced: trio.Event | None = None
        """Set when `successor` is known; None: it has none."""
        self._answered = False
        self._progress_at = trio.current_time()
        self.banned: set[PeerId] = set()
        self.last_bad: str | None = None
        self.indexed = False
        """The whole index is here."""
        self.engine: Download | None = None
        self.feeder: BlockFeeder | None = None
        self.total_bytes: int | None = None
        self.done_bytes = 0
        self.wasted = 0
        self.nodes = NodeFetcher(lambda: [x for x in self._adopted if x.greeted])
        self._saver: Saver | None = None
        self.room = Room(transfers, self.done)
        self.allowance: Allowance | None = None
        self._sources: dict[str, tuple[int, int]] = {}  # verified bytes and pieces
        self._rate = Rate()
        self._arrivals: Arrivals | None = None
        self._adopted: set[Link] = set()
        self._saved_some = trio.Event()
        self.loaded = trio.Event()
        """Set when it is known what is there already."""

    # Life

    async def wait_behind(self, other: Fetch) -> None:
        """Wait until another fetch of this content has ended."""
        self.behind = other
        await other.done.wait()
        self.behind = None
        self._progress_at = trio.current_time()

    async def run(self) -> None:
        """Fetch until the copy is complete or cannot be."""
        try:
            await self._run()
        except (ContentRefused, StorageError) as error:
            self.failure = error
        finally:
            if self.swarm.fetch is self:
                self.swarm.fetch = None
            for link in self._adopted:
                link.connection.fetching -= 1
            self._adopted.clear()
            if self._arrivals is not None:
                self._arrivals.close()
            if self.engine is not None:
                self.engine.close()
            if self.allowance is not None:
                self.allowance.close()

    async def _run(self) -> None:
        store, blocking = self.transfers.store, self.transfers.blocking
        now = self.transfers.environment.clock.now()
        bans = await blocking(store.peers.bans, now, self.cid)
        self.banned = {PeerId(ban.peer) for ban in bans}
        self.swarm.fetch = self
        for link in list(self.swarm.links.values()):
            self.joined(link)
        content = await blocking(store.content, self.cid)
        if content is None or not content.index_complete:
            await fetch_index(self.transfers, self.cid, self.nodes, self.wrong_node)
            content = await blocking(store.content, self.cid)
        assert content is not None
        assert content.pieces is not None
        self.indexed = True
        writer = await blocking(CopyWriter, store, self.copy.id)
        try:
            await blocking(writer.prepare)
            await blocking(writer.check_room)
            self.room.check = writer.check_room
            chosen = await blocking(store.chosen, self.copy.id)
            self.total_bytes = content.size if chosen is None else chosen.size
            bits = await blocking(store.bits, self.copy.id)
            await self.swarm.reload()
            wanted = chosen.pieces if chosen is not None else None
            await self._pieces(writer, content.pieces, bits, wanted)
            await self._finish(writer)
        finally:
            self.room.check = None
            writer.close()

    async def _pieces(
        self, writer: CopyWriter, pieces: int, bits: bitarray, wanted: bitarray | None
    ) -> None:
        """Get all wanted pieces (None = all there are), and see them claimed."""
        count = pieces if wanted is None else wanted.count()
        size = (self.total_bytes or MAX_PIECE) // max(1, count)
        random = self.transfers.environment.random.stream(f"picker {self.cid} {self.copy.id}")
        feeder = self.feeder = BlockFeeder(self)
        budget = self.allowance = Allowance(
            self.transfers.limits.down,
            self.cid,
            self.transfers.pool,
            min(size, MAX_PIECE),
            lambda: self._saved_some.set(),
        )
        order = Order(self.copy.order)
        self.engine = Download(
            pieces,
            bits,
            random,
            feeder.length,
            budget,
            order=order,
            piece_size=size,
            lengths=feeder.lengths,
        )
        if wanted is not None:
            self.engine.want(wanted)
            bits = bits & wanted
        self.done_bytes = await self.transfers.blocking(
            held_bytes, self.transfers.store, self.cid, bits
        )
        self.loaded.set()
        self._progress_at = trio.current_time()
        self._saver = Saver(
            self.transfers,
            writer,
            self._commit,
            written=lambda pieces: self.swarm.written(self.copy.id, pieces),
            saved=self._saved,
            right=self._right_later,
            wrong=self._wrong_later,
            lost=self._lost,
            freed=self.ask_all,
        )
        self._arrivals = Arrivals(self, self.engine, feeder, self._saver)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._saver.run)
            nursery.start_soon(self._feed)
            for link in list(self.swarm.links.values()):
                self._join(link)
            while not self.engine.over or self._saver.pending:
                self._tick()
                self.failure = self.failure or self._saver.failure
                if self.failure is not None:
                    break
                self._saved_some = trio.Event()
                with trio.move_on_after(TICK_SECONDS):
                    await self._saved_some.wait()
                if self.engine.over:
                    await self._saver.flush()
            nursery.cancel_scope.cancel()
        if self.failure is not None:
            raise self.failure

    async def _feed(self) -> None:
        """Run the feeder; what it refuses ends the fetch, and nothing else."""
        assert self.feeder is not None
        try:
            await self.feeder.run()
        except (ContentRefused, StorageError) as error:
            self.failure = error
            self._saved_some.set()

    def _commit(self, pieces: Sequence[int]) -> None:
        """Claim pieces (in the store's lane)."""
        store = self.transfers.store
        if self.total_bytes is None:  # a raw root has arrived: now its length is known
            store.learn_size(self.cid, self.done_bytes)
        store.set_bits(self.copy.id, pieces)

    async def _finish(self, writer: CopyWriter) -> None:
        while True:
            try:
                self.finished = await self.transfers.blocking_io(writer.finish, self.links_option)
                break
            except DiskFull as error:
                self.room.full = str(error)
                await trio.sleep(FULL_SECONDS)
        self.room.full = None
        await self.swarm.reload()

    # Peers

    def joined(self, link: Link) -> None:
        """A peer has proved that it knows the content."""
        if link.peer in self.banned:
            link.reset("banned")
            return
        self._answered = True
        if link not in self._adopted:
            self._adopted.add(link)
            link.connection.fetching += 1
        self.nodes.changed.set()

    def told(self, link: Link) -> None:
        """A peer's whole bitfield is here."""
        if self.engine is not None:
            self._join(link)

    def _join(self, link: Link) -> None:
        assert self.engine is not None
        known = link.source in self.engine.sources or link not in self._adopted
        if link.source.bits.told and not known:
            try:
                self.engine.join(link.source)
            except PeerFault as fault:
                self.transfers.blame(link, self.cid, fault)
                return
            self._ask(link)

    def left(self, link: Link) -> None:
        """A peer is gone; what it was asked for goes to others."""
        self.nodes.left(link)
        if link in self._adopted:
            self._adopted.discard(link)
            link.connection.fetching -= 1
        if self.engine is not None:
            self.engine.leave(link.source)
        if self.allowance is not None:
            self.allowance.left(link.peer)
        if self._arrivals is not None:
            self._arrivals.left(link)
        self._saved_some.set()

    def told_again(self, link: Link, frame: Bitfield) -> None:
        """A peer tells a chunk of its bitfield again."""
        if self.engine is None:
            link.source.bits.take(frame)
        else:
            self.engine.told_again(link.source, frame)

    def have(self, link: Link, ranges: Sequence[Range], held: bool) -> None:
        """A peer holds more, or less."""
        if held and not self.indexed:
            self.nodes.holds_some(link)
        if self.engine is None or not link.source.bits.told:
            link.source.bits.change(ranges, held)
        elif held:
            self.engine.have(link.source, ranges)
        else:
            self.engine.not_have(link.source, ranges)

    def rejected(self, link: Link, request_id: int) -> None:
        """A peer will not answer the rest of a request."""
        if self.engine is not None:
            self.engine.rejected(link.source, request_id, trio.current_time())

    def choked(self, link: Link, choked: bool) -> None:
        """A peer answers no requests for now, or does again."""
        if self.engine is not None:
            self.engine.choke(link.source, choked)
            if not choked:
                self._ask(link)

    def node_came(self, link: Link, cid: Cid, block: bytes | None) -> None:
        """An index node."""
        self.nodes.came(link, cid, block)

    # Asking

    def pass_done(self, link: Link) -> None:
        """All of a receive pass was taken: ask for more."""
        if self._saver is not None:
            self._saver.pass_done(trio.current_time())
        self._ask(link)

    def _ask(self, link: Link) -> None:
        engine, allowance = self.engine, self.allowance
        if engine is None or allowance is None or self.room.full is not None:
            return
        now = trio.current_time()
        allowance.asking(link.peer)
        for ask in engine.asks(link.source, now):
            link.request(Request(ask.id, ask.first, ask.count))
        allowance.asking(None)

    def ask_all(self) -> None:
        """Ask every peer for more, those first who are asked for least and have given least."""

        def load(link: Link) -> tuple[int, int]:
            return link.source.outstanding, self._sources.get(link.source.name, (0, 0))[0]

        links = [link for link in self.swarm.links.values() if link.source.bits.told]
        for link in sorted(links, key=load):
            self._ask(link)

    def _tick(self) -> None:
        """Look after late requests, idle peers, and pieces put in a pass that broke off."""
        assert self.engine is not None
        if self._saver is not None:
            self._saver.wake()
        for drop in self.engine.late(trio.current_time()):
            self.drop(drop)
        for link in list(self.swarm.links.values()):
            self._join(link)
        for question in self.engine.unknown_chunks(trio.current_time()):
            for link in self.swarm.links.values():
                if link.source is question.source:
                    link.ask_chunk(question.chunk)
        self.ask_all()

    def replan(self) -> None:
        """Ask anew: nothing has come for long."""
        now = trio.current_time()
        if self.engine is not None:
            for drop in self.engine.replan(now):
                self.drop(drop)
            self.ask_all()

    def drop(self, drop: Drop) -> None:
        """Cancel a request."""
        for link in self.swarm.links.values():
            if link.source is drop.source:
                link.drop(drop.id)

    # Receiving

    def pieces_begin(self, link: Link, run: PieceRun) -> memoryview:
        """Return the buffer for pieces.

        Raises:
            PeerFault: One was not asked for, or has another length.
        """
        if self._arrivals is None or self.allowance is None:
            raise PeerFault("swarm-unasked", f"piece {run.first}")
        self.allowance.came(sum(run.lengths))
        return self._arrivals.begin(link, run)

    def piece_bytes(self, link: Link, count: int) -> None:
        """Count bytes of a piece."""
        if self.engine is not None:
            self.engine.bytes_came(link.source, count, trio.current_time())

    def pieces_end(self, link: Link, run: PieceRun) -> None:
        """Hand whole pieces on to be verified and written."""
        if self._arrivals is not None:
            self._arrivals.end(link, run)

    def good(self, link: Link | None, first: int, count: int, size: int) -> None:
        """Pieces are right, whether they came (from a link) or were copied here."""
        assert self.engine is not None
        self.engine.verified(first, count)
        self.done_bytes += size
        self._progress_at = trio.current_time()
        self._rate.add(size, self._progress_at)
        if link is not None:
            given, pieces = self._sources.get(link.source.name, (0, 0))
            self._sources[link.source.name] = (given + size, pieces + count)

    def wrong(self, link: Link, piece: int, length: int) -> None:
        """A piece was wrong: its sender gives us nothing of this content for a day."""
        assert self.engine is not None
        if not self.engine.held[piece]:
            self.engine.failed(piece)
        self.wasted += length
        if link.peer in self.banned:
            return  # one of several wrong pieces that were looked at together
        self.last_bad = link.source.name
        self.banned.add(link.peer)
        self.transfers.ban(link.peer, self.cid, BAN_SECONDS, f"piece {piece} was wrong")

    def wrong_node(self, link: Link, fault: PeerFault) -> None:
        """An index node was wrong: as for a piece."""
        self.last_bad = link.source.name
        self.banned.add(link.peer)
        self.transfers.ban(link.peer, self.cid, BAN_SECONDS, "an index node was wrong")
        self.transfers.blame(link, self.cid, fault)

    def _right_later(self, link: Link | None, first: int, lengths: Sequence[int]) -> None:
        """The writer found pieces right that follow one another."""
        assert self.engine is not None
        if self.engine.held.find(1, first, first + len(lengths)) < 0:
            self.good(link, first, len(lengths), sum(lengths))
            return
        for piece, length in enumerate(lengths, first):
            if self.engine.held[piece]:  # it came otherwise while it was looked at
                self.wasted += length
            else:
                self.good(link, piece, 1, length)

    def _wrong_later(self, link: Link | None, piece: int, length: int) -> None:
        """The writer found a piece wrong."""
        if link is not None:
            known = link.peer in self.banned
            self.wrong(link, piece, length)
            if not known:
                self.transfers.blame(link, self.cid, PeerFault("swarm-piece-hash"))

    def copied(self, arrived: Arrived) -> None:
        """Take a verified piece that another copy of ours gave."""
        assert self._saver is not None
        assert self.engine is not None
        if not self.engine.held[arrived.table.first]:
            self.good(None, arrived.table.first, 1, len(arrived.data))
            self._saver.put(arrived)
            self._saver.wake()

    async def wait_saved(self, count: int) -> None:
        """Wait until at most `count` pieces wait to be written."""
        assert self._saver is not None
        await self._saver.wait_below(count)

    def claim_empty(self, pieces: Sequence[int]) -> None:
        """Claim pieces of length 0."""
        assert self._saver is not None
        assert self.engine is not None
        for piece in pieces:
            self.engine.verified(piece)
        self._saver.claim(pieces)

    def _saved(self, pieces: Sequence[int]) -> None:
        """Pieces are claimed durably: others may have them."""
        assert self.engine is not None
        held = self.engine.held
        for piece in [piece for piece in pieces if not held[piece]]:
            self.engine.verified(piece)  # a repeated block: written with its first occurrence
            assert self.feeder is not None
            self.done_bytes += self.feeder.known_length(piece) or 0
        if self.total_bytes is None and pieces:
            self.total_bytes = self.done_bytes
        self.swarm.committed(self.copy.id, pieces)
        self._saved_some.set()

    def _lost(self, pieces: Sequence[int], error: StorageError) -> None:
        """Pieces could not be kept: they are wanted again when there is room."""
        assert self.engine is not None
        assert self.feeder is not None
        self.swarm.withdrawn(self.copy.id, pieces)
        for piece in pieces:
            if self.engine.held[piece]:
                length = self.feeder.known_length(piece) or 0
                length = self.done_bytes if length == UNKNOWN_LENGTH else length
                self.done_bytes -= length
                self.wasted += length
            self.engine.failed(piece)
        self.feeder.lost(pieces)
        self._saved_some.set()
        if isinstance(error, DiskFull):
            self.room.missing(str(error))

    # Facts

    @property
    def answered(self) -> bool:
        """Whether some provider has proved that it knows the content."""
        return self._answered or (self.behind is not None and self.behind.answered)

    @property
    def progress_at(self) -> float:
        """When a byte was last verified, of this fetch or of the one that goes first."""
        other = self._progress_at if self.behind is None else self.behind.progress_at
        return max(self._progress_at, self.nodes.verified_at, other)

    @property
    def unwritten(self) -> bool:
        """Whether pieces that came wait to be verified and written."""
        return self._saver is not None and self._saver.pending > 0

    @property
    def waits_for_peers(self) -> bool:
        """Whether bytes are wanted of others: not of the disk, nor of another fetch."""
        preparing = self.indexed and self.engine is None
        busy = preparing or self.copying_to_disk or self.behind is not None or self.limited
        return not busy and self.room.full is None

    @property
    def limited(self) -> bool:
        """Whether nothing is under way as a limit has no room for it."""
        if self.engine is None or self.allowance is None or not self.allowance.held_back:
            return False
        return not any(source.runs for source in self.engine.sources)

    @property
    def copying_to_disk(self) -> bool:
        """Whether only the disk is waited for: all bytes are here, or all buffers are full."""
        engine = self.engine
        if engine is None:
            return False
        full = self.unwritten and self.transfers.pool.room < engine.piece_size
        return engine.all_came or full

    def block_saved(self, table: PieceTable) -> bool:
        """Return whether all that is wanted of a block is claimed durably and cannot be lost."""
        assert self.engine is not None
        holding = self.swarm.holdings.get(self.copy.id)
        bits = self.engine.held if holding is None else holding.bits
        end = table.first + table.count
        if holding is not None and any(table.first <= p < end for p in holding.unsynced):
            return False
        return not (self.engine.wanted[table.first : end] & ~bits[table.first : end]).any()

    def snapshot(self) -> Snapshot:
        """Return how far it is."""
        engine = self.engine
        rate = self._rate.value(trio.current_time())
        links = [link for link in self.swarm.links.values() if link.greeted]
        return Snapshot(
            done_bytes=self.done_bytes,
            total_bytes=self.total_bytes,
            pieces_done=engine.wanted.count() - engine.left if engine is not None else 0,
            pieces=engine.wanted.count() if engine is not None else None,
            rate=rate,
            peers=len(links),
            waiting=why_waiting(self, links, rate),
            idle=trio.current_time() - self.progress_at,
            sources=tuple(sorted(((n, *c) for n, c in self._sources.items()), key=lambda x: -x[1])),
            wasted=self.wasted,
            banned=tuple(str(peer) for peer in self.banned),
        )
