"""Blocks and their hashes, with the numbers of the profile `unixfs-v1-2025` (IPIP-499).

A content uses sha2-256, or blake3 (32 bytes) for leaves and nodes alike; the shape is the same.
"""

from __future__ import annotations

import hashlib
from typing import Final

from blake3 import blake3

from .errors import ContentRefused, Misuse
from .ids import BLAKE3, DAG_PB, RAW, SHA2_256, Cid

CHUNK: Final = 1 << 20
"""Bytes of a full leaf (profile)."""

WIDTH: Final = 1024
"""Links of a full node of a file (profile); also the most that we read (CVE-2023-23625)."""

MAX_READ_BLOCK: Final = 2 << 20
"""Largest block that is read (Bitswap's limit)."""

DIGEST_BYTES: Final = 32
"""Of both hash functions."""

HASH_CODES: Final = (SHA2_256, BLAKE3)

_MULTIHASH_PREFIX: Final = {code: bytes((code, DIGEST_BYTES)) for code in HASH_CODES}


def digest_of(code: int, block: bytes | bytearray | memoryview) -> bytes:
    """Return the digest of a block by the hash function `code` (one of `HASH_CODES`)."""
    if code == SHA2_256:
        return hashlib.sha256(block).digest()
    if code == BLAKE3:
        return blake3(block).digest()
    raise Misuse(f"hash function {code:#x}")


def cid_from(codec: int, code: int, digest: bytes) -> Cid:
    """Return the CID of a block whose digest is known."""
    return Cid(codec, _MULTIHASH_PREFIX[code] + digest)


EMPTY_MULTIHASHES: Final = frozenset(
    cid_from(RAW, code, digest_of(code, b"")).multihash for code in HASH_CODES
)
"""Of the leaf of an empty file."""


def node_cid(code: int, block: bytes) -> Cid:
    """Return the CID of a dag-pb node."""
    return cid_from(DAG_PB, code, digest_of(code, block))


def check_cid(cid: Cid) -> int:
    """Check that a CID names a block that we can read; return its hash function's code.

    Raises:
        ContentRefused: Its codec is neither raw nor dag-pb, or its hash not one of ours. Data
            inside the CID (identity hash) is refused too: the profile has none.
    """
    hashed = cid.multihash
    code = hashed[0]
    if len(hashed) != 2 + DIGEST_BYTES or hashed[:2] != _MULTIHASH_PREFIX.get(code):
        raise ContentRefused(f"{_short(cid)} uses a hash function that shoal does not read")
    if cid.codec not in (RAW, DAG_PB):
        raise ContentRefused(f"{_short(cid)} is neither a file nor a folder")
    return code


def matches(cid: Cid, block: bytes | bytearray | memoryview) -> bool:
    """Return whether the block is the one that a checked CID names."""
    return digest_of(cid.multihash[0], block) == cid.multihash[2:]


def pieces_of(size: int) -> int:
    """Return how many leaves a file of `size` bytes has; an empty one has one."""
    return max(1, -(-size // CHUNK))


def _short(cid: Cid) -> str:
    text = str(cid)
    return text if len(text) <= 64 else text[:60] + "…"
