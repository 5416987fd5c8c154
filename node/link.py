"""Links: `shoal:CID[,name=…][,peer=…]*`, and the other texts that name a content.

The CID alone suffices; name and peers are hints from a stranger and are treated so. Values are
percent-encoded but for `A-Za-z0-9-._~/:@+`, so no shell needs quotes around a link.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote, unquote_to_bytes

from multiaddr import Multiaddr

from ..wire.addresses import parse_multiaddr, peer_of
from ..wire.errors import InvalidText
from ..wire.ids import Cid, PeerId
from ..wire.immutable import immutable

MAX_LINK_BYTES = 4096
MAX_PEERS = 16
_PLAIN = "-._~/:@+"
_PREFIXES = ("shoal:", "/ipfs/", "ipfs://")

PeerHint = Multiaddr | PeerId
"""Where to ask: an address (with or without `/p2p/…`), or a peer id that the DHT resolves."""


@immutable
class Link:
    """A content and hints for fetching it."""

    cid: Cid
    name: str | None = None
    peers: tuple[PeerHint, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Link:
        """Read a link, a bare CID, `/ipfs/CID` or `ipfs://CID`.

        Raises:
            InvalidText: It is none of them; the text says which part is wrong.
        """
        text = text.strip()
        if len(text.encode("utf-8", "surrogateescape")) > MAX_LINK_BYTES:
            raise InvalidText(f"a link has at most {MAX_LINK_BYTES} bytes, this one is longer")
        is_link = text.startswith("shoal:")
        for prefix in _PREFIXES:
            if text.startswith(prefix):
                text = text.removeprefix(prefix).removesuffix("/")
                break
        head, *fields = text.split(",") if is_link else [text]
        cid = Cid.parse(head)
        name: str | None = None
        peers: list[PeerHint] = []
        for field in fields:
            key, equals, value = field.partition("=")
            if not equals:
                raise InvalidText(f"{field!r} in the link is not of the form name=value")
            if key == "name" and name is None:
                name = _decode(value)
            elif key == "peer":
                if len(peers) >= MAX_PEERS:
                    raise InvalidText(f"a link names at most {MAX_PEERS} peers")
                peers.append(parse_peer(_decode(value)))
        return cls(cid, name, tuple(peers))

    def __str__(self) -> str:
        parts = [f"shoal:{self.cid}"]
        if self.name:
            parts.append(f"name={_encode(self.name)}")
        parts += [f"peer={_encode(str(peer))}" for peer in self.peers[:MAX_PEERS]]
        while len(",".join(parts)) > MAX_LINK_BYTES and len(parts) > 1:
            parts.pop()  # hints only: the CID alone suffices
        return ",".join(parts)


def parse_peer(text: str) -> PeerHint:
    """Read what `--peer` and `--bootstrap` take: a multiaddr or a bare peer id.

    Raises:
        InvalidText: It is neither.
    """
    if text.startswith("/"):
        return parse_multiaddr(text)
    return PeerId.parse(text)


def parse_peers(texts: Sequence[str]) -> list[PeerHint]:
    """Read several peers; the first bad one raises InvalidText."""
    return [parse_peer(text) for text in texts]


def hinted_peer(hint: PeerHint) -> PeerId | None:
    """Return the peer id that a hint names, if it names one."""
    return hint if isinstance(hint, PeerId) else peer_of(hint)


def _encode(value: str) -> str:
    return quote(value, safe=_PLAIN)


def _decode(value: str) -> str:
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError as error:
        raise InvalidText(f"{value!r} in the link is not UTF-8 text") from error
