"""Noise XX as libp2p uses it: the handshake, then sealing and opening transport frames.

`Noise_XX_25519_ChaChaPoly_SHA256` with an empty prologue (Noise specification rev. 34; libp2p
noise specification). Keys are handed in. Frames are `length:2 || message`, big-endian. `Sealer` and
`Opener` work between buffers of the caller and allocate nothing per frame.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Sequence
from typing import Final

import nacl.bindings
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from google.protobuf.message import DecodeError

from .errors import Misuse, PeerFault
from .ids import PeerId
from .immutable import immutable
from .keys import PrivateKey, PublicKey
from .proto import shoal_noise_pb2 as pb

PROTOCOL: Final = "/noise"
TAG: Final = 16
MAX_MESSAGE: Final = 65535
"""Longest Noise message (Noise specification, section 3)."""

MAX_PLAIN: Final = MAX_MESSAGE - TAG
"""Plain bytes in a full transport frame: 65519."""

MAX_HANDSHAKE_MESSAGE: Final = 8192
"""Longest handshake message taken; one with an RSA key of 8192 bits has about 2300 bytes."""

MAX_MUXERS: Final = 16
"""Muxer names read from a payload."""

_NAME: Final = b"Noise_XX_25519_ChaChaPoly_SHA256"
_SIGNED: Final = b"noise-libp2p-static-key:"
_LAST_NONCE: Final = (1 << 64) - 2


class Sealer:
    """Seals plain bytes into frames, for one direction."""

    def __init__(self, key: bytes) -> None:
        self._aead = ChaCha20Poly1305(key)
        self._nonce = bytearray(12)
        self._counter = 0

    def seal(self, plain: memoryview, out: memoryview, first: int = 0) -> int:
        """Seal all of `plain` into `out`; return the bytes written.

        Args:
            plain: Any number of bytes.
            out: Room for `sealed_size(len(plain)) + 18` bytes.
            first: Put this many bytes (at most 65519) into a frame of their own first, so that
                what follows begins with a frame.
        """
        encrypt, nonce = self._aead.encrypt_into, self._nonce
        at = written = 0
        size = len(plain)
        take = min(first, MAX_PLAIN) or MAX_PLAIN
        while at < size:
            end = min(at + take, size)
            take = MAX_PLAIN
            length = end - at + TAG
            out[written] = length >> 8
            out[written + 1] = length & 0xFF
            struct.pack_into("<Q", nonce, 4, self._counter)
            if self._counter > _LAST_NONCE:
                raise Misuse("the nonces are used up")
            encrypt(nonce, plain[at:end], None, out[written + 2 : written + 2 + length])
            self._counter += 1
            written += 2 + length
            at = end
        return written


def sealed_size(plain: int) -> int:
    """Return how many bytes `plain` bytes take when sealed into full frames."""
    return plain + (2 + TAG) * -(-plain // MAX_PLAIN)


class Opener:
    """Opens frames, for one direction."""

    def __init__(self, key: bytes) -> None:
        self._aead = ChaCha20Poly1305(key)
        self._nonce = bytearray(12)
        self._counter = 0

    def open(self, cipher: memoryview, plain: memoryview) -> tuple[int, int]:
        """Open the first frame of `cipher` into `plain`; return (bytes consumed, bytes produced).

        (0, 0) means that the frame is not whole yet.

        Args:
            cipher: Bytes as received.
            plain: Room for 65519 bytes.

        Raises:
            PeerFault: The frame is malformed or was tampered with; the connection must end, and
                what stands in `plain` is undefined.
        """
        if len(cipher) < 2:
            return 0, 0
        length = cipher[0] << 8 | cipher[1]
        if length < TAG:
            raise PeerFault("noise-frame", f"{length} bytes")
        end = 2 + length
        if len(cipher) < end:
            return 0, 0
        produced = length - TAG
        struct.pack_into("<Q", self._nonce, 4, self._counter)
        try:
            self._aead.decrypt_into(self._nonce, cipher[2:end], None, plain[:produced])
        except InvalidTag as error:
            raise PeerFault("noise-decrypt") from error
        if self._counter >= _LAST_NONCE:
            raise PeerFault("noise-nonces")
        self._counter += 1
        return end, produced


@immutable
class Session:
    """What a finished handshake gives."""

    sealer: Sealer
    opener: Opener
    peer: PeerId
    key: PublicKey
    handshake_hash: bytes
    """32 bytes that both sides share and nobody else can choose."""
    muxer: str | None
    """Agreed inside the handshake; None: to be negotiated."""


class _Symmetric:
    """Noise's SymmetricState: chaining key, handshake hash and the current key."""

    def __init__(self) -> None:
        self.hash = self.chain = _NAME
        self._key: bytes | None = None
        self._counter = 0
        self.mix_hash(b"")  # the empty prologue

    def mix_hash(self, data: bytes) -> None:
        self.hash = hashlib.sha256(self.hash + data).digest()

    def _hkdf(self, material: bytes) -> tuple[bytes, bytes]:
        temporary = hmac.digest(self.chain, material, "sha256")
        first = hmac.digest(temporary, b"\x01", "sha256")
        return first, hmac.digest(temporary, first + b"\x02", "sha256")

    def mix_key(self, secret: bytes, public: bytes) -> None:
        """Mix in a Diffie-Hellman result."""
        try:
            shared = nacl.bindings.crypto_scalarmult(secret, public)
        except RuntimeError as error:  # libsodium refuses points of low order
            raise PeerFault("noise-public-key") from error
        self.chain, self._key = self._hkdf(shared)
        self._counter = 0

    def _next_nonce(self) -> bytes:
        nonce = struct.pack("<4xQ", self._counter)
        self._counter += 1
        return nonce

    def encrypt(self, plain: bytes) -> bytes:
        """Encrypt (if there is a key) and mix in."""
        data = plain
        if self._key is not None:
            data = ChaCha20Poly1305(self._key).encrypt(self._next_nonce(), plain, self.hash)
        self.mix_hash(data)
        return data

    def decrypt(self, data: bytes) -> bytes:
        """Decrypt (if there is a key) and mix in."""
        plain = data
        if self._key is not None:
            try:
                plain = ChaCha20Poly1305(self._key).decrypt(self._next_nonce(), data, self.hash)
            except InvalidTag as error:
                raise PeerFault("noise-decrypt", "in the handshake") from error
        self.mix_hash(data)
        return plain

    def split(self) -> tuple[bytes, bytes]:
        """Return the two transport keys, the initiator's sending key first."""
        return self._hkdf(b"")


class Handshake:
    """One XX handshake: feed it what arrives, send what it returns.

    Args:
        identity: Our key; it signs our Noise key.
        static: 32 secret bytes of an X25519 key; one for each process will do.
        ephemeral: 32 fresh secret bytes; never used twice.
        initiator: Whether we dialled.
        expected: The peer that must answer; None = anyone.
        muxers: Muxers that we speak, best first; empty = negotiate later.
    """

    def __init__(
        self,
        identity: PrivateKey,
        static: bytes,
        ephemeral: bytes,
        *,
        initiator: bool,
        expected: PeerId | None = None,
        muxers: Sequence[str] = (),
    ) -> None:
        self._identity = identity
        self._static = static
        self._static_public = nacl.bindings.crypto_scalarmult_base(static)
        self._ephemeral = ephemeral
        self._ephemeral_public = nacl.bindings.crypto_scalarmult_base(ephemeral)
        self._initiator = initiator
        self._expected = expected
        self._muxers = list(muxers)
        self._symmetric = _Symmetric()
        self._buffer = bytearray()
        self._their_ephemeral = b""
        self._their_key: PublicKey | None = None
        self._their_muxers: list[str] = []
        self._step = 0  # messages sent and received so far
        self.session: Session | None = None
        """Set when the handshake is over."""
        self.wrong_peer: PeerId | None = None
        """Who answered, if it was not the expected peer."""

    def start(self) -> bytes:
        """Return the initiator's first frame."""
        if not self._initiator or self._step:
            raise Misuse("only an initiator starts, once")
        self._step = 1
        self._symmetric.mix_hash(self._ephemeral_public)
        return _framed(self._ephemeral_public + self._symmetric.encrypt(b""))

    def receive(self, data: bytes | bytearray | memoryview) -> bytes:
        """Take bytes; return what is to be sent. When `session` is set, `remainder` is left over.

        Raises:
            PeerFault: The other side breaks the protocol, cannot prove who it is, is not who was
                expected (`noise-wrong-peer`), or is ourselves.
        """
        self._buffer += data
        out = b""
        while self.session is None and len(self._buffer) >= 2:
            length = int.from_bytes(self._buffer[:2], "big")
            if length > MAX_HANDSHAKE_MESSAGE:
                raise PeerFault("noise-handshake-length", str(length))
            if len(self._buffer) < 2 + length:
                break
            message = bytes(self._buffer[2 : 2 + length])
            del self._buffer[: 2 + length]
            out += self._message(message)
        return out

    @property
    def remainder(self) -> bytes:
        """Bytes behind the handshake."""
        return bytes(self._buffer)

    def _message(self, message: bytes) -> bytes:
        match self._initiator, self._step:
            case False, 0:
                self._read_ephemeral(message)
                self._symmetric.decrypt(message[32:])
                self._step = 2
                return self._second()
            case True, 1:
                self._read_second(message)
                self._step = 3
                third = self._third()
                self._finish()
                return third
            case False, 2:
                self._read_static(message)
                self._step = 3
                self._finish()
                return b""
            case _:
                raise Misuse("bytes before the start")

    def _read_ephemeral(self, message: bytes) -> None:
        if len(message) < 32:
            raise PeerFault("noise-handshake-length", str(len(message)))
        self._their_ephemeral = message[:32]
        self._symmetric.mix_hash(self._their_ephemeral)

    def _second(self) -> bytes:
        """`<- e, ee, s, es` and our payload."""
        symmetric = self._symmetric
        symmetric.mix_hash(self._ephemeral_public)
        symmetric.mix_key(self._ephemeral, self._their_ephemeral)
        out = self._ephemeral_public + symmetric.encrypt(self._static_public)
        symmetric.mix_key(self._static, self._their_ephemeral)
        return _framed(out + symmetric.encrypt(self._payload()))

    def _read_second(self, message: bytes) -> None:
        symmetric = self._symmetric
        self._read_ephemeral(message)
        symmetric.mix_key(self._ephemeral, self._their_ephemeral)
        their_static = self._decrypt_static(message[32:])
        symmetric.mix_key(self._ephemeral, their_static)
        self._read_payload(symmetric.decrypt(message[32 + 32 + TAG :]), their_static)

    def _third(self) -> bytes:
        """`-> s, se` and our payload."""
        symmetric = self._symmetric
        out = symmetric.encrypt(self._static_public)
        symmetric.mix_key(self._static, self._their_ephemeral)
        return _framed(out + symmetric.encrypt(self._payload()))

    def _read_static(self, message: bytes) -> None:
        symmetric = self._symmetric
        their_static = self._decrypt_static(message)
        symmetric.mix_key(self._ephemeral, their_static)
        self._read_payload(symmetric.decrypt(message[32 + TAG :]), their_static)

    def _decrypt_static(self, data: bytes) -> bytes:
        if len(data) < 32 + TAG:
            raise PeerFault("noise-handshake-length", str(len(data)))
        return self._symmetric.decrypt(data[: 32 + TAG])

    def _payload(self) -> bytes:
        payload = pb.NoiseHandshakePayload()
        payload.identity_key = self._identity.public.message
        payload.identity_sig = self._identity.sign(_SIGNED + self._static_public)
        payload.extensions.stream_muxers.extend(self._muxers)
        return bytes(payload.SerializeToString())

    def _read_payload(self, data: bytes, their_static: bytes) -> None:
        payload = pb.NoiseHandshakePayload()
        try:
            payload.ParseFromString(data)
        except (DecodeError, ValueError) as error:
            raise PeerFault("noise-payload", str(error)[:200]) from error
        key = PublicKey.from_message(payload.identity_key)
        if not key.verify(payload.identity_sig, _SIGNED + their_static):
            raise PeerFault("noise-signature")
        peer = key.peer_id
        if self._expected is not None and peer != self._expected:
            self.wrong_peer = peer
            raise PeerFault("noise-wrong-peer", f"{peer} instead of {self._expected}")
        if peer == self._identity.peer_id:
            raise PeerFault("noise-ourselves")
        self._their_key = key
        self._their_muxers = list(payload.extensions.stream_muxers[:MAX_MUXERS])

    def _finish(self) -> None:
        assert self._their_key is not None
        first, second = self._symmetric.split()
        sending, receiving = (first, second) if self._initiator else (second, first)
        self.session = Session(
            Sealer(sending),
            Opener(receiving),
            self._their_key.peer_id,
            self._their_key,
            self._symmetric.hash,
            self._agreed_muxer(),
        )

    def _agreed_muxer(self) -> str | None:
        ours, theirs = self._muxers, self._their_muxers
        if not ours or not theirs:
            return None
        wanted, had = (ours, theirs) if self._initiator else (theirs, ours)
        for muxer in wanted:
            if muxer in had:
                return muxer
        raise PeerFault("noise-no-common-muxer", ", ".join(theirs)[:80])


def _framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message
