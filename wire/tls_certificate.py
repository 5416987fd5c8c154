"""The certificate with which libp2p proves a peer id inside TLS 1.3 (libp2p TLS specification).

It is self-signed with a key of its own and carries one extension: the peer's key message, and that
key's signature of the certificate's key. So whoever holds the TLS connection holds the identity.
"""

from __future__ import annotations

import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from .errors import PeerFault
from .foreign_keys import MAX_RSA_BITS
from .ids import PeerId
from .immutable import immutable
from .keys import PrivateKey, PublicKey

EXTENSION: Final = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.1")
"""The libp2p Public Key Extension."""

PREFIX: Final = b"libp2p-tls-handshake:"
"""Stands before the certificate's key in what the identity signs."""

MAX_CERTIFICATE_BYTES: Final = 8192
"""Twice the largest RSA key with its signature, and room for what else is in a certificate."""

VALID_BEFORE: Final = datetime.timedelta(days=1)
VALID_AFTER: Final = datetime.timedelta(days=365 * 100)
"""As go-libp2p: nobody's clock is to matter."""

_UNDERSTOOD: Final = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage)
"""Critical extensions that forbid nothing here."""

_MALFORMED: Final = (
    *(ValueError, TypeError, OverflowError, UnsupportedAlgorithm, InvalidSignature),
    *(x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType),
)
"""What reading a certificate may raise."""

_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_SEQUENCE: Final = 0x30
_OCTETS: Final = 0x04


@immutable
class OwnCertificate:
    """A certificate of ours and its key, both as PEM."""

    certificate: bytes
    key: bytes


def encode_signed_key(key: bytes, signature: bytes) -> bytes:
    """Return the extension's value: SEQUENCE { publicKey OCTET STRING, signature OCTET STRING }."""
    return _der(_SEQUENCE, _der(_OCTETS, key) + _der(_OCTETS, signature))


def decode_signed_key(data: bytes) -> tuple[bytes, bytes]:
    """Return (key message, signature) of the extension's value.

    Raises:
        PeerFault: It is not exactly that.
    """
    inner, rest = _open(_SEQUENCE, data)
    key, left = _open(_OCTETS, inner)
    signature, behind = _open(_OCTETS, left)
    if rest or behind:
        raise PeerFault("tls-extension", "bytes behind its end")
    return key, signature


def make_certificate(identity: PrivateKey, secret: bytes, now: float) -> OwnCertificate:
    """Make a self-signed certificate for our identity.

    Args:
        identity: Who we are.
        secret: 32 random bytes: what the certificate's own key (ECDSA on P-256) is made of.
        now: Unix time.
    """
    number = int.from_bytes(secret, "big") % (_P256_ORDER - 1) + 1
    key = ec.derive_private_key(number, ec.SECP256R1())
    signed = encode_signed_key(
        identity.public.message, identity.sign(PREFIX + _spki(key.public_key()))
    )
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "libp2p")])
    at = datetime.datetime.fromtimestamp(now, datetime.UTC)
    serial = int.from_bytes(identity.sign(b"serial" + signed)[:8], "big") | 1
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), serial)
        .not_valid_before(at - VALID_BEFORE)
        .not_valid_after(at + VALID_AFTER)
        .add_extension(x509.UnrecognizedExtension(EXTENSION, signed), critical=True)
        .sign(key, hashes.SHA256())
    )
    return OwnCertificate(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def check_certificate(der: bytes, now: float, expected: PeerId | None = None) -> PublicKey:
    """Return the identity that a peer's certificate proves.

    That the peer holds the certificate's own key is for the TLS handshake to show.

    Args:
        der: The only certificate that it sent.
        now: Unix time.
        expected: Who it must be; None = anybody.

    Raises:
        PeerFault: The certificate proves nothing, or another peer.
    """
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise PeerFault("tls-certificate", "too long")
    try:
        certificate = x509.load_der_x509_certificate(der)
        value = _extension(certificate)
        at = datetime.datetime.fromtimestamp(now, datetime.UTC)
        if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
            raise PeerFault("tls-certificate", "not valid now")
        _check_own_signature(certificate)
        spki = _spki(certificate.public_key())
    except _MALFORMED as error:
        raise PeerFault("tls-certificate", type(error).__name__) from error
    message, signature = decode_signed_key(value)
    key = PublicKey.from_message(message)
    if not key.verify(signature, PREFIX + spki):
        raise PeerFault("tls-signature", "the identity did not sign this certificate's key")
    if expected is not None and key.peer_id != expected:
        raise PeerFault("tls-wrong-peer", f"{key.peer_id} instead of {expected}")
    return key


def _extension(certificate: x509.Certificate) -> bytes:
    """Return our extension's value; PeerFault if it is missing or another is critical."""
    found: bytes | None = None
    for extension in certificate.extensions:
        if extension.oid == EXTENSION:
            assert isinstance(extension.value, x509.UnrecognizedExtension)
            found = extension.value.value
        elif extension.critical and not isinstance(extension.value, _UNDERSTOOD):
            raise PeerFault("tls-certificate", "an unknown critical extension")
    if found is None:
        raise PeerFault("tls-certificate", "no libp2p extension")
    return found


def _check_own_signature(certificate: x509.Certificate) -> None:
    """Check that it is signed with its own key, by an algorithm of today."""
    key = certificate.public_key()
    signature, body = certificate.signature, certificate.tbs_certificate_bytes
    if isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, body)
        return
    algorithm = certificate.signature_hash_algorithm
    if not isinstance(algorithm, hashes.SHA256 | hashes.SHA384 | hashes.SHA512):
        raise PeerFault("tls-certificate", "a weak or unknown signature")
    if isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, body, ec.ECDSA(algorithm))
    elif isinstance(key, rsa.RSAPublicKey) and 2048 <= key.key_size <= MAX_RSA_BITS:
        scheme = certificate.signature_algorithm_parameters
        if not isinstance(scheme, padding.PKCS1v15 | padding.PSS):
            raise PeerFault("tls-certificate", "a weak or unknown signature")
        key.verify(signature, body, scheme, algorithm)
    else:
        raise PeerFault("tls-certificate", "a key of an unknown kind")


def _spki(key: object) -> bytes:
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.DER, public)  # type: ignore[attr-defined, no-any-return]


def _der(tag: int, value: bytes) -> bytes:
    size = len(value)
    if size < 0x80:
        return bytes([tag, size]) + value
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + value


def _open(tag: int, data: bytes) -> tuple[bytes, bytes]:
    """Return the value of the DER element at the front, and what stands behind it."""
    if len(data) < 2 or data[0] != tag:
        raise PeerFault("tls-extension", "not the expected element")
    size, at = data[1], 2
    if size & 0x80:
        count = size & 0x7F
        if not 1 <= count <= 2 or len(data) < 2 + count:
            raise PeerFault("tls-extension", "a bad length")
        size, at = int.from_bytes(data[2 : 2 + count], "big"), 2 + count
        if size < 0x80 or (count == 2 and size < 0x100):
            raise PeerFault("tls-extension", "a length that is not the shortest")
    if len(data) - at < size:
        raise PeerFault("tls-extension", "cut off")
    return data[at : at + size], data[at + size :]
