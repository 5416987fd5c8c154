"""The swarm of one content, seen from here: the links of its peers, what we hold, our fetch.

Serving reads from any copy that holds a piece. A fetch, if one runs, plugs in as `fetch` and is
told of what its peers say and send.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Protocol

import trio
from bitarray import bitarray
from bitarray.util import zeros

from ...storage.errors import FileChanged, FileMissing, StorageError
from ...storage.model import PIECES_PER_BLOCK, UNKNOWN_LENGTH, Copy, MissingNodes, PieceTable
from ...storage.reader import CopyReader
from ...swarm.bitfield import frame_of
from ...swarm.dealing import TICK_SECONDS, Dealer
from ...swarm.ranges import ranges_of, runs_of
from ...swarm.telling import Telling
from ...swarm.upload import Upload
from ...wire.errors import ContentRefused, PeerFault
from ...wire.ids import Cid, PeerId
from ...wire.swarm import CHUNK_BITS, Bitfield, IndexNode, PieceRun, Range, RejectReason
from ..net.stream import FileRange
from .limits import Turn
from .link import Link

if TYPE_CHECKING:
    from .transfers import Transfers

MAX_TABLES = 128
"""Piece tables kept for serving, of 48 KiB each, for each content that is being served."""

SMALL_PIECE = 64 * 1024
"""Pieces up to this length are read many at a time, before their turn to be sent comes."""

SMALL_AT_ONCE = 256
SMALL_BYTES = 1 << 20
"""Small pieces that one call in a worker thread reads, and their bytes."""

UPLINK_SECONDS = 0.5
"""How often a link that waits for the line looks again: a stream that stands wakes nobody."""

NODES_AHEAD = 512 * 1024
"""Bytes of index nodes queued on a stream."""


class Fetching(Protocol):
    """What a fetch is told; see `fetch.py`."""

    done: trio.Event

    def joined(self, link: Link) -> None: ...  # noqa: D102
    def told(self, link: Link) -> None: ...  # noqa: D102
    def left(self, link: Link) -> None: ...  # noqa: D102
    def told_again(self, link: Link, frame: Bitfield) -> None: ...  # noqa: D102
    def have(self, link: Link, ranges: Sequence[Range], held: bool) -> None: ...  # noqa: D102
    def rejected(self, link: Link, request_id: int) -> None: ...  # noqa: D102
    def choked(self, link: Link, choked: bool) -> None: ...  # noqa: D102
    def pieces_begin(self, link: Link, run: PieceRun) -> memoryview: ...  # noqa: D102
    def piece_bytes(self, link: Link, count: int) -> None: ...  # noqa: D102
    def pieces_end(self, link: Link, run: PieceRun) -> None: ...  # noqa: D102
    def node_came(self, link: Link, cid: Cid, block: bytes | None) -> None: ...  # noqa: D102
    def pass_done(self, link: Link) -> None: ...  # noqa: D102


@dataclass(slots=True)
class Holding:
    """One copy to serve from."""

    copy: Copy
    bits: bitarray
    reader: CopyReader
    unsynced: set[int] = field(default_factory=set)
    """Pieces that are written and served, and not claimed yet: a crash may lose them."""


class ContentSwarm:
    """See the top of the file."""

    def __init__(self, transfers: Transfers, cid: Cid) -> None:
        self.transfers = transfers
        self.cid = cid
        self.pieces: int | None = None
        self.links: dict[PeerId, Link] = {}
        self.fetch: Fetching | None = None
        self.holdings: dict[int, Holding] = {}
        """Copies by id, with the pieces that each holds."""
        random = transfers.environment.random
        self.dealer = Dealer(
            self,
            transfers.uplink,
            self._up_rate,
            lambda: random.stream(f"offers {cid}"),
            self._deal_on,
        )
        self._dealing = False
        self._telling = Telling()
        self._tables: OrderedDict[int, PieceTable] = OrderedDict()
        self._loading = trio.Lock()
        self.loaded = False

    # What we hold

    async def load(self) -> None:
        """Read from the store what we hold."""
        async with self._loading:
            if not self.loaded:
                await self.reload()

    async def reload(self) -> None:
        """Read again what we hold: a copy was added, finished or removed."""
        store = self.transfers.store

        def read() -> tuple[int | None, list[Holding]]:
            content = store.content(self.cid)
            if content is None or content.pieces is None:
                return None, []
            found = []
            for copy in store.copies(self.cid):
                if not copy.recheck:
                    found.append(Holding(copy, store.bits(copy.id), CopyReader(store, copy.id)))
            return content.pieces, found

        before = self.held_bits() if self.pieces is not None else None
        self.pieces, holdings = await self.transfers.blocking(read)
        for holding in holdings:
            old = self.holdings.get(holding.copy.id)
            if old is not None:
                holding.unsynced = {piece for piece in old.unsynced if not holding.bits[piece]}
                for piece in holding.unsynced:
                    holding.bits[piece] = 1
        self.holdings = {holding.copy.id: holding for holding in holdings}
        self.loaded = True
        if before is not None and self.pieces == len(before):
            now = self.held_bits()
            self._tell_changes(now & ~before, True)
            self._tell_changes(before & ~now, False)
        elif self.pieces is not None:
            # Peers were told that we hold nothing before the number of pieces was known.
            self._tell_changes(self.held_bits(), True)

    def held_bits(self) -> bitarray:
        """Return which pieces any copy of ours holds."""
        total = zeros(self.pieces or 0)
        for holding in self.holdings.values():
            total |= holding.bits
        return total

    def written(self, copy_id: int, pieces: Sequence[int]) -> None:
        """Take note that a copy holds these pieces, though not durably yet, and tell peers soon.

        Others need not wait for the sync: should these pieces be lost, they are told so.
        """
        holding = self.holdings.get(copy_id)
        if holding is None:
            return
        for piece in pieces:
            holding.bits[piece] = 1
        holding.unsynced.update(pieces)
        now = trio.current_time()
        at = self._telling.add(pieces, now)
        if at is not None and at <= now:
            self._tell(self._telling.take(now), True)
        elif at is not None:
            self.transfers.later(self._tell_at, at)

    async def _tell_at(self, at: float) -> None:
        await trio.sleep_until(at)
        self._tell(self._telling.take(trio.current_time()), True)

    def committed(self, copy_id: int, pieces: Sequence[int]) -> None:
        """Take note that a copy holds these pieces durably now, and tell peers."""
        holding = self.holdings.get(copy_id)
        if holding is None:
            return
        new = ranges_of(sorted(piece for piece in pieces if not holding.bits[piece]))
        for first, count in new:
            holding.bits[first : first + count] = 1
        holding.unsynced.difference_update(pieces)
        self._tell(new, True)

    def withdrawn(self, copy_id: int, pieces: Sequence[int]) -> None:
        """A copy has lost pieces that were written: do not serve them."""
        holding = self.holdings.get(copy_id)
        lost = [] if holding is None else sorted(holding.unsynced.intersection(pieces))
        if holding is None or not lost:
            return
        before = self.held_bits()
        for piece in lost:
            holding.bits[piece] = 0
        holding.unsynced.difference_update(lost)
        self._telling.drop(lost)
        self._tell_changes(before & ~self.held_bits(), False)

    def _tell_changes(self, changed: bitarray, held: bool) -> None:
        self._tell(list(runs_of(changed)), held)

    def _tell(self, ranges: Sequence[Range], held: bool) -> None:
        if ranges:
            for link in self.links.values():
                link.tell_have(ranges, held)

    async def _changed(self, copy_id: int, ordinal: int) -> None:
        """A file that we served is not what it was: withdraw its pieces."""
        holding = self.holdings.get(copy_id)
        if holding is None:
            return
        path = holding.copy.path
        first, count = await self.transfers.blocking(holding.reader.mark_changed, ordinal)
        before = self.held_bits()
        holding.bits[first : first + count] = 0
        gone = before & ~self.held_bits()
        self._tell_changes(gone, False)
        self.transfers.notice(
            f"a file of {path} was changed or removed since it was shared: its pieces are no "
            "longer served; share it again"
        )

    # Links

    def joined(self, link: Link) -> None:
        """Take a link whose greeting is over; of two with one peer, one stays."""
        other = self.links.get(link.peer)
        if other is not None and not other.closed.is_set():
            if self._better(other, link):
                link.greeted = True
                self.transfers.close_link(link)
                return
            self.links.pop(link.peer)
            self.dealer.left(other, trio.current_time())
            self._detach(other)
            self.transfers.close_link(other)
        self.links[link.peer] = link
        self.dealer.joined(link, trio.current_time())
        if self.fetch is not None:
            self.fetch.joined(link)
        self.transfers.serve_link(self, link)
        self.transfers.host.carries(link.connection)

    def _better(self, one: Link, other: Link) -> bool:
        """Return whether the first of two links with a peer is to stay, and not the newer one."""
        if one.connection.path is not other.connection.path and not one.connection.closed:
            return one.connection.path < other.connection.path
        own = self.transfers.host.peer_id
        preferred = "out" if own < one.peer else "in"
        both_ways = one.stream.direction != other.stream.direction
        return both_ways and one.stream.direction == preferred

    def left(self, link: Link) -> None:
        """Forget a link that has ended."""
        if self.links.get(link.peer) is link:
            del self.links[link.peer]
            self.dealer.left(link, trio.current_time())
        self._detach(link)

    def _detach(self, link: Link) -> None:
        if self.fetch is not None:
            self.fetch.left(link)

    # Dealing: see `swarm/dealing.py`

    @property
    def fetching(self) -> bool:
        """Whether a fetch of ours runs."""
        return self.fetch is not None

    def dealt_links(self) -> Iterable[Link]:
        """Return the links whose greeting is over."""
        return self.links.values()

    def _up_rate(self) -> float | None:
        """Return what we can send, by the line and the limits."""
        buckets = self.transfers.limits.up.of_content(self.cid)
        rates = [self.transfers.uplink.rate, *(bucket.rate for bucket in buckets)]
        return min((rate for rate in rates if rate is not None), default=None)

    def _deal_on(self) -> None:
        if not self._dealing:
            self._dealing = True
            self.transfers.later(self._deal)

    async def _deal(self) -> None:
        try:
            while self.dealer.undecided:
                await trio.sleep(TICK_SECONDS)
                self.dealer.tick(trio.current_time())
        finally:
            self._dealing = False

    # What links tell

    def peer_told(self, link: Link) -> None:
        """The peer's whole bitfield has come."""
        if self.fetch is not None:
            self.fetch.told(link)
        self.dealer.has_more(link, trio.current_time())

    def peer_told_again(self, link: Link, frame: Bitfield) -> None:
        """A chunk of the peer's bitfield comes again; PeerFault if it was not asked for."""
        if self.fetch is not None:
            self.fetch.told_again(link, frame)
        else:
            link.source.bits.take(frame)

    def peer_have(self, link: Link, ranges: Sequence[Range], *, held: bool) -> None:
        """The peer holds more, or less."""
        if self.fetch is not None:
            self.fetch.have(link, ranges, held)
        else:
            link.source.bits.change(ranges, held)
        self.dealer.has_more(link, trio.current_time())

    def peer_rejected(self, link: Link, request_id: int) -> None:
        """The peer will not answer a request."""
        if self.fetch is not None:
            self.fetch.rejected(link, request_id)

    def peer_choked(self, link: Link, choked: bool) -> None:
        """The peer answers no requests for now, or does again."""
        if self.fetch is not None:
            self.fetch.choked(link, choked)

    def pieces_begin(self, link: Link, run: PieceRun) -> memoryview:
        """Return the buffer for pieces; PeerFault if nobody asked for them."""
        if self.fetch is not None:
            return self.fetch.pieces_begin(link, run)
        if not link.may_come(run):
            raise PeerFault("swarm-unasked", f"piece {run.first}")
        return self.transfers.pool.scratch(sum(run.lengths))

    def piece_bytes(self, link: Link, count: int) -> None:
        """Count bytes."""
        if self.fetch is not None:
            self.fetch.piece_bytes(link, count)

    def pieces_end(self, link: Link, run: PieceRun) -> None:
        """Take pieces."""
        if self.fetch is not None:
            self.fetch.pieces_end(link, run)
            self.dealer.gave(link, sum(run.lengths))

    def node_came(self, link: Link, body: IndexNode, block: bytes) -> None:
        """Take an index node."""
        if self.fetch is not None:
            self.fetch.node_came(link, body.cid, None if body.missing else block)

    def pass_done(self, link: Link) -> None:
        """The receive pass is over."""
        if self.fetch is not None:
            self.fetch.pass_done(link)

    # Serving

    async def serve(self, link: Link) -> None:
        """Answer a link's requests until it ends."""
        limit = self.transfers.limits.up
        uplink, lane = self.transfers.uplink, link.lane
        turn = Turn(limit, self.cid, link.peer, lambda: link.work.set())

        def drained() -> None:
            uplink.look(trio.current_time())
            self.dealer.drained(trio.current_time())

        link.stream.on_drained = drained
        try:
            while not link.closed.is_set():
                link.work = trio.Event()
                if link.index_waiting:
                    await self._serve_nodes(link)
                elif link.chunks_waiting:
                    await self._serve_chunk(link)
                elif link.upload is not None and (next_one := link.upload.peek()) is not None:
                    if not uplink.may_send(lane, trio.current_time()):
                        with trio.move_on_after(UPLINK_SECONDS):
                            await link.work.wait()
                        continue
                    if not (limit.free and await self._serve_small(link, link.upload)):
                        await self._serve_piece(link, turn, *next_one)
                    if lane.granted:
                        uplink.leave(lane, trio.current_time())
                else:
                    turn.leave()
                    uplink.leave(lane, trio.current_time())
                    await link.work.wait()
        finally:
            turn.leave()
            uplink.close(lane, trio.current_time())

    async def _serve_chunk(self, link: Link) -> None:
        """Tell a chunk of our bitfield again, as it is now."""
        chunk = link.chunks_waiting.popleft()
        first = chunk * CHUNK_BITS
        bits = zeros(max(0, min(CHUNK_BITS, (self.pieces or 0) - first)))
        for holding in self.holdings.values():
            bits |= holding.bits[first : first + CHUNK_BITS]
        link.send(frame_of(bits, chunk))
        await link.stream.wait_drained(NODES_AHEAD)

    async def _serve_nodes(self, link: Link) -> None:
        cid = link.index_waiting.popleft()
        block = await self.transfers.blocking(self.transfers.store.node, cid)
        link.send_node(cid, block)
        await link.stream.wait_drained(NODES_AHEAD)

    async def _serve_small(self, link: Link, upload: Upload) -> bool:
        """Queue the small pieces that come next; False if there are none, or one is in trouble.

        A thread for each would cost more than its work, and a file for each would be kept open.
        """
        ahead = upload.ahead(SMALL_AT_ONCE)
        first = ahead[0][1]
        most = min(SMALL_BYTES, self.transfers.uplink.at_once)
        holding = next((h for h in self.holdings.values() if h.bits[first]), None)
        table = await self.table(first // PIECES_PER_BLOCK) if holding is not None else None
        if holding is None or table is None:
            return False
        wanted: list[tuple[int, int, int]] = []
        size = 0
        for _, piece in ahead:
            at = piece - table.first
            if not (0 <= at < table.count and holding.bits[piece]):
                break
            size += table.lengths[at]
            if not 0 < table.lengths[at] <= SMALL_PIECE or size > most:
                break
            wanted.append((table.files[at], table.offsets[at], table.lengths[at]))
        if len(wanted) < 2:
            return False
        try:
            found = await self.transfers.blocking_io(holding.reader.read_small, wanted)
        except (StorageError, KeyError):
            return False
        taken = list(zip(upload.take_known(ahead[: len(found)]), found, strict=False))
        if taken:
            now = trio.current_time()
            self.transfers.uplink.queue(link.lane, sum(len(data) for _, data in taken), now)
            for request_id, some in groupby(taken, key=lambda pair: pair[0][0]):
                pieces = list(some)
                link.send_pieces(request_id, pieces[0][0][1], [data for _, data in pieces])
            for (_, piece), data in taken:
                self.dealer.sent(link, piece, len(data), now)
        return bool(found)

    async def _serve_piece(self, link: Link, turn: Turn, request_id: int, piece: int) -> None:
        """Queue one piece, or reject the rest of its request; wait if a limit is reached."""
        assert link.upload is not None
        part: FileRange | None = None
        holding = next((h for h in self.holdings.values() if h.bits[piece]), None)
        if holding is not None:
            part = await self._file_range(holding, piece)
        if link.upload.peek() != (request_id, piece):
            return  # cancelled meanwhile
        if part is None:
            link.send(link.upload.refuse(RejectReason.NOT_HELD))
            return
        if not turn.may_send(part.length):
            self.transfers.uplink.leave(link.lane, trio.current_time())
            await link.work.wait()
            return
        link.upload.take()
        self.transfers.uplink.queue(link.lane, part.length, trio.current_time())
        link.send_piece(request_id, piece, part)
        self.dealer.sent(link, piece, part.length, trio.current_time())

    async def _file_range(self, holding: Holding, piece: int) -> FileRange | None:
        """Return where the piece lies in a copy; None if it is not there any more."""
        table = await self.table(piece // PIECES_PER_BLOCK)
        if table is None:
            return None
        at = piece - table.first
        if table.lengths[at] == UNKNOWN_LENGTH:
            return None
        ordinal = table.files[at]
        store, copy_id = self.transfers.store, holding.copy.id
        opened = store.open_files.get(copy_id, ordinal)
        if opened is None:
            try:
                opened = await self.transfers.blocking(holding.reader.file, ordinal)
            except (FileMissing, FileChanged, KeyError):
                await self._changed(copy_id, ordinal)
                return None
            except StorageError as error:  # the file may be as it was
                self.transfers.trouble(error)
                return None
        file, unchanged = opened
        if not unchanged():
            await self._changed(copy_id, ordinal)
            return None

        def failed(why: str) -> None:
            self.transfers.later(self._changed, copy_id, ordinal)

        return FileRange(file, table.offsets[at], table.lengths[at], unchanged, failed)

    async def table(self, block: int) -> PieceTable | None:
        """Return a piece table, from the cache or the store; None if nodes of it are missing."""
        table = self._tables.get(block)
        if table is not None:
            return table
        try:
            found = await self.transfers.blocking(self.transfers.store.piece_table, self.cid, block)
        except (ContentRefused, KeyError):
            return None
        if isinstance(found, MissingNodes):
            return None
        if found.lengths[0] == UNKNOWN_LENGTH:
            return found  # a raw root that arrives just now: soon it is known better
        self._tables[block] = found
        while len(self._tables) > MAX_TABLES:
            self._tables.popitem(last=False)
        return found
