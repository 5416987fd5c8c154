"""The identify message: who a peer is, where it listens and what it speaks.

Sizes (from the implementations): rust reads 4 KiB, go sends at most 4 KiB a message and may send
several to be merged; so at most 4 KiB is sent, and 8 KiB in up to 10 messages are read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from typing import Final, TypeVar

from google.protobuf.message import DecodeError
from multiaddr import Multiaddr

from .addresses import multiaddr_from_bytes
from .errors import Misuse, PeerFault
from .immutable import immutable
from .proto import shoal_identify_pb2 as pb

T = TypeVar("T")

IDENTIFY: Final = "/ipfs/id/1.0.0"
IDENTIFY_PUSH: Final = "/ipfs/id/push/1.0.0"

MAX_SENT_BYTES: Final = 4096
MAX_READ_BYTES: Final = 8192
MAX_MESSAGES: Final = 10
MAX_PROTOCOLS: Final = 256
"""Protocols kept for each peer."""

MAX_PROTOCOL_BYTES: Final = 255
MAX_ADDRS: Final = 64
"""Listening addresses kept from one peer's message (the peerstore keeps fewer)."""

MAX_TEXT: Final = 128
"""Characters kept of the agent and protocol versions."""


MAX_ADDRS_READ: Final = 128
"""Addresses looked at in one message, until `MAX_ADDRS` good ones are found."""


_FIELD_HEAD: Final = 4
"""Most bytes of a field's number and length, for fields below 2 MiB."""


@immutable
class IdentifyInfo:
    """What a peer says of itself; an absent field is None or empty.

    `public_key` is a key message and `signed_peer_record` a signed envelope, both unchecked.
    """

    public_key: bytes | None = None
    listen_addrs: tuple[Multiaddr, ...] = ()
    protocols: tuple[str, ...] = ()
    observed_addr: Multiaddr | None = None
    protocol_version: str | None = None
    agent_version: str | None = None
    signed_peer_record: bytes | None = None

    def encode(self) -> bytes:
        """Return the message in at most 4 KiB.

        A peer record and then addresses are left out if they do not fit.

        Raises:
            Misuse: The other fields alone are longer.
        """
        message = pb.Identify()
        if self.public_key is not None:
            message.publicKey = self.public_key
        message.protocols.extend(protocol.encode() for protocol in self.protocols)
        if self.observed_addr is not None:
            message.observedAddr = self.observed_addr.to_bytes()
        if self.protocol_version is not None:
            message.protocolVersion = self.protocol_version.encode()
        if self.agent_version is not None:
            message.agentVersion = self.agent_version.encode()
        room = MAX_SENT_BYTES - message.ByteSize()
        if room < 0:
            raise Misuse(f"an identify message of {MAX_SENT_BYTES - room} bytes")
        addrs = [addr.to_bytes() for addr in self.listen_addrs]
        for data in addrs:
            room -= len(data) + _FIELD_HEAD
            if room < 0:
                break
            message.listenAddrs.append(data)
        record = self.signed_peer_record
        if record is not None and len(record) + _FIELD_HEAD <= room:
            message.signedPeerRecord = record
        return bytes(message.SerializeToString())

    @classmethod
    def decode(cls, data: bytes) -> IdentifyInfo:
        """Read one message; what is beyond a bound or cannot be read is left out.

        Raises:
            PeerFault: It is no protobuf or over 8 KiB.
        """
        if len(data) > MAX_READ_BYTES:
            raise PeerFault("identify", "too long")
        message = pb.Identify()
        try:
            message.ParseFromString(bytes(data))
        except DecodeError as error:
            raise PeerFault("identify", str(error)[:200]) from error
        return cls(
            public_key=message.publicKey if message.HasField("publicKey") else None,
            listen_addrs=_addrs(message.listenAddrs),
            protocols=_protocols(message.protocols),
            observed_addr=next(iter(_addrs([message.observedAddr])), None),
            protocol_version=_text(message.protocolVersion)
            if message.HasField("protocolVersion")
            else None,
            agent_version=_text(message.agentVersion) if message.HasField("agentVersion") else None,
            signed_peer_record=message.signedPeerRecord
            if message.HasField("signedPeerRecord")
            else None,
        )

    def merged(self, later: IdentifyInfo) -> IdentifyInfo:
        """Return this, with what a later message of the same stream says.

        Lists add up, within the bounds of one; other fields are replaced if present.
        """
        return replace(
            later,
            public_key=_first(later.public_key, self.public_key),
            listen_addrs=_united(self.listen_addrs, later.listen_addrs, MAX_ADDRS),
            protocols=_united(self.protocols, later.protocols, MAX_PROTOCOLS),
            observed_addr=_first(later.observed_addr, self.observed_addr),
            protocol_version=_first(later.protocol_version, self.protocol_version),
            agent_version=_first(later.agent_version, self.agent_version),
            signed_peer_record=_first(later.signed_peer_record, self.signed_peer_record),
        )

    def updated(self, push: IdentifyInfo) -> IdentifyInfo:
        """Return this with a push applied: what it names is replaced, what it leaves out stays."""
        return replace(
            self.merged(push),
            listen_addrs=push.listen_addrs or self.listen_addrs,
            protocols=push.protocols or self.protocols,
        )


def _first(new: T | None, old: T | None) -> T | None:
    return old if new is None else new


def _united(first: tuple[T, ...], second: tuple[T, ...], limit: int) -> tuple[T, ...]:
    """Return both without repetitions, at most `limit`."""
    return tuple(dict.fromkeys((*first, *second)))[:limit]


def _addrs(items: Iterable[bytes]) -> tuple[Multiaddr, ...]:
    addrs: dict[Multiaddr, None] = {}
    for data in islice(items, MAX_ADDRS_READ):
        try:
            addrs[multiaddr_from_bytes(data)] = None
        except PeerFault:
            continue  # of a kind that we do not know; the others may do
    return tuple(addrs)[:MAX_ADDRS]


def _protocols(items: Iterable[bytes]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for data in islice(items, MAX_PROTOCOLS):
        name = data.decode(errors="replace")
        if 0 < len(data) <= MAX_PROTOCOL_BYTES and name.isprintable() and "\ufffd" not in name:
            names[name] = None
    return tuple(names)


def _text(data: bytes) -> str:
    """Return a peer's text without what could confuse a terminal."""
    return "".join(c for c in data[: 4 * MAX_TEXT].decode(errors="replace") if c.isprintable())[
        :MAX_TEXT
    ]
