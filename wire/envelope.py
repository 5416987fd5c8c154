"""Signed envelopes and peer records (libp2p RFC 0002 and 0003).

A peer record is a peer's own word on where it can be reached, so others may pass it on. Domain
and type are those that all implementations use; the RFC's text names others.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from google.protobuf.message import DecodeError
from multiaddr import Multiaddr

from . import varint
from .addresses import multiaddr_from_bytes
from .errors import Misuse, PeerFault
from .ids import PeerId
from .immutable import immutable
from .keys import PrivateKey, PublicKey
from .proto import shoal_envelope_pb2 as pb

PEER_RECORD_DOMAIN: Final = b"libp2p-peer-record"
PEER_RECORD_TYPE: Final = b"\x03\x01"

MAX_ENVELOPE_BYTES: Final = 8192
"""Longest envelope read: it has to fit in an identify message."""

MAX_PAYLOAD_TYPE_BYTES: Final = 64
MAX_SIGNATURE_BYTES: Final = 1024
"""Longest signature read, that of an RSA key of 8192 bits."""

MAX_ADDRS: Final = 32
"""Addresses written to and kept of one peer record."""

MAX_ADDRS_READ: Final = 128
"""Addresses looked at in one peer record, until `MAX_ADDRS` good ones are found."""

MAX_SEQ: Final = (1 << 63) - 1
"""Highest sequence number: what a varint of ours holds; a Unix time in nanoseconds fits."""


def _field(number: int, value: bytes) -> bytes:
    """Return a protobuf field of bytes; `number` is below 16."""
    return bytes([number << 3 | 2]) + varint.encode(len(value)) + value


def _signed(domain: bytes, payload_type: bytes, payload: bytes) -> bytes:
    """Return the bytes that are signed: each part with its length in front."""
    return b"".join(varint.encode(len(part)) + part for part in (domain, payload_type, payload))


@immutable
class Envelope:
    """A payload with its signature; as read, nothing is checked until `open`."""

    public_key: PublicKey
    payload_type: bytes
    payload: bytes
    signature: bytes

    @classmethod
    def seal(cls, key: PrivateKey, domain: bytes, payload_type: bytes, payload: bytes) -> Envelope:
        """Sign a payload; the domain keeps signatures of one use from serving another."""
        if not domain:
            raise Misuse("an envelope needs a domain")
        signature = key.sign(_signed(domain, payload_type, payload))
        return cls(key.public, payload_type, payload, signature)

    def encode(self) -> bytes:
        """Return the message."""
        return (
            _field(1, self.public_key.message)
            + _field(2, self.payload_type)
            + _field(3, self.payload)
            + _field(5, self.signature)
        )

    @classmethod
    def decode(cls, data: bytes) -> Envelope:
        """Read an envelope.

        Raises:
            PeerFault: It is malformed, over 8 KiB, or its key is of an unknown type.
        """
        if len(data) > MAX_ENVELOPE_BYTES:
            raise PeerFault("envelope", "too long")
        message = pb.Envelope()
        try:
            message.ParseFromString(bytes(data))
        except DecodeError as error:
            raise PeerFault("envelope", str(error)[:200]) from error
        if len(message.payload_type) > MAX_PAYLOAD_TYPE_BYTES:
            raise PeerFault("envelope", "the payload type is too long")
        if len(message.signature) > MAX_SIGNATURE_BYTES:
            raise PeerFault("envelope", "the signature is too long")
        return cls(
            PublicKey.from_message(message.public_key),
            message.payload_type,
            message.payload,
            message.signature,
        )

    def open(self, domain: bytes, payload_type: bytes) -> bytes:
        """Return the payload.

        Raises:
            PeerFault: It is of another type, or was not signed by this key for this domain.
        """
        if self.payload_type != payload_type:
            raise PeerFault("envelope", f"payload type {self.payload_type.hex()}")
        signed = _signed(domain, self.payload_type, self.payload)
        if not self.public_key.verify(self.signature, signed):
            raise PeerFault("envelope-signature")
        return self.payload


@immutable
class PeerRecord:
    """Where a peer says it can be reached; of two records the one with the higher `seq` holds.

    `seq` only orders: it is never read as a time, although ours is one.
    """

    peer_id: PeerId
    seq: int
    addrs: tuple[Multiaddr, ...] = ()

    def encode(self) -> bytes:
        """Return the record's bytes, with at most 32 addresses."""
        if not 0 <= self.seq <= MAX_SEQ:
            raise Misuse(f"a sequence number of {self.seq}")
        addrs = (_field(3, _field(1, addr.to_bytes())) for addr in self.addrs[:MAX_ADDRS])
        return _field(1, self.peer_id.raw) + b"\x10" + varint.encode(self.seq) + b"".join(addrs)

    @classmethod
    def decode(cls, data: bytes) -> PeerRecord:
        """Read a record's bytes; addresses that cannot be read are left out.

        Raises:
            PeerFault: It is malformed, or its sequence number is over 2^63 - 1.
        """
        message = pb.PeerRecord()
        try:
            message.ParseFromString(bytes(data))
        except DecodeError as error:
            raise PeerFault("peer-record", str(error)[:200]) from error
        if message.seq > MAX_SEQ:
            raise PeerFault("peer-record", "the sequence number is too high")
        addrs: dict[Multiaddr, None] = {}
        for entry in islice(message.addresses, MAX_ADDRS_READ):
            try:
                addrs[multiaddr_from_bytes(entry.multiaddr)] = None
            except PeerFault:
                continue  # of a kind that we do not know; the others may do
        return cls(PeerId.from_bytes(message.peer_id), message.seq, tuple(addrs)[:MAX_ADDRS])

    def seal(self, key: PrivateKey) -> bytes:
        """Return the record in an envelope signed by `key`, which must be the peer's own."""
        if key.peer_id != self.peer_id:
            raise Misuse("a peer record is signed by its own peer")
        return Envelope.seal(key, PEER_RECORD_DOMAIN, PEER_RECORD_TYPE, self.encode()).encode()

    @classmethod
    def open(cls, data: bytes) -> PeerRecord:
        """Read and check a signed record.

        Raises:
            PeerFault: It is malformed, its signature is wrong, or another peer signed it.
        """
        envelope = Envelope.decode(data)
        record = cls.decode(envelope.open(PEER_RECORD_DOMAIN, PEER_RECORD_TYPE))
        if record.peer_id != envelope.public_key.peer_id:
            raise PeerFault("peer-record", "signed by another peer")
        return record
