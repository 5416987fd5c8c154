"""`share`: hash a file or folder where it lies, serve it, announce it."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from threading import Event as ThreadEvent
from typing import TYPE_CHECKING

import trio
from multiaddr import Multiaddr

from ..storage.model import Announce, Content
from ..wire.addresses import Scope, scope_of, with_peer
from ..wire.ids import BLAKE3, SHA2_256, Cid, multihash
from ..wire.immutable import immutable
from ..wire.swarm import content_key
from .errors import UsageError
from .events import Announced, Hashing, Shared
from .link import MAX_PEERS, Link, PeerHint, parse_peers
from .operations import Teller

if TYPE_CHECKING:
    from ..storage.importer import Imported
    from .app import Node

HASHING_SECONDS = 0.25
"""How often `hashing` is told."""

LINK_ADDRS = 4
"""Addresses of ours in a link: hints only, and people paste it."""


@immutable
class ShareOptions:
    """See `Client.share`."""

    hash_only: bool
    public: bool
    announce: bool
    hidden: bool
    skip_special: bool
    peers: tuple[str, ...]
    hash: str


async def share(node: Node, path: Path, options: ShareOptions, teller: Teller) -> None:
    """Do the work of `share`."""
    hints = parse_peers(options.peers)
    started = trio.current_time()
    imported = await _hash(node, path, options, teller)
    cid = imported.cid
    if not options.hash_only:
        announce = Announce.NONE
        if options.announce:
            announce = Announce.PUBLIC if options.public else Announce.BLINDED
        await node.blocking(node.store.set_announce, cid, announce)
        await node.transfers.content_changed(cid)
        for hint in hints:
            node.keep_in_touch(hint)
    await teller.tell(
        Shared(
            cid=str(cid),
            link=str(link_to(node, cid, imported.name, options.peers)),
            name=imported.name,
            size=imported.size,
            pieces=imported.pieces,
            seconds=trio.current_time() - started,
            path=str(imported.path),
        )
    )
    if not options.hash_only and options.announce:
        key = announced_multihash(cid, options.public)
        taken = await node.announce(key)
        await teller.tell(Announced(cid=str(cid), peers=taken))


async def _hash(node: Node, path: Path, options: ShareOptions, teller: Teller) -> Imported:
    # Imported here: a node that only serves starts sooner without it.
    from ..storage.importer import ImportCancelled, ImportOptions, hash_path

    stop = ThreadEvent()
    progress = [0, 0, 0]

    def told(done: int, total: int, files: int) -> None:
        progress[:] = (done, total, files)

    work = partial(
        hash_path,
        path,
        None if options.hash_only else node.store,
        disk=node.environment.disk,
        now=node.environment.clock.now(),
        options=ImportOptions(
            hidden=options.hidden,
            skip_special=options.skip_special,
            hash_code=BLAKE3 if options.hash == "blake3" else SHA2_256,
            private=node.home_path,
        ),
        progress=told,
        cancelled=stop.is_set,
    )

    async def tell() -> None:
        while True:
            await trio.sleep(HASHING_SECONDS)
            done, total, files = progress
            teller.hint(Hashing(str(path), done, total or None, files))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        nursery.start_soon(stop_when_cancelled, stop)
        try:
            imported = await node.environment.run_blocking(work)
        except ImportCancelled:
            await trio.lowlevel.checkpoint()  # raises Cancelled, which it was stopped for
            raise
        nursery.cancel_scope.cancel()
    return imported


async def stop_when_cancelled(stop: ThreadEvent) -> None:
    """Tell the hashing thread to end when we are cancelled."""
    try:
        await trio.sleep_forever()
    finally:
        stop.set()


def announced_multihash(cid: Cid, public: bool) -> bytes:
    """Return under what a content is announced: its blinded key, or its plain multihash."""
    return cid.multihash if public else multihash(SHA2_256, content_key(cid))


def announced_as(content: Content) -> bytes | None:
    """Return under what a known content is announced; None if it is not."""
    if content.announce is Announce.NONE:
        return None
    return announced_multihash(content.cid, content.announce is Announce.PUBLIC)


def link_to(node: Node, cid: Cid, name: str | None, peers: tuple[str, ...] = ()) -> Link:
    """Return a link to a content, with our addresses, or with those that can reach it."""
    hints: list[PeerHint] = []
    if not node.offline:
        ranked = sorted(node.host.told_addrs(), key=_usefulness)
        hints = [with_peer(addr, node.peer_id) for addr in ranked[:LINK_ADDRS]]
    hints += parse_peers(peers)
    return Link(cid, name, tuple(hints[:MAX_PEERS]))


def _usefulness(addr: Multiaddr) -> int:
    """Rank global addresses first, loopback last."""
    scope = scope_of(addr)
    return -int(Scope.GLOBAL if scope is None else scope)


def absolute(path: str | os.PathLike[str]) -> Path:
    """Return a path from the current folder.

    Raises:
        UsageError: It is empty.
    """
    text = os.fspath(path)
    if not text:
        raise UsageError("the path is empty: name a file or folder")
    return Path(os.path.abspath(text))
