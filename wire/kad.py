"""Messages of the Kademlia DHT (libp2p kad-dht specification), bounded in both directions."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from itertools import islice
from typing import Final

from google.protobuf.message import DecodeError
from multiaddr import Multiaddr

from .addresses import host_port, multiaddr_from_bytes, peer_of, without_peer
from .errors import Misuse, PeerFault
from .ids import MAX_PEER_ID_BYTES, PeerId
from .immutable import immutable
from .proto import shoal_kad_pb2 as pb

MAX_MESSAGE_BYTES: Final = 16 * 1024
"""Longest message sent: rust-libp2p resets the stream beyond."""

MAX_READ_BYTES: Final = 64 * 1024
"""Longest message read: 20 peers with 8 addresses take 10 KiB. (go-libp2p reads 4 MiB.)"""

MAX_PROVIDER_KEY_BYTES: Final = 80
"""Longest key of provider messages (kad-dht specification)."""

MAX_NODE_KEY_BYTES: Final = MAX_PEER_ID_BYTES
"""Longest key of FIND_NODE: a peer id, or the multihash of a content."""

MAX_RECORD_KEY_BYTES: Final = 256
"""Longest key of value records; `/ipns/` and a peer id take 136."""

MAX_RECORD_BYTES: Final = 10 * 1024
"""Longest value of a record (an IPNS record's bound)."""

MAX_TIME_BYTES: Final = 64
"""Kept of a record's time, which is RFC 3339 text."""

MAX_PEERS: Final = 100
"""Entries read from each list of a message; honest ones hold 20 closer peers."""

MAX_ADDRS: Final = 8
"""Addresses kept and sent for each peer."""

MAX_ADDRS_READ: Final = 32
"""Addresses looked at for each peer, among which those that we can dial are preferred."""

_MAX_KEY_BYTES: Final = (
    MAX_RECORD_KEY_BYTES,
    MAX_RECORD_KEY_BYTES,
    MAX_PROVIDER_KEY_BYTES,
    MAX_PROVIDER_KEY_BYTES,
    MAX_NODE_KEY_BYTES,
    MAX_RECORD_KEY_BYTES,
)
"""By message type."""

_FIELD_HEAD: Final = 4
"""Most bytes of a field's number and length, for fields below 2 MiB."""


class MessageType(IntEnum):
    """What a message asks for; an answer repeats it."""

    PUT_VALUE = 0
    GET_VALUE = 1
    ADD_PROVIDER = 2
    GET_PROVIDERS = 3
    FIND_NODE = 4
    PING = 5


class Connectedness(IntEnum):
    """What the sender knows of its connection with a peer that it names."""

    NOT_CONNECTED = 0
    CONNECTED = 1
    CAN_CONNECT = 2
    CANNOT_CONNECT = 3


@immutable
class KadPeer:
    """A peer named in a message; as read, at most 8 addresses without `/p2p` at their end."""

    peer_id: PeerId
    addrs: tuple[Multiaddr, ...] = ()
    connection: Connectedness = Connectedness.NOT_CONNECTED


@immutable
class Record:
    """A value record."""

    key: bytes
    value: bytes
    time_received: str = ""


@immutable
class KadMessage:
    """A request, or the answer to one."""

    type: MessageType
    key: bytes = b""
    closer: tuple[KadPeer, ...] = ()
    providers: tuple[KadPeer, ...] = ()
    record: Record | None = None

    def encode(self) -> bytes:
        """Return the message in at most 16 KiB: what does not fit is left out, the last first.

        Raises:
            Misuse: Key and record alone do not fit.
        """
        message = pb.Message()
        message.type = int(self.type)
        message.key = self.key
        if self.record is not None:
            message.record.key = self.record.key
            message.record.value = self.record.value
            message.record.timeReceived = self.record.time_received.encode()
        room = MAX_MESSAGE_BYTES - message.ByteSize()
        if room < 0:
            raise Misuse(f"a DHT message of {MAX_MESSAGE_BYTES - room} bytes")
        # Providers are what was asked for; closer peers only lead on.
        for peers, into in (
            (self.providers, message.providerPeers),
            (self.closer, message.closerPeers),
        ):
            for peer in peers:
                entry = _encode_peer(peer)
                room -= entry.ByteSize() + _FIELD_HEAD
                if room < 0:
                    break
                into.append(entry)
        return bytes(message.SerializeToString())

    @classmethod
    def decode(cls, data: bytes) -> KadMessage:
        """Read a message; bad addresses and entries with bad peer ids are left out.

        The key may be empty (some leave it out of answers): who serves a request has to check.

        Raises:
            PeerFault: It is no protobuf, of unknown type, or over a bound.
        """
        if len(data) > MAX_READ_BYTES:
            raise PeerFault("kad-message", "too long")
        message = pb.Message()
        try:
            message.ParseFromString(bytes(data))
        except DecodeError as error:
            raise PeerFault("kad-message", str(error)[:200]) from error
        if not 0 <= message.type < len(MessageType):
            raise PeerFault("kad-message", f"type {message.type}")
        if len(message.key) > _MAX_KEY_BYTES[message.type]:
            raise PeerFault("kad-message", "the key is too long")
        return cls(
            MessageType(message.type),
            message.key,
            _decode_peers(message.closerPeers),
            _decode_peers(message.providerPeers),
            _decode_record(message.record) if message.HasField("record") else None,
        )


def _decode_record(record: pb.Record) -> Record:
    if len(record.key) > MAX_RECORD_KEY_BYTES or len(record.value) > MAX_RECORD_BYTES:
        raise PeerFault("kad-message", "the record is too long")
    time_received = record.timeReceived[:MAX_TIME_BYTES].decode(errors="replace")
    return Record(record.key, record.value, "".join(c for c in time_received if c.isprintable()))


def _encode_peer(peer: KadPeer) -> pb.Message.Peer:
    entry = pb.Message.Peer()
    entry.id = peer.peer_id.raw
    # The shortest are direct ones; relayed and certificate-laden addresses come last.
    addrs = sorted((addr.to_bytes() for addr in peer.addrs), key=len)
    entry.addrs.extend(addrs[:MAX_ADDRS])
    entry.connection = int(peer.connection)
    return entry


def _decode_peers(entries: Iterable[pb.Message.Peer]) -> tuple[KadPeer, ...]:
    peers: list[KadPeer] = []
    for entry in islice(entries, MAX_PEERS):
        try:
            peer_id = PeerId.from_bytes(entry.id)
        except PeerFault:
            continue
        known = 0 <= entry.connection < len(Connectedness)
        connection = Connectedness(entry.connection if known else 0)
        peers.append(KadPeer(peer_id, _decode_addrs(peer_id, entry.addrs), connection))
    return tuple(peers)


def _decode_addrs(peer: PeerId, items: Iterable[bytes]) -> tuple[Multiaddr, ...]:
    addrs: dict[Multiaddr, None] = {}
    for data in islice(items, MAX_ADDRS_READ):
        try:
            addr = multiaddr_from_bytes(data)
        except PeerFault:
            continue  # of a kind that we do not know; the others may do
        named = peer_of(addr)
        if named is None:
            addrs[addr] = None
        elif named == peer and (bare := without_peer(addr)).to_bytes():
            addrs[bare] = None
    if len(addrs) <= MAX_ADDRS:
        return tuple(addrs)
    # Public nodes have a dozen addresses, most of transports that we do not speak.
    return tuple(sorted(addrs, key=lambda addr: host_port(addr) is None)[:MAX_ADDRS])
