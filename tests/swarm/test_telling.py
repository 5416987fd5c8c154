"""New pieces are told at once, and then together."""

from __future__ import annotations

from shoal.swarm.telling import TELL_SECONDS, Telling


def test_the_first_piece_is_told_at_once() -> None:
    telling = Telling()
    assert telling.add([7], 5.0) == 5.0
    assert telling.take(5.0) == [(7, 1)]


def test_what_follows_soon_is_told_together() -> None:
    telling = Telling()
    telling.add([1], 5.0)
    telling.take(5.0)
    due = telling.add([2], 5.01)
    assert due == 5.0 + TELL_SECONDS
    assert telling.add([4, 3], 5.02) is None
    assert telling.take(due) == [(2, 3)]
    assert telling.add([9], 6.0) == 6.0


def test_what_is_lost_again_is_not_told() -> None:
    telling = Telling()
    telling.add([1, 2], 5.0)
    telling.drop([2])
    assert telling.take(5.0) == [(1, 1)]
    assert telling.add([], 6.0) is None
