"""AutoNAT, both sides: asking peers to dial our addresses, and dialling theirs when they ask."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Final

import trio
from multiaddr import Multiaddr

from ...wire.addresses import Scope, ip_of, is_quic, is_relayed, place_of, scope_of
from ...wire.autonat import (
    DIAL_BACK,
    DIAL_REQUEST,
    LEAST_PRICE,
    MAX_BACK_MESSAGE,
    MAX_DATA,
    MAX_MESSAGE,
    MOST_PRICE,
    PROTOCOL_V1,
    AnswerV1,
    DataPart,
    DataRequest,
    DialRequest,
    DialResponse,
    DialStatus,
    DialV1,
    ResponseStatus,
    StatusV1,
    decode_back,
    decode_back_answer,
    decode_v1,
    decode_v2,
    encode_back,
    encode_back_answer,
    encode_v1,
    encode_v2,
)
from ...wire.errors import PeerFault
from ...wire.ids import PeerId
from ..net.connection import Connection
from ..net.errors import NetError, TooMany
from ..net.host import Host
from ..net.paths import Path
from ..net.stream import Stream
from .circuit import read_message, send_message

STREAM_SECONDS: Final = 30.0
"""For a whole request (go: 15 s, and a dial of 10 s)."""

DIAL_SECONDS: Final = 10.0
BACK_SECONDS: Final = 5.0
"""For what is said on a connection that was dialled back (go)."""

MAX_WAIT: Final = 3.0
"""Random pause in seconds before a dial that was paid for (specification)."""

MAX_REQUESTS: Final = 60
MAX_REQUESTS_PER_PEER: Final = 12
REQUESTS_SECONDS: Final = 60.0
"""Requests served in a minute, in all and for one peer (go)."""

MAX_AT_ONCE: Final = 8
"""Dials for others under way."""

MAX_DIALS_V1: Final = 2
"""Addresses dialled for one request of version 1."""

MAX_PENDING: Final = 16
"""Requests of ours under way."""

BROKEN = (
    NetError,
    OSError,
    trio.TooSlowError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
)


class AutoNatClient:
    """Asks servers; the connection that a server makes is recognised by its number."""

    def __init__(self, host: Host, chance: Random) -> None:
        self._host = host
        self._chance = chance
        self._pending: dict[int, trio.Event] = {}
        self.forged = 0
        """Connections that brought a number which we had not given."""
        host.handle(DIAL_BACK, self._back, max_inbound=4, advertise=False)

    async def test(
        self, connection: Connection, addrs: Sequence[Multiaddr]
    ) -> tuple[Multiaddr, bool] | None:
        """Have a server dial the first address that it is willing to; see which, and if it came.

        Returns:
            None if the server would or could not.

        Raises:
            PeerFault: It breaks the rules.
        """
        if len(self._pending) >= MAX_PENDING:
            return None
        nonce = self._chance.getrandbits(64)
        came = self._pending[nonce] = trio.Event()
        try:
            with trio.fail_after(STREAM_SECONDS):
                async with await connection.open_stream([DIAL_REQUEST]) as stream:
                    return await self._ask(stream, addrs, nonce, came)
        except BROKEN:
            return None
        finally:
            del self._pending[nonce]

    async def _ask(
        self, stream: Stream, addrs: Sequence[Multiaddr], nonce: int, came: trio.Event
    ) -> tuple[Multiaddr, bool] | None:
        await send_message(stream, encode_v2(DialRequest(tuple(addrs), nonce)))
        answer = decode_v2(await read_message(stream, MAX_MESSAGE))
        if isinstance(answer, DataRequest):
            left = answer.count
            while left > 0:
                part = min(left, MAX_DATA)
                await send_message(stream, encode_v2(DataPart(part)))
                left -= part
            answer = decode_v2(await read_message(stream, MAX_MESSAGE))
        if not isinstance(answer, DialResponse):
            raise PeerFault("autonat", "no answer to a request")
        if answer.status != ResponseStatus.OK or answer.index >= len(addrs):
            return None
        addr = addrs[answer.index]
        if answer.dial_status == DialStatus.OK:
            with trio.move_on_after(BACK_SECONDS):
                await came.wait()
            # What it says is not enough: the number must have come.
            return (addr, True) if came.is_set() else None
        if answer.dial_status == DialStatus.E_DIAL_ERROR:
            return addr, False
        return (addr, True) if came.is_set() else None

    async def _back(self, stream: Stream) -> None:
        with trio.fail_after(BACK_SECONDS):
            nonce = decode_back(await read_message(stream, MAX_BACK_MESSAGE))
            came = self._pending.get(nonce)
            connection = stream.connection
            mine = connection.direction == "in" and connection.path is not Path.RELAYED
            if came is None or not mine or not self._listens_at(connection.local):
                self.forged += 1
                self._host.faults["autonat-unasked"] += 1
                stream.reset("not asked for")
                return
            came.set()
            await send_message(stream, encode_back_answer())

    def _listens_at(self, local: Multiaddr) -> bool:
        place, quic = place_of(local), is_quic(local)
        own = (place_of(addr) for addr in self._host.listen_addrs() if is_quic(addr) == quic)
        return place is not None and place[1] in {p[1] for p in own if p is not None}

    async def test_whole(self, connection: Connection, addrs: Sequence[Multiaddr]) -> bool | None:
        """Ask a server of version 1 whether it reaches us anywhere; None if it would not say.

        What it says is not enough: some take the connection that we have for the one that they
        were to make (js, py). A connection must have come from its IP.
        """
        came = trio.Event()
        ip = ip_of(connection.remote)

        def connected(other: Connection) -> None:
            if other.direction == "in" and ip_of(other.remote) == ip:
                came.set()

        self._host.on_connected.append(connected)
        try:
            with trio.fail_after(STREAM_SECONDS):
                async with await connection.open_stream([PROTOCOL_V1]) as stream:
                    request = DialV1(self._host.peer_id, tuple(addrs))
                    await send_message(stream, encode_v1(request))
                    answer = decode_v1(await read_message(stream, MAX_MESSAGE))
            if not isinstance(answer, AnswerV1):
                raise PeerFault("autonat", "no answer to a request")
            if answer.status != StatusV1.OK:
                return False if answer.status == StatusV1.E_DIAL_ERROR else None
            with trio.move_on_after(BACK_SECONDS):
                await came.wait()
            return True if came.is_set() else None
        except BROKEN:
            return None
        finally:
            self._host.on_connected.remove(connected)


class AutoNatServer:
    """Dials for others, within bounds: nobody is dialled for free but the asker itself."""

    def __init__(self, host: Host, chance: Random) -> None:
        self._host = host
        self._chance = chance
        self._served: deque[tuple[float, PeerId]] = deque(maxlen=MAX_REQUESTS)
        self._under_way: Counter[PeerId] = Counter()
        self.refused: Counter[str] = Counter()
        self.dials = 0
        host.handle(DIAL_REQUEST, self._version_2, max_inbound=2)
        host.handle(PROTOCOL_V1, self._version_1, max_inbound=2)

    def stop(self) -> None:
        """Serve no more."""
        self._host.unhandle(DIAL_REQUEST)
        self._host.unhandle(PROTOCOL_V1)

    def _may_ask(self, connection: Connection) -> bool:
        now, peer = trio.current_time(), connection.peer_id
        while self._served and self._served[0][0] <= now - REQUESTS_SECONDS:
            self._served.popleft()
        why = ""
        if connection.path is Path.RELAYED:
            why = "over-a-relay"
        elif len(self._served) >= MAX_REQUESTS:
            why = "too-many"
        elif sum(p == peer for _, p in self._served) >= MAX_REQUESTS_PER_PEER:
            why = "too-many-of-peer"
        elif self._under_way[peer] or self._under_way.total() >= MAX_AT_ONCE:
            why = "at-once"
        if why:
            self.refused[why] += 1
            return False
        self._served.append((now, peer))
        return True

    def _willing(self, addr: Multiaddr | None) -> bool:
        """Return whether we dial an address for others: only what all of the world may dial."""
        if addr is None or is_relayed(addr) or place_of(addr) is None:
            return False
        if is_quic(addr) and not self._host.uses_quic:
            return False
        ours = addr in self._host.told_addrs()
        return scope_of(addr) is Scope.GLOBAL and not ours

    def _begin(self, addr: Multiaddr) -> bool:
        """Count a dial among all of the process; False if too many to that IP fail."""
        try:
            self._host.dials.begin(addr)
        except TooMany:
            self.refused["dials-to-ip"] += 1
            return False
        self.dials += 1
        return True

    @contextmanager
    def _busy_for(self, peer: PeerId) -> Iterator[None]:
        self._under_way[peer] += 1
        try:
            yield
        finally:
            self._under_way[peer] -= 1
            self._under_way += Counter()  # only those above 0 are kept

    async def _version_2(self, stream: Stream) -> None:
        connection = stream.connection
        with trio.fail_after(STREAM_SECONDS):
            request = decode_v2(await read_message(stream, MAX_MESSAGE))
            if not isinstance(request, DialRequest):
                raise PeerFault("autonat", "no request")
            if not self._may_ask(connection):
                refusal = DialResponse(ResponseStatus.E_REQUEST_REJECTED)
                await send_message(stream, encode_v2(refusal))
                return
            chosen = next((i for i, a in enumerate(request.addrs) if self._willing(a)), None)
            addr = None if chosen is None else request.addrs[chosen]
            if chosen is None or addr is None or not self._begin(addr):
                self.refused["address"] += 1
                refusal = DialResponse(ResponseStatus.E_DIAL_REFUSED)
                await send_message(stream, encode_v2(refusal))
                return
            success: bool | None = None
            with self._busy_for(connection.peer_id):
                try:
                    if ip_of(addr) != ip_of(connection.remote):
                        await self._be_paid(stream, chosen)
                    status = await self._dial_back(addr, connection.peer_id, request.nonce)
                    success = status is not DialStatus.E_DIAL_ERROR
                finally:
                    self._host.dials.end(addr, success)
            answer = DialResponse(ResponseStatus.OK, chosen, status)
            await send_message(stream, encode_v2(answer))

    async def _be_paid(self, stream: Stream, index: int) -> None:
        """Take more bytes than a dial costs, so that nobody can make us flood others."""
        price = self._chance.randint(LEAST_PRICE, MOST_PRICE)
        await send_message(stream, encode_v2(DataRequest(index, price)))
        while price > 0:
            part = decode_v2(await read_message(stream, MAX_MESSAGE))
            if not isinstance(part, DataPart):
                raise PeerFault("autonat", "no data")
            price -= part.length
        await trio.sleep(self._chance.uniform(0, MAX_WAIT))

    async def _dial_back(self, addr: Multiaddr, peer: PeerId, nonce: int) -> DialStatus:
        status = DialStatus.E_DIAL_ERROR
        try:
            with trio.fail_after(DIAL_SECONDS):
                async with self._host.apart(addr, peer) as connection:
                    status = DialStatus.E_DIAL_BACK_ERROR
                    with trio.fail_after(BACK_SECONDS):
                        async with await connection.open_stream([DIAL_BACK], lazy=True) as stream:
                            await send_message(stream, encode_back(nonce))
                            if decode_back_answer(await read_message(stream, MAX_BACK_MESSAGE)):
                                status = DialStatus.OK
        except* (PeerFault, *BROKEN):
            pass  # the status says how far it came
        return status

    async def _version_1(self, stream: Stream) -> None:
        connection = stream.connection
        with trio.fail_after(STREAM_SECONDS):
            request = decode_v1(await read_message(stream, MAX_MESSAGE))
            if not isinstance(request, DialV1) or request.peer != connection.peer_id:
                raise PeerFault("autonat", "no request for oneself")
            seen = ip_of(connection.remote)
            addrs = [a for a in request.addrs if self._willing(a) and ip_of(a) == seen]
            if not addrs or not self._may_ask(connection):
                self.refused["address"] += not addrs
                refusal = AnswerV1(StatusV1.E_DIAL_REFUSED)
                await send_message(stream, encode_v1(refusal))
                return
            answer = AnswerV1(StatusV1.E_DIAL_REFUSED)
            with self._busy_for(connection.peer_id):
                for addr in addrs[:MAX_DIALS_V1]:
                    if not self._begin(addr):
                        continue
                    answer = AnswerV1(StatusV1.E_DIAL_ERROR, "no address could be dialled")
                    if await self._reaches(addr, connection.peer_id):
                        answer = AnswerV1(StatusV1.OK, addr=addr)
                        break
            await send_message(stream, encode_v1(answer))

    async def _reaches(self, addr: Multiaddr, peer: PeerId) -> bool:
        reached: bool | None = None
        try:
            with trio.fail_after(DIAL_SECONDS):
                async with self._host.apart(addr, peer):
                    reached = True
        except* (PeerFault, *BROKEN):
            reached = reached or False
        finally:
            self._host.dials.end(addr, reached)
        return bool(reached)
