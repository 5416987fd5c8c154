"""The beginning of a swarm stream: both sides prove that they know the content's hash.

The hash is the capability. Before both proofs hold nothing is told: no bitfield, no size, not even
whether the content is known; a wrong proof is answered exactly as an unknown content is.
"""

from __future__ import annotations

import hmac

from ..wire.errors import PeerFault
from ..wire.ids import Cid
from ..wire.swarm import (
    BITFIELD_REQUEST,
    PIECE_RUN,
    Hello,
    Reject,
    RejectReason,
    content_key,
    hash_proof,
)

FEATURES: tuple[str, ...] = (BITFIELD_REQUEST, PIECE_RUN)
"""What we speak beyond the protocol's first version; used only if both sides name it."""

REFUSAL = Reject(0, RejectReason.UNKNOWN_CONTENT)
"""The one answer to unknown contents and wrong proofs."""


def hello(root: Cid, handshake_hash: bytes, initiator: bool, pieces: int | None) -> Hello:
    """Return our Hello for a content.

    Args:
        root: The content.
        handshake_hash: Of the connection.
        initiator: Whether we dialled the connection.
        pieces: How many pieces it has, if we know.
    """
    proof = hash_proof(root, handshake_hash, initiator)
    return Hello(content_key(root), proof, FEATURES, pieces or 0)


def proves(theirs: Hello, root: Cid | None, handshake_hash: bytes, initiator: bool) -> bool:
    """Return whether a peer's Hello proves that it knows `root`.

    Args:
        theirs: What it sent.
        root: The content with the key that it named; None = we have none.
        handshake_hash: Of the connection.
        initiator: Whether the peer dialled the connection.
    """
    wanted = root or Cid(0, bytes(34))  # the same work, whether we know the content or not
    expected = hash_proof(wanted, handshake_hash, initiator)
    return hmac.compare_digest(expected, theirs.proof) and root is not None


def check_answer(theirs: Hello, root: Cid, handshake_hash: bytes, initiator: bool) -> None:
    """Check the Hello that answers ours.

    Raises:
        PeerFault: It is for another content, or proves nothing.
    """
    right_key = hmac.compare_digest(theirs.key, content_key(root))
    if not (right_key and proves(theirs, root, handshake_hash, initiator)):
        raise PeerFault("swarm-proof")
