"""The certificate that proves a peer id, with the vectors of the libp2p TLS specification."""

from __future__ import annotations

import datetime
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from shoal.wire.errors import PeerFault
from shoal.wire.ids import PeerId
from shoal.wire.keys import PrivateKey
from shoal.wire.tls_certificate import (
    EXTENSION,
    MAX_CERTIFICATE_BYTES,
    PREFIX,
    check_certificate,
    decode_signed_key,
    encode_signed_key,
    make_certificate,
)

NOW = 1_800_000_000.0
ALICE = PrivateKey(hashlib.sha256(b"alice").digest())
BOB = PrivateKey(hashlib.sha256(b"bob").digest())

_FRONT = (
    "300a06082a8648ce3d040302302031123010060355040a13096c69627032702e696f310a30080603550405130131"
    "3020170d3735303130313133303030305a180f34303936303130313133303030305a302031123010060355040a13"
    "096c69627032702e696f310a300806035504051301313059301306072a8648ce3d020106082a8648ce3d03010703"
    "4200040c901d423c831ca85e27c73c263ba132721bb9d7a84c4f0380b2a6756fd601331c8870234dec878504c174"
    "144fa4b14b66a651691606d8173e55bd37e381569ea3"
)
ED25519 = (
    "308201ae30820156a0030201020204499602d2" + _FRONT + "7c307a3078060a2b0601040183a25a0101046a30"
    "68042408011220a77f1d92fedb59dddaea5a1c4abd1ac2fbde7d7b879ed364501809923d7c11b90440d90d2769db"
    "992d5e6195dbb08e706b6651e024fda6cfb8846694a435519941cac215a8207792e42849cccc6cd8136c6e4bde92"
    "a58c5e08cfd4206eb5fe0bf909300a06082a8648ce3d0403020346003043021f50f6b6c52711a881778718238f65"
    "0c9fb48943ae6ee6d28427dc6071ae55e702203625f116a7a454db9c56986c82a25682f7248ea1cb764d322ea983"
    "ed36a31b77"
)
_ECDSA_KEY = (
    "81c23081bf3081bc060a2b0601040183a25a01010481ad3081aa045f0803125b3059301306072a8648ce3d020106"
    "082a8648ce3d03010703420004bf30511f909414ebdd3242178fd290f093a551cf75c973155de0bb5a96fedf6cb5"
    "d52da7563e794b512f66e60c7f55ba8a3acf3dd72a801980d205e8a1ad29f2"
)
ECDSA = (
    "308201f63082019da0030201020204499602d2" + _FRONT + _ECDSA_KEY + "044730450220064ea8124774caf8"
    "f50e57f436aa62350ce652418c019df5d98a3ac666c9386a022100aa59d704a931b5f72fb9222cb6cc51f954d04a"
    "4e2e5450f8805fe8918f71eaae300a06082a8648ce3d04030203470030440220799395b0b6c1e940a7e4484705f6"
    "10ab51ed376f19ff9d7c16757cfbf61b8d4302206205c03fbb0f95205c779be86581d3e31c01871ad5d1f3435bcf"
    "375cb0e5088a"
)
SECP256K1 = (
    "308201ba3082015fa0030201020204499602d2" + _FRONT + "8184308181307f060a2b0601040183a25a010104"
    "71306f0425080212210206dc6968726765b820f050263ececf7f71e4955892776c0970542efd689d238204463044"
    "0220145e15a991961f0d08cd15425bb95ec93f6ffa03c5a385eedc34ecf464c7a8ab022026b3109b8a3f40ef8331"
    "69777eb2aa337cfb6282f188de0666d1bcec2a4690dd300a06082a8648ce3d0403020349003046022100e1a217ee"
    "ef9ec9204b3f774a08b70849646b6a1e6b8b27f93dc00ed58545d9fe022100b00dafa549d0f03547878338c7b15e"
    "7502888f6d45db387e5ae6b5d46899cef0"
)
INVALID = (
    "308201f73082019da0030201020204499602d2" + _FRONT + _ECDSA_KEY + "04473045022100bb"
    "6e03577b7cc7a3cd1558df0da2b117dfdcc0399bc2504ebe7de6f65cade72802206de96e2a5be9b6202adba24ee0"
    "362e490641ac45c240db71fe955f2c5cf8df6e300a06082a8648ce3d0403020348003045022100e847f267f43717"
    "358f850355bdcabbefb2cfbf8a3c043b203a14788a092fe8db022027c1d04a2d41fd6b57a7e8b3989e470325de44"
    "06e52e084e34a3fd56eef0d0df"
)


def der(made: bytes) -> bytes:
    return x509.load_pem_x509_certificate(made).public_bytes(serialization.Encoding.DER)


def ours(identity: PrivateKey = ALICE, now: float = NOW) -> bytes:
    return der(make_certificate(identity, bytes(range(32)), now).certificate)


@pytest.mark.parametrize(
    ("certificate", "peer"),
    [
        (ED25519, "12D3KooWM6CgA9iBFZmcYAHA6A2qvbAxqfkmrYiRQuz3XEsk4Ksv"),
        (ECDSA, "QmfXbAwNjJLXfesgztEHe8HwgVDCMMpZ9Eax1HYq6hn9uE"),
        (SECP256K1, "16Uiu2HAkutTMoTzDw1tCvSRtu6YoixJwS46S1ZFxW8hSx9fWHiPs"),
    ],
)
def test_the_certificates_of_the_specification_prove_their_peers(
    certificate: str, peer: str
) -> None:
    data = bytes.fromhex(certificate)
    assert check_certificate(data, NOW).peer_id == PeerId.parse(peer)
    assert check_certificate(data, NOW, PeerId.parse(peer)).peer_id.raw
    with pytest.raises(PeerFault, match="tls-wrong-peer"):
        check_certificate(data, NOW, ALICE.peer_id)


def test_the_one_that_another_key_signed_proves_nobody() -> None:
    with pytest.raises(PeerFault, match="tls-signature"):
        check_certificate(bytes.fromhex(INVALID), NOW)


def test_what_we_make_proves_us_now_and_for_long() -> None:
    assert check_certificate(ours(), NOW, ALICE.peer_id) == ALICE.public
    assert check_certificate(ours(), NOW + 20 * 365 * 86400.0) == ALICE.public
    assert check_certificate(ours(), NOW - 3600.0) == ALICE.public  # a clock that is behind
    for at in (NOW - 10 * 86400.0, NOW + 200 * 365 * 86400.0):
        with pytest.raises(PeerFault, match="tls-certificate"):
            check_certificate(ours(), at)


def test_no_byte_of_it_can_be_changed() -> None:
    data = ours()
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 0x10
        try:
            found = check_certificate(bytes(changed), NOW)
        except PeerFault:
            continue
        pytest.fail(f"byte {at} changed, and it still proves {found.peer_id}")


def made(value: bytes | None, *, sign_with: str = "own", critical: bool = False) -> bytes:
    """Make a certificate with this extension (None: without)."""
    key, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    at = datetime.datetime.fromtimestamp(NOW, datetime.UTC)
    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    if value == b"right":
        value = encode_signed_key(BOB.public.message, BOB.sign(PREFIX + spki))
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), 7)
        .not_valid_before(at - datetime.timedelta(days=1))
        .not_valid_after(at + datetime.timedelta(days=1))
    )
    if value is not None:
        builder = builder.add_extension(x509.UnrecognizedExtension(EXTENSION, value), False)
    if critical:
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"")
        builder = builder.add_extension(unknown, True)
    signer = key if sign_with == "own" else other
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def test_each_condition_counts() -> None:
    assert check_certificate(made(b"right"), NOW, BOB.peer_id) == BOB.public
    for bad in (
        made(None),
        made(b"right", sign_with="another"),
        made(b"right", critical=True),
        made(encode_signed_key(BOB.public.message, BOB.sign(b"something else"))),
        made(encode_signed_key(b"", b"")),
        b"",
        b"\x30\x82",
        ours() + bytes(MAX_CERTIFICATE_BYTES),
    ):
        with pytest.raises(PeerFault):
            check_certificate(bad, NOW)


@given(st.binary(max_size=700), st.binary(max_size=700))
def test_the_extension_comes_back_as_it_was(key: bytes, signature: bytes) -> None:
    data = encode_signed_key(key, signature)
    assert decode_signed_key(data) == (key, signature)
    for end in {0, 1, len(data) // 2, len(data) - 1}:
        with pytest.raises(PeerFault):
            decode_signed_key(data[:end])
    with pytest.raises(PeerFault):
        decode_signed_key(data + b"\0")


@given(st.binary(max_size=300))
def test_garbage_is_a_fault_and_nothing_else(data: bytes) -> None:
    with pytest.raises(PeerFault):
        check_certificate(data, NOW)
    try:
        key, signature = decode_signed_key(data)
    except PeerFault:
        return
    assert encode_signed_key(key, signature) == data
