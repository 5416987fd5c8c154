"""Pieces leave one after the other, on whichever stream, and who is slow keeps nobody waiting."""

from __future__ import annotations

from shoal.swarm.uplink import NEXT_BYTES, SLOW_TIMES, Lane, Uplink

PIECE = 256 << 10
RATE = 100_000.0


class Stream:
    """A stream of which bytes leave when the test says so."""

    def __init__(self, uplink: Uplink) -> None:
        self.queued = 0
        self.woken = 0
        self.uplink = uplink
        self.lane = Lane(lambda: self.queued, self.wake)

    def wake(self) -> None:
        self.woken += 1

    def queue(self, now: float, count: int = PIECE) -> None:
        self.uplink.queue(self.lane, count, now)
        self.queued += count

    def drain(self, count: int, now: float) -> None:
        self.queued -= count
        self.uplink.look(now)


def busy(uplink: Uplink) -> tuple[Stream, Stream]:
    """Return two streams; the first has just queued a piece."""
    one, other = Stream(uplink), Stream(uplink)
    assert uplink.may_send(one.lane, 0.0)
    one.queue(0.0)
    return one, other


def test_the_second_piece_waits_for_the_first_before_the_rate_is_known() -> None:
    uplink = Uplink()
    one, other = busy(uplink)
    assert not uplink.may_send(other.lane, 0.0)
    one.drain(PIECE - NEXT_BYTES, 0.1)
    assert other.woken == 0
    one.drain(1, 0.11)
    assert other.woken == 1
    assert uplink.may_send(other.lane, 0.11)


def test_no_stream_queues_two_pieces_while_others_wait() -> None:
    uplink = Uplink()
    one, other, rate = Stream(uplink), Stream(uplink), 2e6
    assert uplink.may_send(one.lane, 0.0)
    one.queue(0.0, 1 << 20)
    assert not uplink.may_send(one.lane, 0.0)
    assert not uplink.may_send(other.lane, 0.0)
    one.drain(int(rate * 0.3), 0.3)
    assert uplink.rate is not None
    assert not one.lane.full
    assert not one.lane.granted
    uplink.leave(other.lane, 0.3)
    uplink.look(0.3)
    assert one.lane.granted


def test_who_takes_much_longer_than_the_line_does_not_count_as_its_load() -> None:
    uplink = Uplink()
    uplink.rate = RATE
    one, _ = busy(uplink)
    assert uplink.load(0.0) == PIECE
    late = (SLOW_TIMES + 1) * PIECE / RATE
    one.drain(1, late)  # it drips
    assert uplink.load(late) == 0
    assert not uplink.takes(one.lane, late)
