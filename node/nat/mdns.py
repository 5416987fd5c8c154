"""Finding peers on the same network by mDNS: no bootstrap, no server, no configuration.

The driver around `mdns_records` (the rules) and `mdns_radio` (the sockets, in zeroconf's thread).
What is found crosses into trio through a bounded queue. Whatever fails here, the node goes on: the
verdict says what is the matter, and it is tried again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio
from multiaddr import Multiaddr

from ...wire.ids import PeerId
from ...wire.immutable import immutable
from ..environment import Environment
from .mdns_records import (
    NAME_SECRET_BYTES,
    SERVICE,
    Heard,
    Neighbour,
    Neighbours,
    Told,
    name_of,
    query_delays,
    told_of,
)

if TYPE_CHECKING:
    from .mdns_radio import Radio

POLL_SECONDS: Final = 30.0
"""Our addresses and the machine's interfaces are looked at so often; a radio that could not be
opened is tried again."""

ANNOUNCE_SECONDS: Final = 1.0
"""Between the two announcements of a new answer (RFC 6762, section 8.3)."""

MAX_WAITING: Final = 64
"""Peers found that wait to be told of; more are dropped and counted."""

WAITING: Final = "LAN discovery has not started"
ENDED: Final = "LAN discovery has ended"


@immutable
class MdnsState:
    """What LAN discovery is about, for people and tests."""

    verdict: str
    """One sentence: whether it works, and if not, why."""
    name: str
    """Ours in mDNS since the last start; empty = none yet."""
    reach: int
    """Addresses of this machine from which others hear us."""
    answers: int
    """Packets that say something of the service, our own among them."""
    told: int
    repeats: int
    refused: int
    floods: int
    """See `Neighbours`."""
    dropped: int
    """Peers that were found faster than they could be told of."""


class Mdns:
    """Answers for us and finds others.

    Args:
        environment: For the name, the delays and the worker threads.
        peer_id: Ours.
        addrs: What we can be reached at now; private addresses of it are told.
        found: Called in trio with a peer that is new, has moved, or was heard of again after 5 min.
        service: What to ask for and to answer.
        interfaces: Addresses of this machine whose interfaces are used; none = all.
    """

    def __init__(
        self,
        environment: Environment,
        peer_id: PeerId,
        addrs: Callable[[], Sequence[Multiaddr]],
        found: Callable[[PeerId, Sequence[Multiaddr]], None],
        service: str = SERVICE,
        *,
        interfaces: Sequence[str] = (),
    ) -> None:
        self._environment = environment
        self._own = peer_id
        self._addrs = addrs
        self._found = found
        self._service = service
        self._interfaces = interfaces
        self._neighbours = Neighbours(peer_id, service)
        self._waiting: deque[Neighbour] = deque()
        self._arrived = trio.Event()
        self._verdict = WAITING
        self._name = ""
        self._reach = 0
        self._dropped = 0

    @property
    def state(self) -> MdnsState:
        """A snapshot."""
        known = self._neighbours
        return MdnsState(
            verdict=self._verdict,
            name=self._name,
            reach=self._reach,
            answers=known.answers,
            told=known.told,
            repeats=known.repeats,
            refused=known.refused,
            floods=known.floods,
            dropped=self._dropped,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Find and be found until cancelled; then say goodbye, which takes less than 2 s.

        It counts as started at once: the sockets are opened behind that, in a worker thread.
        """
        token = trio.lowlevel.current_trio_token()
        task_status.started()
        blocking = self._environment.run_blocking
        try:
            while True:
                radio = await blocking(self._open, token)
                if radio is not None:
                    try:
                        await self._speak(radio)
                    finally:
                        with trio.CancelScope(shield=True):
                            await blocking(radio.close)
                await trio.sleep(POLL_SECONDS)
        finally:
            self._verdict = ENDED
            self._reach = 0

    def _open(self, token: trio.lowlevel.TrioToken) -> Radio | None:
        """Open the sockets, or say in the verdict why not; runs in a worker thread."""
        try:
            from .mdns_radio import Radio, RadioOff
        except ImportError as error:
            self._verdict = f"LAN discovery is off: zeroconf cannot be loaded ({error})"
            return None

        def heard(said: Heard, now: float) -> None:
            for neighbour in self._neighbours.take(said, now):
                self._cross(neighbour, token)

        name = name_of(self._environment.random.secret(NAME_SECRET_BYTES))
        try:
            radio = Radio(name, self._service, heard, self._interfaces)
        except RadioOff as off:
            self._verdict = f"LAN discovery is off: {off}"
            return None
        self._name = name
        self._judge(radio)
        return radio

    def _judge(self, radio: Radio) -> None:
        self._reach = radio.reach
        if self._reach:
            self._verdict = "LAN discovery is on"
        else:
            self._verdict = "LAN discovery hears nobody: no network interface carries multicast"

    def _cross(self, neighbour: Neighbour, token: trio.lowlevel.TrioToken) -> None:
        """Hand a peer over to trio; runs in zeroconf's thread."""
        if len(self._waiting) >= MAX_WAITING:
            self._dropped += 1
            return
        self._waiting.append(neighbour)
        with suppress(trio.RunFinishedError):  # a packet that came while everything ends
            token.run_sync_soon(self._wake, idempotent=True)

    def _wake(self) -> None:
        self._arrived.set()

    async def _speak(self, radio: Radio) -> None:
        """Ask, tell and hand over what is found, until the radio fails."""
        from .mdns_radio import RadioOff

        delays = query_delays(self._environment.random.stream("mdns"))
        told: Told | None = None
        poll_at = ask_at = trio.current_time()
        announce_at = float("inf")
        first = True
        while True:
            while self._waiting:
                neighbour = self._waiting.popleft()
                self._found(neighbour.peer, neighbour.addrs)
            now = trio.current_time()
            if now >= poll_at:
                poll_at = now + POLL_SECONDS
                if not first:
                    try:
                        await self._environment.run_blocking(radio.rescan)
                    except RadioOff as off:
                        self._verdict = f"LAN discovery starts anew: {off}"
                        return
                    self._judge(radio)
                first = False
                current = told_of(self._own, self._addrs())
                if current != told:
                    told = current
                    radio.tell(told)
                    radio.announce()
                    announce_at = now + ANNOUNCE_SECONDS
            if now >= announce_at:
                announce_at = float("inf")
                radio.announce()
            if now >= ask_at:
                ask_at = now + next(delays)
                radio.ask()
            with trio.move_on_at(min(poll_at, ask_at, announce_at)):
                await self._arrived.wait()
            self._arrived = trio.Event()
