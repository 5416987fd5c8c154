"""The identify message: who a peer is, where it listens and what it speaks.

Sizes (from the implementations): rust reads 4 KiB, go sends at most 4 KiB a message and may send
several to be merged; so at most 4 KiB is sent, and 8 KiB in up to 10 messages are read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from google.protobuf.message import DecodeError
from multiaddr import Multiaddr

from .addresses import multiaddr_from_bytes
from .errors import PeerFault
from .proto import shoal_identify_pb2 as pb

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


@dataclass(frozen=True, slots=True)
class IdentifyInfo:
    """What a peer says of itself; an absent field is None or empty."""

    public_key: bytes | None = None
    listen_addrs: tuple[Multiaddr, ...] = ()
    protocols: tuple[str, ...] = ()
    observed_addr: Multiaddr | None = None
    protocol_version: str | None = None
    agent_version: str | None = None
    signed_peer_record: bytes | None = None

    def encode(self) -> bytes:
        """Return the message in at most 4 KiB; addresses that do not fit are left out."""
        message = pb.Identify()
        if self.public_key is not None:
            message.publicKey = self.public_key
        message.protocols.extend(self.protocols)
        if self.observed_addr is not None:
            message.observedAddr = self.observed_addr.to_bytes()
        if self.protocol_version is not None:
            message.protocolVersion = self.protocol_version
        if self.agent_version is not None:
            message.agentVersion = self.agent_version
        if self.signed_peer_record is not None:
            message.signedPeerRecord = self.signed_peer_record
        room = MAX_SENT_BYTES - message.ByteSize()
        for addr in self.listen_addrs:
            data = addr.to_bytes()
            room -= len(data) + 4
            if room < 0:
                break
            message.listenAddrs.append(data)
        return bytes(message.SerializeToString())

    @classmethod
    def decode(cls, data: bytes) -> IdentifyInfo:
        """Read one message; addresses that cannot be read are left out.

        Raises:
            PeerFault: It is no protobuf or too long.
        """
        if len(data) > MAX_READ_BYTES:
            raise PeerFault("identify", "too long")
        message = pb.Identify()
        try:
            message.ParseFromString(bytes(data))
        except (DecodeError, ValueError) as error:
            raise PeerFault("identify", str(error)[:200]) from error
        return cls(
            public_key=bytes(message.publicKey) if message.HasField("publicKey") else None,
            listen_addrs=_addrs(message.listenAddrs),
            protocols=tuple(
                protocol
                for protocol in message.protocols[:MAX_PROTOCOLS]
                if 0 < len(protocol) <= MAX_PROTOCOL_BYTES
            ),
            observed_addr=next(iter(_addrs([message.observedAddr])), None)
            if message.HasField("observedAddr")
            else None,
            protocol_version=_text(message.protocolVersion)
            if message.HasField("protocolVersion")
            else None,
            agent_version=_text(message.agentVersion) if message.HasField("agentVersion") else None,
            signed_peer_record=bytes(message.signedPeerRecord)
            if message.HasField("signedPeerRecord")
            else None,
        )

    def merged(self, later: IdentifyInfo) -> IdentifyInfo:
        """Return this, with what a later message of the same stream (or a push) says.

        Lists of several messages of one stream add up; other fields are replaced if present.
        """
        given = {
            name: value
            for name in (
                "public_key",
                "observed_addr",
                "protocol_version",
                "agent_version",
                "signed_peer_record",
            )
            if (value := getattr(later, name)) is not None
        }
        return replace(
            self,
            listen_addrs=(*self.listen_addrs, *later.listen_addrs)[:MAX_ADDRS],
            protocols=tuple(dict.fromkeys((*self.protocols, *later.protocols)))[:MAX_PROTOCOLS],
            **given,
        )

    def updated(self, push: IdentifyInfo) -> IdentifyInfo:
        """Return this with a push applied: what it names is replaced, what it leaves out stays."""
        merged = self.merged(push)
        return replace(
            merged,
            listen_addrs=push.listen_addrs or self.listen_addrs,
            protocols=push.protocols or self.protocols,
        )


def _addrs(items: Iterable[bytes]) -> tuple[Multiaddr, ...]:
    addrs: list[Multiaddr] = []
    for number, data in enumerate(items):
        if number >= 2 * MAX_ADDRS or len(addrs) >= MAX_ADDRS:
            break
        try:
            addrs.append(multiaddr_from_bytes(data))
        except PeerFault:
            continue  # of a kind that we do not know
    return tuple(addrs)


def _text(text: str) -> str:
    """Return a peer's text without what could confuse a terminal."""
    return "".join(c for c in text[:MAX_TEXT] if c.isprintable())
