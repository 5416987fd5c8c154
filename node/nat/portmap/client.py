"""The rules by which mappings are asked for, renewed and given back over PCP or NAT-PMP.

A `Client` is told the time, the datagrams that came and from where; it says what to send and when
it wants to be asked again. It does no IO. Everything that it must get an answer to is a
`_Question`, which knows when it is to be asked next; a mapping is a question that is asked again
when half of its life is over.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from ....wire.addresses import Scope
from ....wire.immutable import immutable
from ....wire.scopes import IpAddress, is_dialable_ip, scope_of_ip
from .dialects import Dialect
from .replies import (
    SERVER_PORT,
    Epoch,
    Mapped,
    MapRequest,
    OtherVersion,
    RouterFault,
    Told,
)

LIFETIME: Final = 7200
"""Seconds that we ask for, as both RFCs recommend."""

MAX_LIFETIME: Final = 24 * 3600
"""More is not believed (RFC 6887, section 15)."""

MIN_LIFETIME: Final = 30
"""A mapping for fewer seconds would keep both sides busy: it counts as refused."""

MIN_ERROR_SECONDS: Final = 30
MAX_ERROR_SECONDS: Final = 1800
"""How long a refusal holds, whatever the router says (RFC 6887, section 15)."""

RENEW_AT: Final = (0.5, 0.625)
"""Renewal starts at a random part of the life between these (RFC 6887, section 11.2.1)."""

PROBE_EVERY: Final = 60.0
"""Seconds between questions that change nothing: they show a restart and, in NAT-PMP, a new
address."""

PROBE_TRIES: Final = 4

RESTART_EVERY: Final = 10.0
"""Mappings are made anew at most so often, in seconds, however often the router restarts."""

RESTART_GRACE: Final = 30.0
"""Seconds within which a restarted router has to grant a mapping again, else it is gone."""

LEAVE_WAIT: Final = 0.5
"""Seconds before a request to delete is sent again; it doubles."""

MAX_PORTS: Final = 16
"""Ports that one client maps."""

IMPOSSIBLE: Final = "it names an address that cannot be its own"

RandomBytes = Callable[[int], bytes]


@immutable
class Grant:
    """A mapping that the router has made."""

    internal_port: int
    external_port: int
    external_ip: IpAddress
    until: float | None
    """End on the clock of the caller; None = it stays."""


@dataclass(slots=True)
class _Question:
    """Something that is asked until it is answered."""

    next_at: float
    wait: float = 0.0
    tries: int = 0
    """Since the last answer."""

    def again(self, at: float) -> None:
        """Ask next at this time, from a first try."""
        self.next_at, self.wait, self.tries = at, 0.0, 0


@dataclass(slots=True)
class _Wish(_Question):
    """One port that is to be mapped."""

    port: int = 0
    nonce: bytes = b""
    external_port: int = 0
    external_ip: IpAddress | None = None
    until: float | None = None
    """End of the granted mapping; None = there is none."""
    leaving: bool = False
    refused: str = ""


class Client:
    """Asks one router over one protocol.

    Args:
        dialect: The protocol.
        gateway: The router's address; datagrams from elsewhere are dropped.
        chance: For jitter.
        secret: Makes nonces.
        now: The time; all times are seconds of one monotonic clock.
    """

    def __init__(
        self,
        dialect: Dialect,
        gateway: IpAddress,
        chance: random.Random,
        secret: RandomBytes,
        now: float,
    ) -> None:
        self._dialect = dialect
        self._gateway = gateway
        self._chance = chance
        self._secret = secret
        self._wishes: dict[int, _Wish] = {}
        self._probe = _Question(now)
        self._epoch: Epoch | None = None
        self._restarted_at = -RESTART_EVERY
        self._external_ip: IpAddress | None = None
        self.faults: Counter[str] = Counter()
        """Datagrams dropped, by reason."""
        self.speaks: bool | None = None
        """Whether the router speaks this protocol; None = it has said nothing."""
        self.refused = ""
        """Why the router will not serve us at all, as the end of a sentence on it."""

    # What is wanted

    def want(self, ports: Iterable[int], now: float) -> None:
        """Ask for these ports of ours from now on (the first `MAX_PORTS`)."""
        for port in sorted(set(ports))[:MAX_PORTS]:
            nonce = self._secret(self._dialect.nonce_bytes)
            self._wishes[port] = _Wish(now, port=port, nonce=nonce, external_port=port)

    def leave(self, now: float) -> None:
        """Give all mappings back, also those that were asked for and may have been made."""
        self._probe.again(float("inf"))
        for port, wish in list(self._wishes.items()):
            if wish.until is None and wish.tries == 0:
                del self._wishes[port]  # refused, or never asked for
            elif not wish.leaving:
                wish.leaving = True
                wish.again(now)

    @property
    def has_left(self) -> bool:
        """Whether nothing is left to be given back."""
        return not self._wishes

    # What is known

    def grants(self, now: float) -> tuple[Grant, ...]:
        """Return the mappings that exist."""
        found = []
        for wish in self._wishes.values():
            ip = wish.external_ip or self._external_ip
            if wish.until is not None and wish.until > now and ip is not None:
                found.append(Grant(wish.port, wish.external_port, ip, wish.until))
        return tuple(found)

    @property
    def is_settled(self) -> bool:
        """Whether every wish was granted or refused."""
        return all(wish.until is not None or wish.refused for wish in self._wishes.values())

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why wishes were refused, each as the end of a sentence on the router."""
        return tuple(sorted({wish.refused for wish in self._wishes.values() if wish.refused}))

    # Sending

    @property
    def next_at(self) -> float:
        """When `send` will have something, or a mapping ends; infinity = never."""
        times = [self._probe.next_at]
        for wish in self._wishes.values():
            times.append(wish.next_at)
            if wish.until is not None:
                times.append(wish.until)
        return min(times)

    def send(self, now: float) -> list[bytes]:
        """Return what is to be sent now."""
        out = []
        if self._probe.next_at <= now:
            out.append(self._dialect.probe())
            self._asked(self._probe, now)
            if self._probe.tries >= PROBE_TRIES and self.speaks:
                self._probe.again(now + PROBE_EVERY)
        for wish in self._wishes.values():
            if wish.until is not None and wish.until <= now:
                wish.until = None
            if wish.next_at <= now:
                out.append(self._dialect.ask(self._request(wish)))
                self._asked(wish, now)
        return out

    def _request(self, wish: _Wish) -> MapRequest:
        if wish.leaving:  # suggestions must be empty (RFC 6886, 3.4; RFC 6887, 15)
            return MapRequest(wish.port, 0, wish.nonce)
        return MapRequest(wish.port, LIFETIME, wish.nonce, wish.external_port, wish.external_ip)

    def _asked(self, question: _Question, now: float) -> None:
        patience = self._dialect.patience
        leaving = isinstance(question, _Wish) and question.leaving
        first = LEAVE_WAIT if leaving else patience.first
        wait = min(2 * question.wait, patience.longest) if question.tries else first
        question.wait = wait * (1 + self._chance.uniform(-patience.jitter, patience.jitter))
        question.next_at = now + question.wait
        question.tries += 1

    # Receiving

    def receive(self, data: bytes, source: tuple[IpAddress, int], now: float) -> None:
        """Take a datagram; what is no proper reply is counted and changes nothing."""
        try:
            if source != (self._gateway, SERVER_PORT):
                raise RouterFault("another source")
            match self._dialect.read(data):
                case OtherVersion(version=version):
                    self._other_version(version)
                case Told() as told:
                    self._told(told, now)
                case Mapped() as mapped:
                    self._mapped(mapped, now)
        except RouterFault as fault:
            self.faults[str(fault)] += 1

    def _other_version(self, version: int) -> None:
        if self.speaks:
            raise RouterFault("another version")
        self.speaks = False
        name = " (NAT-PMP)" if version == 0 else ""
        self.refused = f"it speaks version {version}{name} of the protocol only"

    def _told(self, told: Told, now: float) -> None:
        """Take the answer to a probe, or an announcement, which looks the same."""
        self.speaks = True
        if self._dialect.nonce_bytes == 0:  # NAT-PMP: without an address no mapping is of use
            self.refused = self._why(told.result) if told.result else ""
            self._external_ip = told.external_ip
            if told.external_ip is not None and not is_external(told.external_ip):
                self.refused, self._external_ip = IMPOSSIBLE, None
        self._take_epoch(told.epoch, now)
        if self._probe.next_at != float("inf"):
            self._probe.again(now + PROBE_EVERY)

    def _mapped(self, mapped: Mapped, now: float) -> None:
        wish = self._wishes.get(mapped.internal_port)
        if wish is None or wish.nonce != mapped.nonce:
            raise RouterFault("not asked for")
        if not wish.nonce and not wish.tries:
            raise RouterFault("not asked for")  # in NAT-PMP anyone can guess the port
        if mapped.result == 0 and mapped.lifetime > 0 and not wish.leaving:
            self._grant(wish, mapped, now)
        elif wish.leaving:
            if mapped.result or mapped.lifetime == 0:
                del self._wishes[wish.port]
        else:
            self._refuse(wish, mapped, now)
        self.speaks = True
        self._take_epoch(mapped.epoch, now)

    def _grant(self, wish: _Wish, mapped: Mapped, now: float) -> None:
        if not mapped.external_port:
            raise RouterFault("external port 0")
        if mapped.external_ip is not None and not is_external(mapped.external_ip):
            raise RouterFault("an impossible external address")
        life = min(mapped.lifetime, MAX_LIFETIME)
        if life < MIN_LIFETIME:
            wish.refused = f"it grants a mapping for {life} seconds only"
            wish.until = None
            wish.again(now + MAX_ERROR_SECONDS)
            return
        wish.refused = ""
        wish.external_port = mapped.external_port
        wish.external_ip = mapped.external_ip
        wish.until = now + life
        wish.again(now + life * self._chance.uniform(*RENEW_AT))

    def _refuse(self, wish: _Wish, mapped: Mapped, now: float) -> None:
        """Note a refusal; a mapping that still lives stays (RFC 6887, section 8.3)."""
        wish.refused = self._why(mapped.result)
        wait = min(max(mapped.lifetime, MIN_ERROR_SECONDS), MAX_ERROR_SECONDS)
        # NAT-PMP's errors name no time: the field holds what we asked for.
        wish.again(now + (wait if wish.nonce else MIN_ERROR_SECONDS))
        if wish.external_ip is not None and wish.until is None:
            wish.external_ip = None  # next time any address will do

    def _why(self, result: int) -> str:
        if result == 0:
            return "it deleted the mapping at once"
        return self._dialect.results.get(result, f"it gives the unknown reason {result}")

    # Restarts

    def _take_epoch(self, epoch: int, now: float) -> None:
        before, self._epoch = self._epoch, (epoch, now)
        if before is None or not self._dialect.has_restarted(before, self._epoch):
            return
        if self._restarted_at > now:
            return  # it is planned
        at = max(now, self._restarted_at + RESTART_EVERY)
        self._restarted_at = at
        for wish in self._wishes.values():
            # What was granted by this very reply is asked for once more: that does no harm.
            if wish.until is None or wish.leaving:
                continue
            wish.until = min(wish.until, at + RESTART_GRACE)
            wish.again(at)
        if self._probe.next_at != float("inf"):
            self._probe.next_at = min(self._probe.next_at, at)


def is_external(ip: IpAddress) -> bool:
    """Return whether it can be a router's address on its other side."""
    return is_dialable_ip(ip) and scope_of_ip(ip) is not Scope.LOOPBACK
