"""After the loss of the database: finished copies are hashed again, and then served again.

The journal knows which content lies where, and nothing else (`storage/recovery.py`). Hashing a path
again tells whether it still is that content, and makes its index anew on the way.
"""

from __future__ import annotations

from functools import partial
from threading import Event as ThreadEvent
from typing import TYPE_CHECKING

import trio

from ..storage.errors import StorageError
from ..storage.model import Copy
from . import sharing

if TYPE_CHECKING:
    from ..storage.importer import Imported
    from .lifecycle import Lifecycle


async def rehash_lost(node: Lifecycle) -> None:
    """Hash every finished copy that the database lost, one after the other."""
    for copy in await node.blocking(node.store.copies):
        if not copy.finished or not copy.recheck:
            continue
        content = await node.blocking(node.store.content, copy.cid)
        if copy.only is not None and (content is None or not content.index_complete):
            node.notice(
                f"{copy.path} was fetched in part, and what it should hold is not known any more: "
                f"get {copy.cid} to another place with -o, or share the folder as it is"
            )
            continue
        try:
            whole = await _rehash(node, copy)
        except StorageError as error:
            node.notice(f"{copy.path} could not be hashed again: {error}")
            continue
        if whole:
            node.notice(f"{copy.path} was hashed again and is whole: it is served again")
            await node.transfers.content_changed(copy.cid)
            await node.announce_content(copy.cid)
        else:
            node.notice(
                f"{copy.path} is not (any more) the content {copy.cid}: share it again under its "
                f"new name, or forget the old one with shoal rm {copy.cid}"
            )


async def _rehash(node: Lifecycle, copy: Copy) -> bool:
    """Return whether a copy still is its content; then it is as good as it was."""
    content = await node.blocking(node.store.content, copy.cid)
    if content is not None and content.index_complete:
        return await _verify(node, copy)
    known = {other.id for other in await node.blocking(node.store.copies)}
    for hidden in (True, False):  # which of the two was chosen is not known any more
        imported = await _import(node, copy, hidden)
        if imported.cid == copy.cid:
            return True
        if imported.copy is not None and imported.copy.id not in known:
            await node.blocking(node.store.remove_copy, imported.copy.id)
    return False


async def _verify(node: Lifecycle, copy: Copy) -> bool:
    """Compare with the index that is still there."""
    steps = await node.blocking(node.store.verify, copy.id)
    last = None
    while (step := await node.environment.run_blocking(next, steps, None)) is not None:
        last = step
    return last is not None and last.good == last.pieces


async def _import(node: Lifecycle, copy: Copy, hidden: bool) -> Imported:
    # Imported here: it is seldom needed, and a node starts sooner without it.
    from ..storage.importer import ImportCancelled, ImportOptions, hash_path

    stop = ThreadEvent()
    work = partial(
        hash_path,
        copy.path,
        node.store,
        disk=node.environment.disk,
        now=node.environment.clock.now(),
        options=ImportOptions(
            hidden=hidden,
            skip_special=True,
            hash_code=copy.cid.hash_code,
            private=node.home_path,
        ),
        cancelled=stop.is_set,
    )
    failure: StorageError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sharing.stop_when_cancelled, stop)
        try:
            imported = await node.environment.run_blocking(work)
        except ImportCancelled:
            await trio.lowlevel.checkpoint()  # raises Cancelled, which it was stopped for
            raise
        except StorageError as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return imported
