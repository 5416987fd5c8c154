"""Frames come out whole under every split of the stream, and memory stays bounded."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.wire import varint
from shoal.wire.delimited import DelimitedReader, frame
from shoal.wire.errors import PeerFault

LIMIT = 300

payloads = st.lists(st.binary(max_size=LIMIT), max_size=6)


@settings(max_examples=60)
@given(payloads, st.lists(st.integers(0, 2000), max_size=12))
def test_any_split_gives_the_same_frames(frames: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(frame, frames))
    reader = DelimitedReader(LIMIT)
    got: list[bytes] = []
    at = 0
    for cut in sorted(min(cut, len(stream)) for cut in cuts):
        got += reader.feed(memoryview(stream)[at:cut])
        at = cut
    got += reader.feed(stream[at:])
    reader.finish()
    assert got == frames
    assert reader.remainder == b""


@settings(max_examples=30)
@given(payloads)
def test_byte_by_byte_nothing_comes_early_or_is_kept_for_long(frames: list[bytes]) -> None:
    reader = DelimitedReader(LIMIT)
    got: list[bytes] = []
    for byte in b"".join(map(frame, frames)):
        got += reader.feed(bytes([byte]))
        assert len(reader.remainder) <= LIMIT + varint.MAX_BYTES
    assert got == frames


@given(st.binary(min_size=1, max_size=LIMIT), st.data())
def test_an_end_inside_a_frame_is_a_fault(payload: bytes, data: st.DataObject) -> None:
    whole = frame(payload)
    reader = DelimitedReader(LIMIT)
    cut = data.draw(st.integers(1, len(whole) - 1))
    assert reader.feed(frame(b"before") + whole[:cut]) == [b"before"]
    assert reader.remainder == whole[:cut]
    with pytest.raises(PeerFault, match="frame-truncated"):
        reader.finish()


@pytest.mark.parametrize("length", [LIMIT + 1, 1 << 31, 1 << 32, 1 << 62, varint.MAX_VALUE])
def test_a_long_frame_is_refused_when_its_length_is_read(length: int) -> None:
    reader = DelimitedReader(LIMIT)
    with pytest.raises(PeerFault, match="frame-too-long"):
        reader.feed(varint.encode(length))


@pytest.mark.parametrize("length", ["8000", "ffffffffffffffffff", "ffffffffffffffffff01"])
def test_a_malformed_length_is_a_fault(length: str) -> None:
    with pytest.raises(PeerFault, match="varint"):
        DelimitedReader(LIMIT).feed(bytes.fromhex(length))


def test_the_longest_frame_and_empty_ones_pass() -> None:
    reader = DelimitedReader(LIMIT)
    assert reader.feed(frame(bytes(LIMIT)) + frame(b"") * 2) == [bytes(LIMIT), b"", b""]
    assert DelimitedReader(0).feed(b"\0") == [b""]


@given(st.binary(max_size=600))
def test_garbage_is_frames_or_a_fault(data: bytes) -> None:
    reader = DelimitedReader(LIMIT)
    try:
        frames = reader.feed(data)
    except PeerFault:
        return
    assert b"".join(map(frame, frames)) + reader.remainder == data
    assert all(len(payload) <= LIMIT for payload in frames)
