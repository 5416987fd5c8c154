"""Reaching a peer at one of several addresses: happy eyeballs, back-off and abuse limits.

Order and pauses follow go-libp2p (after RFC 8305): private addresses first, then public ones, IPv6
before IPv4; the next address starts when the pause is over or the last one has failed. The first
connection that is upgraded wins. Unlike go's, TCP comes before QUIC, as it carries several times as
much here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

import trio
from multiaddr import Multiaddr

from ...wire.addresses import Scope, ip_of, is_quic, is_relayed, scope_of
from ...wire.errors import PeerFault
from .connection import Connection
from .errors import NetError, TooMany, WrongPeer

PRIVATE_PAUSE = 0.03
PUBLIC_PAUSE = 0.25
RELAYED_PAUSE = 0.5
"""Seconds until the next address is tried beside the last one."""

QUIC_PAUSE = 0.5
"""The same for the first address of QUIC behind some of TCP: for a round trip over half the world,
so that QUIC is for where TCP does not get through."""

CONNECT_SECONDS = 5.0
"""For the transport's part of a dial."""

UPGRADE_SECONDS = 10.0
"""For the security and muxer upgrade."""

MAX_ADDRS = 16
"""Addresses tried in one dial."""

MAX_BACKOFF = 300.0
MAX_BACKOFF_ENTRIES = 4096
MAX_UNPROVEN_PER_IP = 4
"""Dials under way to one IP at which nothing has answered properly yet."""

MAX_FAILURES_PER_IP = 10
FAILURE_WINDOW = 60.0
"""At most 10 failed dials a minute to one IP: we are no tool for scanning others."""


@dataclass(slots=True)
class _Target:
    """What we know of dialling one IP."""

    under_way: int = 0
    proven: bool = False
    failures: list[float] = field(default_factory=list)


class DialBook:
    """Back-off per address and abuse limits per IP, for the whole process."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._backoff: dict[Multiaddr, tuple[int, float]] = {}
        self._targets: dict[str, _Target] = {}

    def waits(self, addr: Multiaddr) -> float:
        """Return for how many seconds the address is left alone; 0 = it may be dialled."""
        _, until = self._backoff.get(addr, (0, 0.0))
        return max(0.0, until - self._now())

    def clear(self, addrs: Iterable[Multiaddr]) -> None:
        """Forget the back-off: something new was heard of these addresses."""
        for addr in addrs:
            self._backoff.pop(addr, None)

    def begin(self, addr: Multiaddr) -> None:
        """Count a dial that starts.

        Raises:
            TooMany: Too many dials to this IP are under way or have failed lately.
        """
        target = self._target(addr)
        if target is None:
            return
        now = self._now()
        target.failures = [at for at in target.failures if at > now - FAILURE_WINDOW]
        if len(target.failures) >= MAX_FAILURES_PER_IP:
            raise TooMany("too many dials to this IP have failed in the last minute")
        if target.under_way >= MAX_UNPROVEN_PER_IP and not target.proven:
            raise TooMany("too many dials to this IP are under way")
        target.under_way += 1

    def end(self, addr: Multiaddr, success: bool | None) -> None:
        """Count the outcome (None: cancelled)."""
        target = self._target(addr)
        if target is not None:
            target.under_way -= 1
            if success:
                target.proven = True
                target.failures.clear()
            elif success is False:
                target.failures.append(self._now())
                del target.failures[:-MAX_FAILURES_PER_IP]
        if success:
            self._backoff.pop(addr, None)
        elif success is False:
            count = self._backoff.get(addr, (0, 0.0))[0]
            until = self._now() + min(5.0 + count * count, MAX_BACKOFF)
            self._backoff[addr] = (count + 1, until)
            while len(self._backoff) > MAX_BACKOFF_ENTRIES:
                del self._backoff[next(iter(self._backoff))]

    def _target(self, addr: Multiaddr) -> _Target | None:
        """Limits count for global addresses; others are exempt."""
        ip = ip_of(addr)
        if ip is None or scope_of(addr) is not Scope.GLOBAL:
            return None
        if len(self._targets) > MAX_BACKOFF_ENTRIES:
            now = self._now()
            for key, target in list(self._targets.items()):
                if not target.under_way and all(a < now - FAILURE_WINDOW for a in target.failures):
                    del self._targets[key]
        return self._targets.setdefault(str(ip), _Target())


def ranked(
    addrs: Iterable[Multiaddr], can_dial: Callable[[Multiaddr], bool]
) -> list[tuple[Multiaddr, float]]:
    """Return what can be dialled in order, each with the pause before it; relays come last."""
    usable = [addr for addr in dict.fromkeys(addrs) if can_dial(addr)]

    def rank(addr: Multiaddr) -> tuple[int, bool, int]:
        scope = scope_of(addr)
        ip = ip_of(addr)
        order = Scope.GLOBAL + is_relayed(addr) if scope is None else int(scope)
        return (order, is_quic(addr), 0 if ip and ip.version == 6 else 1)

    usable.sort(key=rank)
    pauses: list[tuple[Multiaddr, float]] = []
    for number, addr in enumerate(usable[:MAX_ADDRS]):
        private = scope_of(addr) in (Scope.LOOPBACK, Scope.PRIVATE)
        further = RELAYED_PAUSE if is_relayed(addr) else PUBLIC_PAUSE
        pause = 0.0 if number == 0 else PRIVATE_PAUSE if private else further
        if number and is_quic(addr) and not is_quic(usable[number - 1]):
            pause = QUIC_PAUSE
        pauses.append((addr, pause))
    return pauses


async def dial_first(
    addrs: Sequence[tuple[Multiaddr, float]],
    attempt: Callable[[Multiaddr], Awaitable[Connection]],
    failures: list[tuple[str, str]],
) -> Connection | None:
    """Try the addresses; return the first connection.

    What each address answered that failed is added to `failures`, in words.
    """
    winner: Connection | None = None

    async def one(addr: Multiaddr, failed: trio.Event) -> None:
        nonlocal winner
        try:
            connection = await attempt(addr)
        except WrongPeer as error:
            failures.append((str(addr), f"another peer answers there, {error.found}"))
        except (NetError, PeerFault) as error:
            failures.append((str(addr), str(error)))
        except trio.TooSlowError:
            failures.append((str(addr), "no answer in time"))
        except OSError as error:
            failures.append((str(addr), error.strerror or str(error)))
        else:
            if winner is None:
                winner = connection
                nursery.cancel_scope.cancel()
            else:
                connection.close("another address was faster")
        failed.set()

    async with trio.open_nursery() as nursery:
        failed = trio.Event()
        failed.set()
        for addr, pause in addrs:
            with trio.move_on_after(pause):
                await failed.wait()
            failed = trio.Event()
            nursery.start_soon(one, addr, failed)
    return winner
