"""Keys and distances, held against published vectors."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.dht.keyspace import MAX_PREIMAGE_BITS, common_prefix, distance, key_of, nearest, preimage
from shoal.wire.ids import PeerId

KEYS = st.binary(min_size=32, max_size=32)


def test_the_key_of_a_peer_is_the_hash_of_its_id() -> None:
    peer = PeerId.parse("12D3KooWLU2znyJMtDiHArqAGbZn8CgUGp92kxDBtefftEEaHSZS")
    assert key_of(peer.raw).hex() == (
        "e43d28f0996557c0d5571d75c62a57a59d7ac1d30a51ecedcdb9d5e4afa56100"
    )


def test_the_key_of_a_content_is_the_hash_of_its_multihash() -> None:
    multihash = bytes.fromhex(
        "1220e536c7f88d731f374dccb568aff6f56e838a19382e488039b1ca8ad2599e82fe"
    )
    assert key_of(multihash).hex() == (
        "d623250f3f660ab4c3a53d3c97b3f6a0194c548053488d093520206248253bcb"
    )


@given(KEYS, KEYS, KEYS)
def test_distance_is_a_metric(a: bytes, b: bytes, c: bytes) -> None:
    assert distance(a, a) == 0
    assert distance(a, b) == distance(b, a)
    assert distance(a, c) <= distance(a, b) + distance(b, c)
    assert (common_prefix(a, b) == 256) == (a == b)


@given(st.lists(KEYS, unique=True), KEYS)
def test_nearest_sorts_by_distance(keys: list[bytes], target: bytes) -> None:
    found = nearest(keys, target, lambda key: key)
    assert [distance(key, target) for key in found] == sorted(distance(k, target) for k in keys)


@settings(max_examples=30, deadline=None)
@given(st.data(), st.integers(0, 9), st.integers(0, 2**32))
def test_a_preimage_lands_where_it_should(data: st.DataObject, bits: int, seed: int) -> None:
    prefix = data.draw(st.integers(0, 2**bits - 1))
    made = preimage(prefix, bits, random.Random(seed))
    assert int.from_bytes(key_of(made), "big") >> (256 - bits) == prefix
    assert PeerId.from_bytes(made).key == key_of(made)


@pytest.mark.parametrize("bits", [16, 40, 256])
def test_a_deep_prefix_is_cut_to_what_can_be_searched(bits: int) -> None:
    made = preimage((1 << bits) - 1, bits, random.Random(1))
    assert int.from_bytes(key_of(made), "big") >> (256 - MAX_PREIMAGE_BITS) == 0x7FFF
