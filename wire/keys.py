"""Identity keys: the libp2p key message, Ed25519 signing, and checking foreign signatures.

We sign with Ed25519 alone. Other peers may have RSA, secp256k1 or ECDSA keys (libp2p peer-id
specification), so their signatures can be checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import nacl.bindings
import nacl.exceptions
import nacl.signing

from . import varint
from .errors import InvalidText, PeerFault
from .ids import IDENTITY, SHA2_256, PeerId, multihash

KEY_RSA: Final = 0
KEY_ED25519: Final = 1
KEY_SECP256K1: Final = 2
KEY_ECDSA: Final = 3

MAX_KEY_MESSAGE_BYTES: Final = 2048
"""An RSA key of 8192 bits, the largest that we check, takes 1 050 bytes."""

_INLINE_BYTES: Final = 42
"""Key messages up to this length are their own peer id (peer-id specification)."""


def _message(kind: int, data: bytes) -> bytes:
    """Return the key message: Type=1 and Data=2, always both, in this order."""
    return b"\x08" + varint.encode(kind) + b"\x12" + varint.encode(len(data)) + data


def _split_message(message: bytes) -> tuple[int, bytes]:
    """Return (type, data) of a key message; PeerFault if it is not exactly that."""
    if len(message) > MAX_KEY_MESSAGE_BYTES:
        raise PeerFault("key-message", "too long")
    if message[:1] != b"\x08":
        raise PeerFault("key-message", "no type")
    kind, at = varint.decode(message, 1)
    if message[at : at + 1] != b"\x12":
        raise PeerFault("key-message", "no data")
    length, at = varint.decode(message, at + 1)
    if length != len(message) - at:
        raise PeerFault("key-message", "wrong length")
    return kind, message[at:]


@dataclass(frozen=True)
class PublicKey:
    """A peer's public key, as the key message that its peer id is made of."""

    message: bytes

    @classmethod
    def from_message(cls, message: bytes) -> PublicKey:
        """Check the key message's form; whether the key itself is sound shows at `verify`.

        Raises:
            PeerFault: It is malformed or of an unknown type.
        """
        kind, data = _split_message(bytes(message))
        if kind > KEY_ECDSA:
            raise PeerFault("key-message", f"key type {kind}")
        if kind == KEY_ED25519 and len(data) != 32:
            raise PeerFault("key-message", "an Ed25519 key has 32 bytes")
        return cls(bytes(message))

    @property
    def peer_id(self) -> PeerId:
        """The peer id that this key stands for."""
        if len(self.message) <= _INLINE_BYTES:
            return PeerId(multihash(IDENTITY, self.message))
        return PeerId(multihash(SHA2_256, nacl.bindings.crypto_hash_sha256(self.message)))

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Return whether `signature` is this key's signature of `message`."""
        kind, data = _split_message(self.message)
        if kind == KEY_ED25519:
            try:
                nacl.signing.VerifyKey(data).verify(message, signature)
            except (nacl.exceptions.BadSignatureError, ValueError):
                return False
            return True
        # Imported here: few peers have such keys, and it takes as long as all of Noise.
        from .foreign_keys import verify_foreign

        return verify_foreign(kind, data, signature, message)


class PrivateKey:
    """Our Ed25519 identity key."""

    def __init__(self, seed: bytes) -> None:
        """Take the 32 secret bytes that the key is made of; the caller draws them."""
        self._signing = nacl.signing.SigningKey(seed)
        self.public = PublicKey(_message(KEY_ED25519, bytes(self._signing.verify_key)))
        self.peer_id = self.public.peer_id

    @classmethod
    def from_message(cls, message: bytes) -> PrivateKey:
        """Read the libp2p private key message (seed and public key; the old form repeats it).

        Raises:
            InvalidText: It is not an Ed25519 private key, or its two halves do not match.
        """
        try:
            kind, data = _split_message(message)
        except PeerFault as fault:
            raise InvalidText(f"not a libp2p private key ({fault})") from fault
        if kind != KEY_ED25519 or len(data) not in (64, 96) or data[64:] not in (b"", data[32:64]):
            raise InvalidText("not an Ed25519 private key")
        key = cls(data[:32])
        if bytes(key._signing.verify_key) != data[32:64]:
            raise InvalidText("the private key does not belong to its public key")
        return key

    @property
    def message(self) -> bytes:
        """The libp2p private key message, as it is stored."""
        return _message(KEY_ED25519, bytes(self._signing) + bytes(self._signing.verify_key))

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of `message`."""
        return self._signing.sign(message).signature
