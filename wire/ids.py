"""Names of peers and contents: multihashes, peer ids and CIDs, as bytes and as text.

Sources: multiformats multihash and CID specifications, libp2p peer-id specification. Bounds are
those of the IPFS specifications: CID at most 168 bytes, digest 20 to 128 bytes.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import base58

from . import varint
from .errors import InvalidText, PeerFault
from .immutable import immutable

IDENTITY: Final = 0x00
SHA2_256: Final = 0x12
BLAKE3: Final = 0x1E

RAW: Final = 0x55
DAG_PB: Final = 0x70
LIBP2P_KEY: Final = 0x72

MAX_CID_BYTES: Final = 168
MAX_DIGEST_BYTES: Final = 128
MIN_DIGEST_BYTES: Final = 20
MAX_PEER_ID_BYTES: Final = 2 + MAX_DIGEST_BYTES

_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"


def multihash(code: int, digest: bytes) -> bytes:
    """Return `digest` with its function code and length in front."""
    return varint.encode(code) + varint.encode(len(digest)) + digest


def split_multihash(data: bytes) -> tuple[int, bytes]:
    """Return (function code, digest) of a whole multihash.

    Raises:
        PeerFault: It is cut off, has bytes behind it, or its digest is out of bounds.
    """
    code, at = varint.decode(data)
    length, at = varint.decode(data, at)
    if length > MAX_DIGEST_BYTES or (code != IDENTITY and length < MIN_DIGEST_BYTES):
        raise PeerFault("multihash-length", f"a digest of {length} bytes")
    if len(data) - at != length:
        raise PeerFault("multihash-length", "the digest's length does not match")
    return code, bytes(data[at:])


_USUAL_IDS: Final = frozenset({(38, b"\x00\x24"), (34, b"\x12\x20")})
"""Length and beginning of nearly all peer ids: an Ed25519 key itself, or a hash."""


@dataclass(frozen=True, order=True)
class PeerId:
    """The name of a peer: the multihash of its public key message (`raw`, at most 130 bytes)."""

    raw: bytes

    @classmethod
    def from_bytes(cls, data: bytes) -> PeerId:
        """Check and wrap the bytes that came over the wire.

        Raises:
            PeerFault: The bytes are not an identity or sha2-256 multihash.
        """
        if (len(data), bytes(data[:2])) in _USUAL_IDS:
            return cls(bytes(data))
        if len(data) > MAX_PEER_ID_BYTES:
            raise PeerFault("peer-id", "too long")
        code, digest = split_multihash(data)
        if (code == SHA2_256 and len(digest) == 32) or (code == IDENTITY and 0 < len(digest) <= 42):
            return cls(bytes(data))
        raise PeerFault("peer-id", f"multihash function {code} with {len(digest)} bytes")

    @classmethod
    def parse(cls, text: str) -> PeerId:
        """Read the text forms: base58 of the multihash, or a CIDv1 with codec libp2p-key.

        Raises:
            InvalidText: It is neither.
        """
        try:
            if len(text) > 4 * MAX_PEER_ID_BYTES:
                raise ValueError("too long")
            if text.startswith(("1", "Qm")):
                return cls.from_bytes(base58.b58decode(text))
            codec, hashed = _split_cid_v1(_from_multibase(text))
            if codec == LIBP2P_KEY:
                return cls.from_bytes(hashed)
        except (ValueError, PeerFault):
            pass
        raise InvalidText(f"{_shown(text)} is not a peer id (they look like 12D3KooW…)")

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, PeerId) and self.raw == other.raw)

    def __hash__(self) -> int:
        return hash(self.raw)  # the bytes keep theirs; that of a tuple is made each time

    @cached_property
    def key(self) -> bytes:
        """Its 32-byte place in the DHT: SHA-256 of the peer id (kad-dht specification)."""
        return hashlib.sha256(self.raw).digest()

    @cached_property
    def place(self) -> int:
        """Its key as a number, to measure distances."""
        return int.from_bytes(self.key, "big")

    def __str__(self) -> str:
        return base58.b58encode(self.raw).decode()

    def __repr__(self) -> str:
        return f"PeerId({self})"


@immutable
class Cid:
    """The name of a content or of one of its blocks: version 1, a codec and a multihash."""

    codec: int
    multihash: bytes

    def __lt__(self, other: Cid) -> bool:
        return (self.codec, self.multihash) < (other.codec, other.multihash)

    @classmethod
    def of(cls, codec: int, block: bytes | bytearray | memoryview) -> Cid:
        """Return the sha2-256 CID of a block."""
        return cls(codec, multihash(SHA2_256, hashlib.sha256(block).digest()))

    @classmethod
    def from_bytes(cls, data: bytes) -> Cid:
        """Read the binary form; a bare sha2-256 multihash is a version 0 dag-pb CID.

        Raises:
            PeerFault: It is not a CID, or out of bounds.
        """
        if len(data) > MAX_CID_BYTES:
            raise PeerFault("cid", "over 168 bytes")
        if len(data) == 34 and data[:2] == b"\x12\x20":
            return cls(DAG_PB, bytes(data))
        codec, hashed = _split_cid_v1(bytes(data))
        return cls(codec, hashed)

    @classmethod
    def parse(cls, text: str) -> Cid:
        """Read the text form: base32, base36, base58 or base16 with a multibase prefix, or `Qm…`.

        Raises:
            InvalidText: It is not a CID.
        """
        try:
            if len(text) <= 4 * MAX_CID_BYTES:
                if text.startswith("Qm") and len(text) == 46:
                    return cls.from_bytes(base58.b58decode(text))
                data = _from_multibase(text)
                if len(data) != 34:  # a version 0 CID has no multibase form
                    return cls.from_bytes(data)
        except (ValueError, PeerFault):
            pass
        raise InvalidText(f"{_shown(text)} is not a content id (they look like bafy… or bafkrei…)")

    @property
    def hash_code(self) -> int:
        """The multihash function code."""
        return varint.decode(self.multihash)[0]

    @property
    def digest(self) -> bytes:
        """The bare digest."""
        return split_multihash(self.multihash)[1]

    def __bytes__(self) -> bytes:
        return (_CID_START.get(self.codec) or _cid_start(self.codec)) + self.multihash

    def __str__(self) -> str:
        return "b" + base64.b32encode(bytes(self)).decode().rstrip("=").lower()

    def __repr__(self) -> str:
        return f"Cid({self})"


def _cid_start(codec: int) -> bytes:
    return b"\x01" + varint.encode(codec)


_CID_START: Final = {codec: _cid_start(codec) for codec in (RAW, DAG_PB)}
"""What the binary forms of nearly all CIDs begin with."""


def _split_cid_v1(data: bytes) -> tuple[int, bytes]:
    """Return (codec, multihash) of a binary CIDv1; PeerFault if it is none."""
    version, at = varint.decode(data)
    if version != 1:
        raise PeerFault("cid", f"version {version}")
    codec, at = varint.decode(data, at)
    hashed = data[at:]
    split_multihash(hashed)
    return codec, hashed


def _from_multibase(text: str) -> bytes:
    """Decode base32, base36, base58btc or base16 by its prefix; ValueError if it is none."""
    prefix, body = text[:1], text[1:]
    match prefix:
        case "b" | "B":
            if body != (body.lower() if prefix == "b" else body.upper()) or "=" in body:
                raise ValueError("mixed case or padding")
            return base64.b32decode(body.upper() + "=" * (-len(body) % 8))
        case "f" | "F":
            return bytes.fromhex(body) if body.isalnum() else b""
        case "z":
            return base58.b58decode(body)
        case "k" | "K":
            zeros = len(body) - len(body.lstrip("0"))
            if not (body.isascii() and body.isalnum()):
                raise ValueError("not base36")
            number = int(body, 36)
            return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
        case _:
            raise ValueError("unknown multibase prefix")


def _shown(text: str) -> str:
    """Return a text that a user gave, quoted and cut for an error message."""
    return repr(text if len(text) <= 80 else text[:77] + "…")
