"""`Node`: one peer, with the methods that people and scripts use (`client.py` describes them).

How its parts are made and ended is in `lifecycle.py`; the long operations are in `sharing.py` and
`getting.py`, the rest in `looking.py`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import trio

from . import getting, limiting, looking, sharing
from .client import Client, HashName, Links, OnLeave, Operation, Order, PathText
from .errors import ShoalError, translate
from .events import (
    Complete,
    Contact,
    Copy,
    Event,
    FoundPeer,
    Identity,
    Limit,
    Lookup,
    Paused,
    Peer,
    Progress,
    Provider,
    Removed,
    Resumed,
    Shared,
    Status,
    Verified,
    Verifying,
)
from .events_reach import Rung
from .lifecycle import Lifecycle
from .operations import TOLD, Teller, operate


class Node(Lifecycle):
    """One node of one home folder; use it as `async with`.

    Args: those of `Lifecycle`: `home`, `config`, `purpose`, `offline`, `control`, `environment`.

    Entering raises `ShoalError`: the home is in use, the port is taken, a setting is wrong.
    """

    def as_client(self) -> Client:
        """Return this node."""
        return self

    async def id(self) -> Identity:
        """Return who the node is and where it can be reached."""
        running = not self.offline
        return Identity(
            str(self.peer_id), str(self.home_path), running, self.addrs(), purpose=self.purpose
        )

    def share(
        self,
        path: PathText,
        *,
        hash_only: bool = False,
        public: bool = False,
        announce: bool = True,
        hidden: bool = True,
        skip_special: bool = False,
        peers: Sequence[str] = (),
        hash: HashName = "sha2-256",  # noqa: A002
    ) -> Operation[Shared]:
        """Hash a file or folder where it lies and serve it from there."""
        options = sharing.ShareOptions(
            hash_only, public, announce, hidden, skip_special, tuple(peers), hash
        )

        async def work(teller: Teller) -> None:
            await sharing.share(self, sharing.absolute(path), options, teller)

        # Once hashed, announcing goes on whoever listens; hashing stops with its listener.
        return Operation(lambda: self._sharing(work), Shared)

    async def _sharing(self, work: Callable[[Teller], object]) -> AsyncGenerator[Event, None]:
        shared = False
        events = operate(self.nursery, work, keep=lambda: shared)  # type: ignore[arg-type]
        try:
            async for event in events:
                shared = shared or isinstance(event, Shared)
                yield event
        finally:
            await events.aclose()

    def get(
        self,
        target: str,
        destination: PathText | None = None,
        *,
        peers: Sequence[str] = (),
        timeout: float | None = None,
        links: Links = "inside",
        only: Sequence[str] = (),
        order: Order = "rarest",
        leave: OnLeave = "pause",
    ) -> Operation[Complete]:
        """Fetch a content, verified, and go on with an unfinished fetch of it."""
        place = sharing.absolute(destination) if destination is not None else None

        async def work(teller: Teller) -> None:
            await getting.get(
                self,
                target,
                place,
                Path.cwd(),
                peers=tuple(peers),
                timeout=timeout,
                links=links,
                only=tuple(only),
                order=order,
                teller=teller,
            )

        return Operation(lambda: self._getting(target, work, leave), Complete)

    async def _getting(
        self, target: str, work: Callable[[Teller], object], leave: OnLeave
    ) -> AsyncGenerator[Event, None]:
        path: str | None = None
        over = False
        events = operate(self.nursery, work)  # type: ignore[arg-type]
        try:
            async for event in events:
                if isinstance(event, Progress):
                    path = event.path
                yield event
            over = True
        except ShoalError:
            over = True
            raise
        finally:
            await events.aclose()
            if not over and leave == "pause" and path is not None and not self._stopping.is_set():
                with trio.CancelScope(shield=True), suppress(*TOLD):
                    await looking.pause(self, target, Path(path))

    async def ls(self) -> list[Copy]:
        """Return all copies of this home."""
        return await looking.ls(self)

    async def status(self) -> list[Status | Progress]:
        """Return the node's state, then one `progress` for each fetch under way."""
        return await looking.status(self)

    async def doctor(self, seconds: float = 0.0) -> list[Rung]:
        """Return how far others can reach us, and what to do about it."""
        with _told():
            return await looking.doctor(self, seconds)

    async def peers(self) -> list[Peer]:
        """Return the connections."""
        return await looking.peers(self)

    async def rm(
        self, cid: str, path: PathText | None = None, *, delete_data: bool = False
    ) -> list[Removed]:
        """Forget the copies of a content, or only the one at `path`."""
        with _told():
            return await looking.rm(self, cid, _maybe(path), delete_data)

    async def verify(
        self, cid: str, path: PathText | None = None
    ) -> AsyncGenerator[Verifying | Verified, None]:
        """Hash the copies of a content again."""
        with _told():
            async for event in looking.verify(self, cid, _maybe(path)):
                yield event

    async def pause(self, cid: str, path: PathText | None = None) -> list[Paused]:
        """Pause the fetches of a content."""
        with _told():
            return await looking.pause(self, cid, _maybe(path))

    async def resume(self, cid: str, path: PathText | None = None) -> list[Resumed]:
        """Go on with paused fetches of a content."""
        with _told():
            return await looking.resume(self, cid, _maybe(path))

    async def limit(
        self,
        cid: str | None = None,
        *,
        each_peer: bool = False,
        up: str | None = None,
        down: str | None = None,
    ) -> list[Limit]:
        """Set and return limits of bytes a second."""
        with _told():
            return await limiting.limit(self, cid, each_peer, up, down)

    async def dht_find_peer(self, peer_id: str) -> FoundPeer:
        """Return a peer's addresses."""
        with _told():
            return await looking.find_peer(self, peer_id)

    async def dht_find_providers(self, cid: str) -> AsyncGenerator[Provider | Lookup, None]:
        """Find who announced a content."""
        with _told():
            async for event in looking.find_providers(self, cid):
                yield event

    async def dht_table(self) -> list[Contact]:
        """Return the routing table."""
        return await looking.table(self)


class _told:
    """Turns what users are told into a `ShoalError`."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: object, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, TOLD):
            known = translate(error)
            if known is not None and known is not error:
                raise known from error


def _maybe(path: PathText | None) -> Path | None:
    return None if path is None else sharing.absolute(path)
