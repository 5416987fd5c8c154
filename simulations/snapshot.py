"""The tables of a network as arrays: grown in one tier, used in another.

Peer `i` of a seed always has the same id, so ids need not be stored: `peer_ids` makes them again.
Its key is the SHA-256 of the id, as in a real network. The file is a NumPy `.npz` with `seed`,
`keys` (N x 32 bytes), and the contacts in compressed rows: those of node `i` are
`contacts[starts[i]:starts[i + 1]]`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..wire.ids import PeerId

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ID_HEAD: Final = bytes.fromhex("002408011220")
"""What the id of an Ed25519 key begins with: identity multihash of its key message."""

MAX_NODES: Final = 1 << 31
"""Nodes whose numbers fit into an int32."""


class BadSnapshot(ValueError):
    """A snapshot that does not fit together; the text says where."""


def peer_id(seed: int, number: int) -> PeerId:
    """Return the id of one simulated peer: formed as an Ed25519 one, without a known key."""
    return PeerId(ID_HEAD + hashlib.sha256(b"peer %d/%d" % (seed, number)).digest())


def peer_ids(seed: int, count: int) -> list[PeerId]:
    """Return the ids of the first `count` simulated peers of a seed."""
    return [peer_id(seed, number) for number in range(count)]


def keys_of(seed: int, count: int) -> NDArray[np.uint8]:
    """Return the keys of the first `count` peers as rows of 32 bytes."""
    import numpy as np

    data = b"".join(peer_id(seed, number).key for number in range(count))
    return np.frombuffer(data, dtype=np.uint8).reshape(count, 32).copy()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Who knows whom.

    The contacts of a node stand in the order in which its table shall take them: the one heard
    from longest ago first.
    """

    seed: int
    keys: NDArray[np.uint8]
    starts: NDArray[np.int64]
    contacts: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.keys)

    def of(self, node: int) -> NDArray[np.int32]:
        """Return the numbers of a node's contacts."""
        return self.contacts[self.starts[node] : self.starts[node + 1]]

    def check(self) -> None:
        """Make sure that all parts fit together.

        Raises:
            BadSnapshot: They do not.
        """
        import numpy as np

        count = len(self.keys)
        if count > MAX_NODES or self.keys.shape != (count, 32) or self.keys.dtype != np.uint8:
            raise BadSnapshot("keys must be rows of 32 bytes")
        if self.starts.shape != (count + 1,) or self.starts.dtype != np.int64:
            raise BadSnapshot("starts must hold one int64 more than there are nodes")
        if self.contacts.ndim != 1 or self.contacts.dtype != np.int32:
            raise BadSnapshot("contacts must be a row of int32")
        if (
            self.starts[0]
            or self.starts[-1] != len(self.contacts)
            or np.any(np.diff(self.starts) < 0)
        ):
            raise BadSnapshot("starts must rise from 0 to the number of contacts")
        owners = np.repeat(np.arange(count, dtype=np.int64), np.diff(self.starts))
        if len(self.contacts) and not 0 <= self.contacts.min() <= self.contacts.max() < count:
            raise BadSnapshot("a contact is no node of the network")
        if np.any(owners == self.contacts):
            raise BadSnapshot("a node is its own contact")
        pairs = owners * count + self.contacts
        if len(np.unique(pairs)) != len(pairs):
            raise BadSnapshot("a node has a contact twice")
        for number in {0, count // 2, count - 1} if count else ():
            if self.keys[number].tobytes() != peer_id(self.seed, number).key:
                raise BadSnapshot(
                    f"the key of node {number} is not that of peer {number} of the seed"
                )

    def save(self, path: Path) -> None:
        """Write it as `.npz`, compressed.

        Raises:
            BadSnapshot: Its parts do not fit together.
            OSError: The file cannot be written.
        """
        import numpy as np

        self.check()
        np.savez_compressed(
            path,
            seed=np.int64(self.seed),
            keys=self.keys,
            starts=self.starts,
            contacts=self.contacts,
        )


def load(path: Path) -> Snapshot:
    """Read a snapshot.

    Raises:
        BadSnapshot: It is none.
        OSError: The file cannot be read.
    """
    import zipfile

    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            snapshot = Snapshot(int(file["seed"]), file["keys"], file["starts"], file["contacts"])
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise BadSnapshot(f"{path} is no table snapshot: {error}") from error
    snapshot.check()
    return snapshot
