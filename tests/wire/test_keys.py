"""Key messages, signatures and peer ids, against the peer-id specification's test vectors."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.wire import varint
from shoal.wire.errors import InvalidText, PeerFault
from shoal.wire.keys import (
    KEY_ECDSA,
    KEY_ED25519,
    KEY_RSA,
    KEY_SECP256K1,
    MAX_KEY_MESSAGE_BYTES,
    PrivateKey,
    PublicKey,
)

# "Test vectors" of the libp2p peer-id specification.
ED25519_PRIVATE = bytes.fromhex(
    "080112407e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d"
    "1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e"
)
ED25519_PUBLIC = bytes.fromhex(
    "080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e"
)
SECP256K1_PRIVATE = bytes.fromhex(
    "0802122053dadf1d5a164d6b4acdb15e24aa4c5b1d3461bdbd42abedb0a4404d56ced8fb"
)
SECP256K1_PUBLIC = bytes.fromhex(
    "08021221037777e994e452c21604f91de093ce415f5432f701dd8cd1a7a6fea0e630bfca99"
)
ECDSA_PRIVATE = bytes.fromhex(
    "08031279307702010104203e5b1fe9712e6c314942a750bd67485de3c1efe85b1bfb520ae8f9ae3dfa4a4ca00a"
    "06082a8648ce3d030107a14403420004de3d300fa36ae0e8f5d530899d83abab44abf3161f162a4bc901d8e6ec"
    "da020e8b6d5f8da30525e71d6851510c098e5c47c646a597fb4dcec034e9f77c409e62"
)
ECDSA_PUBLIC = bytes.fromhex(
    "0803125b3059301306072a8648ce3d020106082a8648ce3d03010703420004de3d300fa36ae0e8f5d530899d83"
    "abab44abf3161f162a4bc901d8e6ecda020e8b6d5f8da30525e71d6851510c098e5c47c646a597fb4dcec034e9"
    "f77c409e62"
)


def message(kind: int, data: bytes) -> bytes:
    return b"\x08" + varint.encode(kind) + b"\x12" + varint.encode(len(data)) + data


def test_the_specification_s_ed25519_key() -> None:
    key = PrivateKey.from_message(ED25519_PRIVATE)
    assert key.public.message == ED25519_PUBLIC
    assert key.message == ED25519_PRIVATE
    assert str(key.peer_id) == "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq"
    assert key.peer_id.raw == b"\x00\x24" + ED25519_PUBLIC


def test_the_old_form_repeats_the_public_key() -> None:
    data = ED25519_PRIVATE[4:]
    assert (
        PrivateKey.from_message(message(KEY_ED25519, data + data[32:])).message == ED25519_PRIVATE
    )
    with pytest.raises(InvalidText):
        PrivateKey.from_message(message(KEY_ED25519, data + data[:32]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        ED25519_PUBLIC,
        ED25519_PRIVATE[:-1],
        ED25519_PRIVATE + b"\0",
        SECP256K1_PRIVATE,
        message(KEY_ED25519, bytes(64)),
        message(KEY_ED25519, ED25519_PRIVATE[4:36]),
    ],
)
def test_what_is_no_private_key_of_ours(data: bytes) -> None:
    with pytest.raises(InvalidText):
        PrivateKey.from_message(data)


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100))
def test_a_signature_holds_for_its_key_and_bytes_alone(seed: bytes, text: bytes) -> None:
    key = PrivateKey(seed)
    other = PrivateKey(bytes(b ^ 1 for b in seed))
    signature = key.sign(text)
    public = PublicKey.from_message(key.public.message)
    assert public.peer_id == key.peer_id
    assert public.verify(signature, text)
    assert not public.verify(signature, text + b"\0")
    assert not public.verify(signature[:-1], text)
    assert not public.verify(signature + b"\0", text)
    assert not public.verify(b"", text)
    assert not other.public.verify(signature, text)


def test_secp256k1_signatures_are_checked() -> None:
    number = int.from_bytes(SECP256K1_PRIVATE[4:], "big")
    private = ec.derive_private_key(number, ec.SECP256K1())
    public = PublicKey.from_message(SECP256K1_PUBLIC)
    signature = private.sign(b"text", ec.ECDSA(hashes.SHA256()))
    assert public.verify(signature, b"text")
    assert not public.verify(signature, b"other")
    assert not PublicKey.from_message(message(KEY_SECP256K1, b"\x02" * 33)).verify(signature, b"")


def test_ecdsa_signatures_are_checked() -> None:
    private = load_der_private_key(ECDSA_PRIVATE[4:], None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    public = PublicKey.from_message(ECDSA_PUBLIC)
    signature = private.sign(b"text", ec.ECDSA(hashes.SHA256()))
    assert public.verify(signature, b"text")
    assert not public.verify(signature, b"other")


def test_rsa_signatures_are_checked_and_small_keys_are_not_trusted() -> None:
    for bits, trusted in ((2048, True), (1024, False)):
        private = rsa.generate_private_key(65537, bits)
        der = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        public = PublicKey.from_message(message(KEY_RSA, der))
        signature = private.sign(b"text", padding.PKCS1v15(), hashes.SHA256())
        assert public.verify(signature, b"text") is trusted
        assert not public.verify(signature, b"other")
        assert public.peer_id.raw[:2] == b"\x12\x20"


def test_a_key_of_another_kind_under_a_wrong_label_verifies_nothing() -> None:
    as_rsa = PublicKey.from_message(message(KEY_RSA, ECDSA_PUBLIC[4:]))
    as_ecdsa = PublicKey.from_message(message(KEY_ECDSA, b"no key"))
    assert not as_rsa.verify(bytes(64), b"text")
    assert not as_ecdsa.verify(bytes(64), b"text")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x08",
        b"\x08\x01",
        b"\x08\x01\x12",
        ED25519_PUBLIC[:-1],
        ED25519_PUBLIC + b"\0",
        b"\x12" + ED25519_PUBLIC[3:] + b"\x08\x01",  # the other order
        b"\x08\x81\x00" + ED25519_PUBLIC[2:],  # a padded varint
        message(KEY_ED25519, bytes(31)),
        message(4, bytes(32)),
        b"\x08\x01\x12" + varint.encode(varint.MAX_VALUE),
        message(KEY_RSA, bytes(MAX_KEY_MESSAGE_BYTES)),
    ],
)
def test_other_bytes_are_no_key_message(data: bytes) -> None:
    with pytest.raises(PeerFault):
        PublicKey.from_message(data)


@settings(max_examples=200)
@given(
    st.one_of(
        st.binary(max_size=80),
        st.builds(message, st.integers(0, 3), st.binary(max_size=120)),
    ),
    st.binary(max_size=80),
)
def test_garbage_neither_crashes_nor_verifies(data: bytes, signature: bytes) -> None:
    try:
        key = PublicKey.from_message(data)
    except PeerFault:
        return
    assert key.message == data
    assert not key.verify(signature, b"text")
