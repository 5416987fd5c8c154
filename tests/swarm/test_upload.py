"""The requests that a peer has waiting."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shoal.swarm.upload import Upload
from shoal.wire.swarm import Cancel, Request

RUNS = st.lists(st.tuples(st.integers(0, 90), st.integers(1, 10)), max_size=8)


@given(RUNS, st.integers(1, 40), st.sets(st.integers(0, 7)))
def test_looking_ahead_tells_what_is_taken_in_turn(
    runs: list[tuple[int, int]], limit: int, cancelled: set[int]
) -> None:
    upload = Upload(100)
    for number, (first, count) in enumerate(runs):
        assert upload.ask(Request(number, first, count)) is None
    for number in cancelled:
        upload.cancel(Cancel(number))
    if upload.peek() is not None:
        upload.take()
    ahead = upload.ahead(limit)
    assert len(ahead) == min(limit, upload.waiting)
    for expected in ahead:
        assert upload.peek() == expected
        upload.take()


@given(RUNS, st.integers(1, 40), st.sets(st.integers(0, 7)))
def test_of_what_was_looked_at_only_what_still_comes_next_is_taken(
    runs: list[tuple[int, int]], limit: int, cancelled: set[int]
) -> None:
    upload, other = Upload(100), Upload(100)
    for number, (first, count) in enumerate(runs):
        for one in (upload, other):
            assert one.ask(Request(number, first, count)) is None
    ahead = upload.ahead(limit)
    for number in cancelled:
        upload.cancel(Cancel(number))
        other.cancel(Cancel(number))

    taken = upload.take_known(ahead)

    for expected in taken:
        assert other.peek() == expected
        other.take()
    assert taken == ahead[: len(taken)]
    assert len(taken) == len(ahead) or upload.peek() != ahead[len(taken)]
    assert (upload.waiting, upload.sent) == (other.waiting, other.sent)
    assert upload.ahead(100) == other.ahead(100)
