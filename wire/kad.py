"""Messages of the Kademlia DHT (libp2p kad-dht specification), bounded in both directions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from google.protobuf.message import DecodeError
from multiaddr import Multiaddr

from .addresses import multiaddr_from_bytes
from .errors import PeerFault
from .ids import PeerId
from .proto import shoal_kad_pb2 as pb

MAX_MESSAGE_BYTES: Final = 16 * 1024
"""Longest message sent: rust-libp2p resets the stream beyond."""

MAX_KEY_BYTES: Final = 80
"""Longest key of provider messages (kad-dht specification)."""

MAX_RECORD_BYTES: Final = 10 * 1024
"""Longest value of a record (an IPNS record's bound)."""

MAX_PEERS: Final = 100
"""Entries read from one list of an answer; honest ones hold 20 closer peers."""

MAX_ADDRS: Final = 8
"""Addresses kept and sent for each peer."""

MAX_ADDRS_READ: Final = 64
"""Addresses looked at for each peer, until `MAX_ADDRS` good ones are found."""


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


@dataclass(frozen=True, slots=True)
class KadPeer:
    """A peer named in a message; addresses without a `/p2p` part, at most 8."""

    peer_id: PeerId
    addrs: tuple[Multiaddr, ...] = ()
    connection: Connectedness = Connectedness.NOT_CONNECTED


@dataclass(frozen=True, slots=True)
class Record:
    """A value record."""

    key: bytes
    value: bytes
    time_received: str = ""


@dataclass(frozen=True, slots=True)
class KadMessage:
    """A request, or the answer to one."""

    type: MessageType
    key: bytes = b""
    closer: tuple[KadPeer, ...] = ()
    providers: tuple[KadPeer, ...] = ()
    record: Record | None = None

    def encode(self) -> bytes:
        """Return the message in at most 16 KiB: what does not fit is left out, the last first."""
        message = pb.Message()
        message.type = int(self.type)
        message.key = self.key
        if self.record is not None:
            message.record.key = self.record.key
            message.record.value = self.record.value
            message.record.timeReceived = self.record.time_received
        room = MAX_MESSAGE_BYTES - message.ByteSize() - 64
        # Providers are what was asked for; closer peers only lead on.
        for peers, into in (
            (self.providers, message.providerPeers),
            (self.closer, message.closerPeers),
        ):
            for peer in peers:
                entry = _encode_peer(peer)
                room -= entry.ByteSize() + 4
                if room < 0:
                    break
                into.append(entry)
        return bytes(message.SerializeToString())

    @classmethod
    def decode(cls, data: bytes) -> KadMessage:
        """Read a message; bad addresses and entries with bad peer ids are left out.

        Raises:
            PeerFault: It is no protobuf, of unknown type, or over a bound.
        """
        message = pb.Message()
        try:
            message.ParseFromString(bytes(data))
            kind = MessageType(int(message.type))
        except (DecodeError, ValueError) as error:
            raise PeerFault("kad-message", str(error)[:200]) from error
        if len(message.key) > MAX_RECORD_BYTES:
            raise PeerFault("kad-message", "the key is too long")
        record = None
        if message.HasField("record"):
            if len(message.record.value) > MAX_RECORD_BYTES:
                raise PeerFault("kad-message", "the record is too long")
            record = Record(
                bytes(message.record.key),
                bytes(message.record.value),
                message.record.timeReceived[:64],
            )
        return cls(
            kind,
            bytes(message.key),
            _decode_peers(message.closerPeers),
            _decode_peers(message.providerPeers),
            record,
        )


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
    for number, entry in enumerate(entries):
        if number >= MAX_PEERS:
            break
        try:
            peer_id = PeerId.from_bytes(entry.id)
            connection = Connectedness(int(entry.connection))
        except (PeerFault, ValueError):
            continue
        peers.append(KadPeer(peer_id, _decode_addrs(entry.addrs), connection))
    return tuple(peers)


def _decode_addrs(items: Iterable[bytes]) -> tuple[Multiaddr, ...]:
    addrs: list[Multiaddr] = []
    for number, data in enumerate(items):
        if number >= MAX_ADDRS_READ or len(addrs) >= MAX_ADDRS:
            break
        try:
            addrs.append(multiaddr_from_bytes(data))
        except PeerFault:
            continue  # of a kind that we do not know; the others may do
    return tuple(addrs)
