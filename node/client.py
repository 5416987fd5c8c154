"""What one can ask of a node: the methods of `shoal.Node` and of `shoal.connect(home)`.

The command line and the control socket use this interface and nothing else of the node. Long
operations tell events as they go; whoever only wants the outcome awaits them. Every method raises
`ShoalError` for what the user is to be told.

The command line opens a node of its own with `Node(home, config=Config, purpose=Purpose,
offline=bool)` as an `async with`; `Purpose` says what the defaults follow: `up` and `share` serve
the DHT, `up` listens on the well-known port, `share` and `get` on any.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import aclosing
from os import PathLike
from typing import Any, Generic, Literal, Protocol, TypeVar

from .errors import ShoalError
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

E = TypeVar("E", bound=Event)

Events = AsyncGenerator[E, None]
"""Events as they happen; closing it (`aclosing`) ends the caller's interest."""

PathText = str | PathLike[str]
Links = Literal["inside", "all", "none"]
Order = Literal["rarest", "sequential"]
HashName = Literal["sha2-256", "blake3"]
Purpose = Literal["up", "share", "get"]

OnLeave = Literal["pause", "continue"]
"""What a fetch does when its caller stops listening before the end."""


class Operation(Generic[E]):
    """A long operation: iterate it for its events, or await it for its outcome.

    It starts when first iterated or awaited, and only once. Awaiting returns the event of the
    outcome as soon as it is there; what comes after it (announcing) goes on in the node.
    """

    def __init__(self, start: Callable[[], Events[Event]], outcome: type[E]) -> None:
        self._start: Callable[[], Events[Event]] | None = start
        self._outcome = outcome

    def __aiter__(self) -> Events[Event]:
        """Start and give the events; use `contextlib.aclosing` if you may leave early."""
        if self._start is None:
            raise RuntimeError("an operation runs only once: call the method again")
        start, self._start = self._start, None
        return start()

    def __await__(self) -> Generator[Any, Any, E]:
        """Run until the outcome and return its event."""
        return self._wait().__await__()

    async def _wait(self) -> E:
        async with aclosing(self.__aiter__()) as events:
            async for event in events:
                if isinstance(event, self._outcome):
                    return event
        raise ShoalError(f"the operation ended without the event {self._outcome.event!r}")


class Client(Protocol):
    """A node: in this process, or behind the control socket."""

    async def id(self) -> Identity:
        """Return who the node is and where it can be reached."""
        ...

    def events(self) -> Events[Event]:
        """Tell what happens in the node until it stops.

        First the notices since its start (a bounded number), then new ones, announcements and
        finished fetches.
        """
        ...

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
        """Hash a file or folder where it lies and serve it from there.

        Events: `hashing`…, `shared`, `announced` (not with `announce=False` or `hash_only`).

        Args:
            path: The file or folder; taken absolute.
            hash_only: Tell the CID and keep nothing.
            public: Announce the plain hash, as IPFS nodes do.
            announce: Tell the DHT.
            hidden: Take entries whose name begins with a dot, too.
            skip_special: Leave out FIFOs, sockets and devices instead of refusing.
            peers: Multiaddrs or peer ids to stay connected with, so that they can fetch.
            hash: Of leaves and nodes.
        """
        ...

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
        """Fetch a content, verified, and go on with an unfinished fetch of it.

        Events: `progress`…, `complete`.

        Args:
            target: A CID, a `shoal:` link, `/ipfs/CID` or `ipfs://CID`.
            destination: Where to; a folder that exists gets the content's name inside, None is
                the current folder.
            peers: Multiaddrs or peer ids to ask, besides those of the link and of the DHT.
            timeout: Longest time in seconds without a newly verified byte; None = 60 s until
                the first provider answers, then unlimited.
            links: Which symbolic links to create: those that stay inside, all, or none.
            only: Patterns of the files and folders to fetch (a name at any depth, or with a slash
                a path from the content's root), besides those of earlier calls for this copy;
                none = everything.
            order: Rarest pieces first, or sequential: those at the front.
            leave: What the fetch does when nobody listens any more.
        """
        ...

    async def ls(self) -> list[Copy]:
        """Return all copies of this home."""
        ...

    async def status(self) -> list[Status | Progress]:
        """Return the node's state, then one `progress` for each fetch under way."""
        ...

    async def doctor(self, seconds: float = 0.0) -> list[Rung]:
        """Return the rungs from a network to being reached by others, with a verdict for each.

        Args:
            seconds: How long to wait for what is not known yet.
        """
        ...

    async def peers(self) -> list[Peer]:
        """Return the connections."""
        ...

    async def rm(
        self, cid: str, path: PathText | None = None, *, delete_data: bool = False
    ) -> list[Removed]:
        """Forget the copies of a content, or only the one at `path`.

        Working files go; finished or shared data only with `delete_data`.
        """
        ...

    def verify(self, cid: str, path: PathText | None = None) -> Events[Verifying | Verified]:
        """Hash the copies of a content again: `verifying`…, `verified` for each."""
        ...

    async def pause(self, cid: str, path: PathText | None = None) -> list[Paused]:
        """Pause the fetches of a content; NotFound if there is none to pause."""
        ...

    async def resume(self, cid: str, path: PathText | None = None) -> list[Resumed]:
        """Go on with paused fetches of a content."""
        ...

    async def limit(
        self,
        cid: str | None = None,
        *,
        each_peer: bool = False,
        up: str | None = None,
        down: str | None = None,
    ) -> list[Limit]:
        """Set and return limits of bytes a second, which hold at once and over a restart.

        Args:
            cid: A content; None = the whole node.
            each_peer: The limit of each peer instead.
            up: Sent at most: `500kB`, `10MB`, `1.5MiB`, `none` (no limit) or `default` (what the
                settings say); None leaves it as it is. Without any, all limits are returned.
            down: The same for what is fetched.
        """
        ...

    async def dht_find_peer(self, peer_id: str) -> FoundPeer:
        """Return a peer's addresses; NotFound if nobody knows it."""
        ...

    def dht_find_providers(self, cid: str) -> Events[Provider | Lookup]:
        """Find who announced a content: `provider`… as they are found, then `lookup`."""
        ...

    async def dht_table(self) -> list[Contact]:
        """Return the routing table."""
        ...

    async def stop(self) -> None:
        """End the node; returns when it has begun to stop."""
        ...
