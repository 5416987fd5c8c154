"""Unsigned varints: shortest form, at most 9 bytes, never more read than there is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.wire import varint
from shoal.wire.errors import Misuse, PeerFault

values = st.one_of(
    st.integers(0, varint.MAX_VALUE),
    st.integers(0, 62).map(lambda bits: 1 << bits),
    st.integers(1, 63).map(lambda bits: (1 << bits) - 1),
)

# From the multiformats unsigned-varint specification.
VECTORS = [
    (0, "00"),
    (1, "01"),
    (127, "7f"),
    (128, "8001"),
    (255, "ff01"),
    (300, "ac02"),
    (16384, "808001"),
    (varint.MAX_VALUE, "ffffffffffffffff7f"),
]


@pytest.mark.parametrize(("value", "encoded"), VECTORS)
def test_the_published_examples(value: int, encoded: str) -> None:
    data = bytes.fromhex(encoded)
    assert varint.encode(value) == data
    assert varint.decode(data) == (value, len(data))


@given(values, st.binary(max_size=4), st.binary(max_size=4))
def test_a_value_comes_back_and_the_rest_is_left(value: int, before: bytes, after: bytes) -> None:
    data = varint.encode(value)
    for kind in (bytes, bytearray, memoryview):
        end = len(before) + len(data)
        assert varint.decode(kind(before + data + after), len(before)) == (value, end)


@given(values)
def test_every_cut_asks_for_more(value: int) -> None:
    data = varint.encode(value)
    for cut in range(len(data)):
        assert varint.decode_prefix(data[:cut]) is None
        with pytest.raises(PeerFault, match="varint-truncated"):
            varint.decode(data[:cut])


@pytest.mark.parametrize("padded", ["8000", "ff00", "80808000", "ffffffffffffffff00"])
def test_a_padded_form_is_refused(padded: str) -> None:
    with pytest.raises(PeerFault, match="varint-not-minimal"):
        varint.decode(bytes.fromhex(padded))


@pytest.mark.parametrize("tail", ["", "00", "01", "7f", "ff", "ffff01"])
def test_a_tenth_byte_is_refused_before_it_comes(tail: str) -> None:
    with pytest.raises(PeerFault, match="varint-too-long"):
        varint.decode(b"\xff" * 9 + bytes.fromhex(tail))


@pytest.mark.parametrize("value", [-1, varint.MAX_VALUE + 1])
def test_what_does_not_fit_is_our_mistake(value: int) -> None:
    with pytest.raises(Misuse):
        varint.encode(value)


@settings(max_examples=200)
@given(st.binary(max_size=12))
def test_garbage_is_a_value_in_shortest_form_or_a_fault(data: bytes) -> None:
    try:
        value, end = varint.decode(data)
    except PeerFault:
        return
    assert data[:end] == varint.encode(value)
