"""What libp2p says over mDNS, and what of it we believe: rules without IO.

A node has a random name for as long as it runs. It answers a query for `_p2p._udp.local` with a
PTR record that leads to the name, and TXT records of the name whose strings are
`dnsaddr=<address>/p2p/<peer id>` (libp2p specification `discovery/mdns.md`). Whoever is on the
network, or can forge a packet there, can say so of anybody; a lie costs a dial that ends in the
wrong key. So each step is bounded: bytes and strings of one packet, peers and addresses in it,
packets read and peers told in a minute, peers remembered.

go reads the last TXT record only, rust the additional section only, js both sections: one record
with several strings, behind a PTR answer, is what all three take.
"""

from __future__ import annotations

import hashlib
import random
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from multiaddr import Multiaddr

from ...wire.addresses import (
    Scope,
    acceptable,
    host_port,
    ip_of,
    parse_multiaddr,
    peer_of,
    scope_of,
    with_peer,
    without_peer,
)
from ...wire.errors import InvalidText
from ...wire.ids import PeerId
from ...wire.immutable import immutable

SERVICE: Final = "_p2p._udp.local."

TTL_SECONDS: Final = 360
"""Life of our records in others' caches (rust: 6 min)."""

MIN_NAME: Final = 32
MAX_NAME: Final = 63
"""Characters of a node's name (libp2p specification); 63 is also the most that DNS takes."""

NAME_SECRET_BYTES: Final = 1 + MAX_NAME
"""Random bytes that a name is made of."""

PREFIX: Final = b"dnsaddr="
MAX_STRING: Final = 255
"""Bytes of one string of a TXT record (RFC 1035)."""

MAX_TOLD: Final = 8
"""Addresses of ours in our answer; others take no more from one packet than they like."""

MAX_TOLD_BYTES: Final = 900
"""Of our TXT record, so that it goes out in one packet (1460 bytes) with PTR, SRV and addresses:
rust reads the strings of the packet that holds the PTR record alone."""

MAX_TOLD_IPS: Final = 4
"""A and AAAA records in our answer: go ignores who sends none, nobody reads them."""

MAX_OWNERS: Final = 8
"""Names of one packet whose records are read."""

MAX_STRINGS: Final = 64
"""Strings of one packet that are read; each takes about 0.1 ms."""

MAX_BYTES: Final = 8192
"""Of TXT records of one packet that are read (rust: 8932 bytes in a packet)."""

MAX_ANSWER_PEERS: Final = 8
"""Peers that one packet may name; honest ones name themselves alone."""

MAX_ANSWER_ADDRS: Final = 8
"""Addresses of one peer that are taken from one packet; plain TCP first."""

MAX_PEERS: Final = 256
"""Peers and answers remembered; the least recently heard go first."""

NEWS_BURST: Final = 128
NEWS_PER_SECOND: Final = 1.0
"""Answers that were not heard before, and peers that are told of: 128 at once (a hall full of nodes
answers the first query within a second), then 60 a minute; the rest counts as flood."""

RETELL_SECONDS: Final = 300.0
"""A peer that keeps answering is told of again so often: a peerstore forgets what it heard an hour
ago."""

FIRST_QUERY_SECONDS: Final = 0.5
QUERY_SECONDS: Final = 300.0
"""Queries go out at once, then after 0.5 s, 1 s, 2 s … up to 5 min (as rust's)."""

QUERY_JITTER: Final = 0.1
"""Part of a delay by which it is lengthened at most, so that nodes started together part."""

K = TypeVar("K")
V = TypeVar("V")

_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz0123456789"


@immutable
class Heard:
    """What one packet says in the two kinds of records that we read; owners as they came."""

    pointers: tuple[tuple[str, str], ...] = ()
    """(owner, name that it leads to)."""
    texts: tuple[tuple[str, int, bytes], ...] = ()
    """(owner, life in seconds, strings as they lie in the record)."""


@immutable
class Neighbour:
    """A peer that answered, and where it says it is."""

    peer: PeerId
    addrs: tuple[Multiaddr, ...]


@immutable
class Told:
    """What we answer: the TXT record, and the addresses of records that lead to it."""

    text: bytes
    """Empty = we have no address that is worth telling."""
    ips: tuple[str, ...]
    port: int


def name_of(secret: bytes) -> str:
    """Return a random name: 32 to 63 lower-case letters and digits, of `NAME_SECRET_BYTES`."""
    length = MIN_NAME + secret[0] % (MAX_NAME - MIN_NAME + 1)
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in secret[1 : 1 + length])


def told_of(own: PeerId, addrs: Sequence[Multiaddr]) -> Told:
    """Return what to answer: private addresses that mean something on other machines."""
    text = b""
    ips: dict[str, None] = {}
    port = 0
    count = 0
    for addr in dict.fromkeys(map(without_peer, addrs)):
        ip = ip_of(addr)
        if ip is None or not _is_local(addr) or count == MAX_TOLD:
            continue
        string = PREFIX + str(with_peer(addr, own)).encode()
        if len(string) > MAX_STRING or len(text) + 1 + len(string) > MAX_TOLD_BYTES:
            continue
        text += bytes([len(string)]) + string
        count += 1
        if len(ips) < MAX_TOLD_IPS:
            ips[str(ip)] = None
        place = host_port(addr)
        port = port or (place[1] if place else 0)
    return Told(text, tuple(ips), port)


def query_delays(chance: random.Random) -> Iterator[float]:
    """Yield the seconds between one query and the next, without end."""
    delay = FIRST_QUERY_SECONDS
    while True:
        yield delay * (1 + QUERY_JITTER * chance.random())
        delay = min(2 * delay, QUERY_SECONDS)


def split_strings(data: bytes, most: int = MAX_STRINGS) -> list[bytes]:
    """Return the strings of a TXT record, at most so many; what is cut off is left out."""
    strings: list[bytes] = []
    at = 0
    while at < len(data) and len(strings) < most:
        end = at + 1 + data[at]
        if end > len(data):
            break
        if data[at]:
            strings.append(data[at + 1 : end])
        at = end
    return strings


class Allowance:
    """So many things at once, and so many a second; `now` in seconds."""

    def __init__(self, burst: float, rate: float) -> None:
        self._burst, self._rate = burst, rate
        self._left = burst
        self._at: float | None = None

    def spend(self, now: float) -> bool:
        """Return whether one more may pass."""
        passed = 0.0 if self._at is None else max(0.0, now - self._at)
        self._at = now
        self._left = min(self._burst, self._left + passed * self._rate)
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclass(slots=True)
class _Known:
    addrs: frozenset[Multiaddr]
    told_at: float


class Neighbours:
    """Reads what others answer, and says which peers are worth telling of.

    Args:
        own: Our own answers come back to us, and are left out.
        service: The name that is asked for, with a dot at its end.
    """

    def __init__(self, own: PeerId, service: str = SERVICE) -> None:
        self._own = own
        self._service = service.lower()
        self._read: OrderedDict[bytes, tuple[Neighbour, ...]] = OrderedDict()
        """What answers with this digest say."""
        self._peers: OrderedDict[PeerId, _Known] = OrderedDict()
        self._allowance = Allowance(NEWS_BURST, NEWS_PER_SECOND)
        self.answers = 0
        """Packets that say something of our service."""
        self.told = 0
        """Times that a peer was told of."""
        self.repeats = 0
        """Peers in answers that say nothing new."""
        self.refused = 0
        """Strings that are malformed, or name a place that we would not dial."""
        self.floods = 0
        """Answers, and peers in them, beyond what is read in a minute."""

    def __len__(self) -> int:
        return len(self._peers)

    def take(self, heard: Heard, now: float) -> list[Neighbour]:
        """Return the peers of an answer that are new, have moved, or were told of long ago."""
        texts, leaving = self._texts_of(heard)
        if leaving:
            self._let_go(leaving)
        if not texts:
            return []
        self.answers += 1
        digest = _digest(texts)
        said = self._read.get(digest)
        paid = said is None
        if said is None:
            if not self._allowance.spend(now):
                self.floods += 1
                return []
            said = self._read[digest] = self._neighbours_in(texts)
        _touch(self._read, digest)
        news: list[Neighbour] = []
        for neighbour in said:
            if not self._is_news(neighbour, now):
                self.repeats += 1
            elif not paid and not self._allowance.spend(now):
                self.floods += 1
            else:
                paid = False
                self._remember(neighbour, now)
                news.append(neighbour)
        self.told += len(news)
        return news

    def _let_go(self, texts: Sequence[bytes]) -> None:
        """Forget peers that say goodbye, so that they are told of as soon as they are back."""
        for neighbour in self._read.get(_digest(texts), ()):
            self._peers.pop(neighbour.peer, None)

    def _texts_of(self, heard: Heard) -> tuple[list[bytes], list[bytes]]:
        """Return the records of names that belong to the service, and those that are taken back.

        rust leads to names of one label that stand outside the service, so the packet's own PTR
        records count as well. A record whose life is 0 is a goodbye.
        """
        names = {
            name.lower() for owner, name in heard.pointers[:MAX_OWNERS] if self._is_ours(owner)
        }
        texts: list[bytes] = []
        leaving: list[bytes] = []
        size = 0
        for owner, life, data in heard.texts[:MAX_STRINGS]:
            name = owner.lower()
            if name not in names and not name.endswith("." + self._service):
                continue
            size += len(data)
            if size > MAX_BYTES:
                break
            (texts if life else leaving).append(data)
        return texts, leaving

    def _is_ours(self, owner: str) -> bool:
        return owner.lower() == self._service

    def _neighbours_in(self, texts: Sequence[bytes]) -> tuple[Neighbour, ...]:
        found: dict[PeerId, list[Multiaddr]] = {}
        left = MAX_STRINGS
        for data in texts:
            strings = split_strings(data, left)
            left -= len(strings)
            for string in strings:
                place = _place_in(string)
                if place is None:
                    self.refused += 1
                elif place[0] == self._own:
                    continue
                elif place[0] in found or len(found) < MAX_ANSWER_PEERS:
                    found.setdefault(place[0], []).append(place[1])
                else:
                    self.refused += 1
        return tuple(Neighbour(peer, _best(addrs)) for peer, addrs in found.items())

    def _is_news(self, neighbour: Neighbour, now: float) -> bool:
        known = self._peers.get(neighbour.peer)
        if known is None:
            return True
        _touch(self._peers, neighbour.peer)
        return now - known.told_at >= RETELL_SECONDS or not known.addrs.issuperset(neighbour.addrs)

    def _remember(self, neighbour: Neighbour, now: float) -> None:
        addrs = frozenset(neighbour.addrs)
        known = self._peers.get(neighbour.peer)
        if known is not None and len(addrs | known.addrs) <= 2 * MAX_ANSWER_ADDRS:
            addrs |= known.addrs  # it may answer in turn with one half and the other
        self._peers[neighbour.peer] = _Known(addrs, now)
        _touch(self._peers, neighbour.peer)


def _digest(texts: Sequence[bytes]) -> bytes:
    return hashlib.blake2b(b"\0".join(texts), digest_size=16).digest()


def _touch(remembered: OrderedDict[K, V], key: K) -> None:
    remembered.move_to_end(key)
    while len(remembered) > MAX_PEERS:
        remembered.popitem(last=False)


def _place_in(string: bytes) -> tuple[PeerId, Multiaddr] | None:
    """Return the peer and its address; None if we would not dial there."""
    if not string.startswith(PREFIX):
        return None
    try:
        addr = parse_multiaddr(string.removeprefix(PREFIX).decode("ascii"))
    except (UnicodeDecodeError, InvalidText):
        return None
    peer = peer_of(addr)
    plain = without_peer(addr)
    return None if peer is None or not _is_local(plain) else (peer, plain)


def _is_local(addr: Multiaddr) -> bool:
    """Return whether it is private, can be dialled, and means the same on the next machine.

    Loopback and global addresses have no business here: one would be our own machine, the other
    would let a neighbour point us at anybody. Link-local IPv6 needs a zone.
    """
    return scope_of(addr) is Scope.PRIVATE and acceptable(addr, Scope.PRIVATE)


def _best(addrs: Sequence[Multiaddr]) -> tuple[Multiaddr, ...]:
    """Return the first few: go names each place for TCP, QUIC, WebTransport and WebRTC."""
    unique = dict.fromkeys(addrs)
    return tuple(sorted(unique, key=lambda addr: host_port(addr) is None)[:MAX_ANSWER_ADDRS])
