"""Tables that several runs begin with: made once, kept as files, mapped into memory by all.

Whoever needs tables first makes them while it holds their lock; others wait for that. They are put
in place whole, so whoever is killed leaves nothing that anybody takes for tables.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from numpy.typing import NDArray

Arrays: TypeAlias = Mapping[str, "NDArray[Any]"]

MOST_BYTES: Final = 16 << 30
"""Of disk; beyond, the tables go that were not asked for longest."""

NAME_CHARS: Final = 24
"""Of a digest, which names a folder."""

PARTIAL: Final = ".partial"
LOCK: Final = ".lock"


class Shelf:
    """A folder of tables by the key that says what they depend on.

    Args:
        folder: Where; it is made when it is needed.
        most_bytes: See `MOST_BYTES`.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self.folder = folder
        self._most_bytes = most_bytes

    def get(self, key: str, make: Callable[[], Arrays]) -> Arrays:
        """Return the arrays of a key, made now if they are not there.

        Their memory is shared by all processes; what one changes is its own copy. If the disk says
        no, each makes its own.
        """
        name = hashlib.sha256(key.encode()).hexdigest()[:NAME_CHARS]
        place = self.folder / name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _locked(self.folder / f"{name}{LOCK}"):
                if not place.exists():
                    arrays = make()
                    if not self._put(place, arrays):
                        return arrays
                os.utime(place)
                return _mapped(place)
        except OSError:
            return make()

    def _put(self, place: Path, arrays: Arrays) -> bool:
        """Write arrays; False if there is no room for them."""
        import numpy as np

        size = sum(array.nbytes for array in arrays.values())
        if size > self._most_bytes:
            return False
        self._make_room(size)
        partial = place.with_name(place.name + PARTIAL)
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
            for name, array in arrays.items():
                np.save(partial / f"{name}.npy", array, allow_pickle=False)
            partial.rename(place)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            return False
        return True

    def _make_room(self, wanted: int) -> None:
        """Drop what was not asked for longest. Whoever has it mapped keeps it."""
        kept = []
        for place in self.folder.iterdir():
            if place.is_dir() and not place.name.endswith(PARTIAL):
                size = sum(file.stat().st_size for file in place.iterdir())
                kept.append((place.stat().st_mtime_ns, size, place))
        kept.sort()
        held = sum(size for _, size, _ in kept)
        while kept and held + wanted > self._most_bytes:
            _, size, place = kept.pop(0)
            shutil.rmtree(place, ignore_errors=True)
            held -= size

    def clear(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _mapped(place: Path) -> Arrays:
    import numpy as np

    return {
        # Copy on write: compiled code takes arrays that can be written, and shares these pages.
        file.stem: np.load(file, mmap_mode="c", allow_pickle=False).view(np.ndarray)
        for file in sorted(place.glob("*.npy"))
    }


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock; it ends with the process that holds it, however that ends."""
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
