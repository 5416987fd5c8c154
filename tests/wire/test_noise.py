"""Noise XX against a second, independent account of the specification, and hostile handshakes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_decrypt,
    crypto_aead_chacha20poly1305_ietf_encrypt,
)

from shoal.wire.errors import Misuse, PeerFault
from shoal.wire.keys import PrivateKey
from shoal.wire.noise import MAX_PLAIN, Handshake, Opener, Sealer, Session, sealed_size
from shoal.wire.proto import shoal_noise_pb2

ALICE, BOB, EVE = (PrivateKey(bytes([n]) * 32) for n in (1, 2, 3))
YAMUX = "/yamux/1.0.0"


def secret(number: int) -> bytes:
    return hashlib.sha256(b"secret %d" % number).digest()


def handshakes(
    alice_muxers: tuple[str, ...] = (YAMUX,), bob_muxers: tuple[str, ...] = (YAMUX,)
) -> tuple[Handshake, Handshake]:
    return (
        Handshake(
            ALICE, secret(1), secret(2), initiator=True, expected=BOB.peer_id, muxers=alice_muxers
        ),
        Handshake(BOB, secret(3), secret(4), initiator=False, muxers=bob_muxers),
    )


def sessions() -> tuple[Session, Session]:
    alice, bob = handshakes()
    bob.receive(alice.receive(bob.receive(alice.start())))
    assert alice.session is not None
    assert bob.session is not None
    return alice.session, bob.session


class Reference:
    """The responder of Noise XX, written from the specification with other libraries."""

    def __init__(self) -> None:
        self.ck = self.h = b"Noise_XX_25519_ChaChaPoly_SHA256"
        self.k: bytes | None = None
        self.n = 0
        self.static = X25519PrivateKey.from_private_bytes(secret(30))
        self.ephemeral = X25519PrivateKey.from_private_bytes(secret(40))
        self.mix_hash(b"")

    def mix_hash(self, data: bytes) -> None:
        self.h = hashlib.sha256(self.h + data).digest()

    def derive(self, material: bytes) -> tuple[bytes, bytes]:
        # RFC 5869 with an empty info and 64 bytes is Noise's HKDF with two outputs.
        out = HKDF(SHA256(), 64, self.ck, b"").derive(material)
        return out[:32], out[32:]

    def mix_key(self, own: X25519PrivateKey, theirs: bytes) -> None:
        shared = own.exchange(X25519PublicKey.from_public_bytes(theirs))
        self.ck, self.k = self.derive(shared)
        self.n = 0

    def nonce(self) -> bytes:
        self.n += 1
        return bytes(4) + (self.n - 1).to_bytes(8, "little")

    def seal(self, plain: bytes) -> bytes:
        assert self.k is not None
        out = crypto_aead_chacha20poly1305_ietf_encrypt(plain, self.h, self.nonce(), self.k)
        self.mix_hash(out)
        return out

    def open(self, cipher: bytes) -> bytes:
        assert self.k is not None
        out = crypto_aead_chacha20poly1305_ietf_decrypt(cipher, self.h, self.nonce(), self.k)
        self.mix_hash(cipher)
        return out

    def payload(self, key: PrivateKey, muxers: list[str]) -> bytes:
        public = self.static.public_key().public_bytes_raw()
        identity, signature = key.public.message, key.sign(b"noise-libp2p-static-key:" + public)
        out = b"\x0a" + bytes([len(identity)]) + identity + b"\x12\x40" + signature
        inner = b"".join(b"\x12" + bytes([len(m)]) + m.encode() for m in muxers)
        return out + (b"\x22" + bytes([len(inner)]) + inner if inner else b"")


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


@pytest.mark.parametrize("muxers", [[YAMUX], []])
def test_against_an_independent_responder(muxers: list[str]) -> None:
    alice, _ = handshakes()
    ref = Reference()
    first = alice.start()
    assert len(first) == 2 + 32
    their_e = first[2:]
    ref.mix_hash(their_e)
    ref.mix_hash(b"")  # the empty payload of the first message
    own_e = ref.ephemeral.public_key().public_bytes_raw()
    ref.mix_hash(own_e)
    ref.mix_key(ref.ephemeral, their_e)
    second = own_e + ref.seal(ref.static.public_key().public_bytes_raw())
    ref.mix_key(ref.static, their_e)
    second += ref.seal(ref.payload(BOB, muxers))
    third = alice.receive(framed(second))
    their_s = ref.open(third[2 : 2 + 48])
    ref.mix_key(ref.ephemeral, their_s)
    payload = shoal_noise_pb2.NoiseHandshakePayload.FromString(ref.open(third[2 + 48 :]))
    assert payload.identity_key == ALICE.public.message
    assert ALICE.public.verify(payload.identity_sig, b"noise-libp2p-static-key:" + their_s)
    session = alice.session
    assert session is not None
    assert session.peer == BOB.peer_id
    assert session.handshake_hash == ref.h
    assert session.muxer == (YAMUX if muxers else None)
    send, receive = ref.derive(b"")
    out = memoryview(bytearray(100))
    assert session.sealer.seal(memoryview(b"hello"), out) == 2 + 5 + 16
    plain = crypto_aead_chacha20poly1305_ietf_decrypt(bytes(out[2:23]), None, bytes(12), send)
    assert plain == b"hello"
    frame = framed(crypto_aead_chacha20poly1305_ietf_encrypt(b"hi", None, bytes(12), receive))
    buffer = memoryview(bytearray(MAX_PLAIN))
    assert session.opener.open(memoryview(frame), buffer) == (len(frame), 2)
    assert bytes(buffer[:2]) == b"hi"


@given(st.lists(st.integers(0, 600), max_size=6), st.binary(max_size=30))
@settings(max_examples=40)
def test_two_sides_under_every_split(cuts: list[int], behind: bytes) -> None:
    alice, bob = handshakes()
    to_bob, to_alice = alice.start(), b""
    while alice.session is None or bob.session is None:
        edges = [0, *sorted(cut % (len(to_bob) + 1) for cut in cuts), len(to_bob)]
        for a, b in pairwise(edges):
            to_alice += bob.receive(to_bob[a:b])
        to_bob = alice.receive(to_alice) + (behind if to_alice else b"")
        to_alice = b""
    assert bob.remainder == behind
    assert alice.remainder == b""
    assert alice.session.peer == BOB.peer_id
    assert bob.session.peer == ALICE.peer_id
    assert alice.session.handshake_hash == bob.session.handshake_hash


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"),
    [
        (("/a", "/b"), ("/b", "/a"), "/a"),
        (("/x", "/b"), ("/b",), "/b"),
        ((), ("/b",), None),
        (("/b",), (), None),
    ],
)
def test_the_muxer_is_the_initiators_first_that_both_have(
    ours: tuple[str, ...], theirs: tuple[str, ...], agreed: str | None
) -> None:
    alice, bob = handshakes(ours, theirs)
    bob.receive(alice.receive(bob.receive(alice.start())))
    assert alice.session is not None
    assert bob.session is not None
    assert alice.session.muxer == bob.session.muxer == agreed


def test_no_common_muxer() -> None:
    alice, bob = handshakes(("/a",), ("/b",))
    with pytest.raises(PeerFault, match="noise-no-common-muxer"):
        alice.receive(bob.receive(alice.start()))


def test_another_peer_than_expected() -> None:
    alice, _ = handshakes()
    eve = Handshake(EVE, secret(5), secret(6), initiator=False)
    with pytest.raises(PeerFault, match="noise-wrong-peer") as raised:
        alice.receive(eve.receive(alice.start()))
    assert alice.wrong_peer == EVE.peer_id
    assert str(EVE.peer_id) in raised.value.detail


def test_our_own_key_answers() -> None:
    alice = Handshake(ALICE, secret(1), secret(2), initiator=True)
    mirror = Handshake(ALICE, secret(3), secret(4), initiator=False)
    with pytest.raises(PeerFault, match="noise-ourselves"):
        alice.receive(mirror.receive(alice.start()))


def test_a_key_that_is_not_the_peers() -> None:
    """Eve shows Bob's public key, but cannot sign with it."""

    class Pretender:
        public = BOB.public
        peer_id = BOB.peer_id

        def sign(self, message: bytes) -> bytes:
            return EVE.sign(message)

    alice, _ = handshakes()
    eve = Handshake(
        Pretender(),  # type: ignore[arg-type]
        secret(5),
        secret(6),
        initiator=False,
    )
    with pytest.raises(PeerFault, match="noise-signature"):
        alice.receive(eve.receive(alice.start()))


def test_a_point_of_low_order() -> None:
    _, bob = handshakes()
    with pytest.raises(PeerFault, match="noise-public-key"):
        bob.receive(framed(bytes(32)))


@given(st.data())
@settings(max_examples=60)
def test_a_changed_bit_anywhere_ends_the_handshake(data: st.DataObject) -> None:
    alice, bob = handshakes()
    first = alice.start()
    second = bytearray(bob.receive(first))
    at = data.draw(st.integers(2, len(second) - 1))
    second[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(PeerFault):
        alice.receive(second)


@given(st.binary(max_size=400))
def test_garbage_is_the_peers_fault(data: bytes) -> None:
    alice, bob = handshakes()
    alice.start()
    for machine in (alice, bob):
        try:
            machine.receive(data)
        except PeerFault:
            continue
        assert machine.session is None


@pytest.mark.parametrize("length", [8193, 65535])
def test_a_huge_length_is_refused_before_its_bytes(length: int) -> None:
    _, bob = handshakes()
    with pytest.raises(PeerFault, match="noise-handshake-length"):
        bob.receive(length.to_bytes(2, "big"))


def test_misuse() -> None:
    alice, bob = handshakes()
    with pytest.raises(Misuse):
        bob.start()
    alice.start()
    with pytest.raises(Misuse):
        alice.start()


# Transport frames


def seal(session: Session, plain: bytes, first: int = 0) -> bytes:
    out = memoryview(bytearray(sealed_size(len(plain)) + 18))
    return bytes(out[: session.sealer.seal(memoryview(plain), out, first)])


def open_all(session: Session, data: bytes, step: Callable[[int], int]) -> bytes:
    buffer = memoryview(bytearray(MAX_PLAIN))
    held, at, plain = b"", 0, b""
    while at < len(data):
        take = step(len(data) - at)
        held += data[at : at + take]
        at += take
        while True:
            consumed, produced = session.opener.open(memoryview(held), buffer)
            if not consumed:
                break
            plain += bytes(buffer[:produced])
            held = held[consumed:]
    assert held == b""
    return plain


@given(st.integers(0, 200_000), st.integers(0, 70_000), st.integers(1, 100_000))
@settings(max_examples=25)
def test_what_is_sealed_opens(size: int, first: int, step: int) -> None:
    alice, bob = sessions()
    plain = hashlib.sha256(b"%d" % size).digest() * (size // 32 + 1)
    data = seal(alice, plain[:size], first)
    assert open_all(bob, data, lambda left: min(step, left)) == plain[:size]
    if not first:
        assert len(data) == sealed_size(size)


def test_control_bytes_get_a_frame_of_their_own() -> None:
    alice, _ = sessions()
    data = seal(alice, bytes(24 + MAX_PLAIN), 24)
    assert int.from_bytes(data[:2], "big") == 24 + 16
    assert int.from_bytes(data[2 + 40 : 4 + 40], "big") == MAX_PLAIN + 16


def test_a_tampered_or_repeated_frame_is_refused() -> None:
    alice, bob = sessions()
    data = seal(alice, b"piece")
    buffer = memoryview(bytearray(MAX_PLAIN))
    bad = bytearray(data)
    bad[-1] ^= 1
    with pytest.raises(PeerFault, match="noise-decrypt"):
        bob.opener.open(memoryview(bad), buffer)
    assert bob.opener.open(memoryview(data), buffer) == (len(data), 5)
    with pytest.raises(PeerFault, match="noise-decrypt"):
        bob.opener.open(memoryview(data), buffer)


def test_an_empty_frame_is_legal_and_a_short_one_is_not() -> None:
    key = bytes(32)
    buffer = memoryview(bytearray(MAX_PLAIN))
    empty = framed(crypto_aead_chacha20poly1305_ietf_encrypt(b"", None, bytes(12), key))
    assert Opener(key).open(memoryview(empty), buffer) == (18, 0)
    with pytest.raises(PeerFault, match="noise-frame"):
        Opener(key).open(memoryview(b"\x00\x0f" + bytes(15)), buffer)


def test_the_nonce_is_little_endian_and_counts_per_direction() -> None:
    key = secret(9)
    out = memoryview(bytearray(100))
    sealer = Sealer(key)
    for counter in range(3):
        written = sealer.seal(memoryview(b"x"), out)
        nonce = bytes(4) + counter.to_bytes(8, "little")
        sealed = bytes(out[2:written])
        assert crypto_aead_chacha20poly1305_ietf_decrypt(sealed, None, nonce, key) == b"x"
