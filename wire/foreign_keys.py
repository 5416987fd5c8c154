"""Signatures by keys of a kind that we never make: RSA, secp256k1, ECDSA (libp2p peer-id spec)."""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from .keys import KEY_ECDSA, KEY_RSA, KEY_SECP256K1

MAX_RSA_BITS: Final = 8192


def verify_foreign(kind: int, data: bytes, signature: bytes, message: bytes) -> bool:
    """Check an RSA (PKCS#1 v1.5), secp256k1 or ECDSA (DER) signature over SHA-256."""
    try:
        if kind == KEY_SECP256K1:
            point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), data)
            point.verify(signature, message, ec.ECDSA(hashes.SHA256()))
            return True
        key = load_der_public_key(data)
        if kind == KEY_RSA and isinstance(key, rsa.RSAPublicKey):
            if not 2048 <= key.key_size <= MAX_RSA_BITS:
                return False
            key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
            return True
        if kind == KEY_ECDSA and isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
            return True
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        pass
    return False
