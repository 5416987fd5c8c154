"""Tables that go from one tier to the other by a file."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest

from shoal.simulations.snapshot import BadSnapshot, Snapshot, keys_of, load, peer_id
from shoal.wire.ids import PeerId


def ring(count: int = 5, seed: int = 3) -> Snapshot:
    """Everybody knows the next two."""
    contacts = [(node + step) % count for node in range(count) for step in (1, 2)]
    return Snapshot(
        seed,
        keys_of(seed, count),
        np.arange(0, 2 * count + 1, 2, dtype=np.int64),
        np.array(contacts, dtype=np.int32),
    )


def test_what_is_saved_loads_again(tmp_path: Path) -> None:
    ring().save(tmp_path / "ring.npz")
    again = load(tmp_path / "ring.npz")
    assert again.seed == 3
    assert len(again) == 5
    assert list(again.of(3)) == [4, 0]
    assert np.array_equal(again.keys, ring().keys)


def test_ids_are_made_again_from_the_seed_and_look_like_real_ones() -> None:
    assert peer_id(1, 2) == peer_id(1, 2) != peer_id(2, 2)
    assert PeerId.from_bytes(peer_id(1, 2).raw) == peer_id(1, 2)
    assert str(peer_id(1, 2)).startswith("12D3KooW")
    assert keys_of(1, 3)[2].tobytes() == hashlib.sha256(peer_id(1, 2).raw).digest()


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("seed", 4, "is not that of"),
        ("contacts", np.array([1, 2, 2, 3, 3, 4, 4, 0, 0, 5], dtype=np.int32), "no node"),
        ("contacts", np.array([0, 2, 2, 3, 3, 4, 4, 0, 0, 1], dtype=np.int32), "own contact"),
        ("contacts", np.array([1, 1, 2, 3, 3, 4, 4, 0, 0, 1], dtype=np.int32), "twice"),
        ("contacts", np.array([1, 2], dtype=np.int32), "starts must rise"),
        ("contacts", np.array([1.0, 2.0]), "int32"),
        ("starts", np.array([0, 2, 1, 6, 8, 10], dtype=np.int64), "starts must rise"),
        ("starts", np.array([0, 10], dtype=np.int64), "one int64 more"),
        ("keys", np.zeros((5, 31), dtype=np.uint8), "rows of 32"),
    ],
)
def test_parts_that_do_not_fit_are_refused(part: str, value: object, words: str) -> None:
    with pytest.raises(BadSnapshot, match=words):
        dataclasses.replace(ring(), **{part: value}).check()  # type: ignore[arg-type]


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    for name in "text.npz", "other.npz":
        with pytest.raises(BadSnapshot, match="no table snapshot"):
            load(tmp_path / name)
