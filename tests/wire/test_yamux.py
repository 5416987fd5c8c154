"""yamux: two sessions joined without a network, single frames, and hostile ones."""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.wire.errors import Misuse, PeerFault
from shoal.wire.yamux import MAX_CONTROL, MAX_STREAMS, Budget, FilePart, Session, YamuxStream
from shoal.wire.yamux_frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    MAX_FRAME,
    PING,
    RST,
    SYN,
    WINDOW,
    cut,
)
from shoal.wire.yamux_stream import INITIAL_WINDOW


def frame(kind: int, flags: int, stream: int, value: int = 0, payload: bytes = b"") -> bytes:
    length = len(payload) if kind == DATA and not value else value
    return struct.pack(">BBHII", 0, kind, flags, stream, length) + payload


class Side:
    """A session, what it told its driver, and its clock."""

    def __init__(self, client: bool, budget: int = 48 << 20) -> None:
        self.budget = Budget(budget)
        self.session = Session(client, self, self.budget)
        self.session.now = lambda: self.clock
        self.clock = 0.0
        self.accepted: list[YamuxStream] = []
        self.faults: list[str] = []
        self.pongs: list[int] = []
        self.goodbyes: list[int] = []
        self._rest = b""

    def opened(self, stream: YamuxStream) -> None:
        self.accepted.append(stream)

    def readable(self, stream: YamuxStream) -> None:
        pass

    def writable(self, stream: YamuxStream) -> None:
        pass

    def faulted(self, stream: YamuxStream, fault: PeerFault) -> None:
        self.faults.append(fault.reason)

    def ponged(self, opaque: int) -> None:
        self.pongs.append(opaque)

    def going_away(self, code: int) -> None:
        self.goodbyes.append(code)

    def output(self, room: int = 70_000) -> bytes:
        plain = memoryview(bytearray(room))
        out = b""
        while self.session.has_output:
            length, _, reads = self.session.fill(plain)
            for read in reads:
                assert isinstance(read.source, bytes)
                read.view[:] = read.source[read.offset : read.offset + len(read.view)]
            out += bytes(plain[:length])
        return out

    def take(self, data: bytes, step: int = 1 << 30) -> None:
        for at in range(0, len(data), step):
            self._rest += data[at : at + step]
            used = self.session.receive(memoryview(self._rest))
            self._rest = self._rest[used:]
            self.session.pass_done()
            assert len(self._rest) < 12


def pair() -> tuple[Side, Side]:
    return Side(True), Side(False)


def exchange(a: Side, b: Side, step: int = 1 << 30) -> None:
    while a.session.has_output or b.session.has_output:
        b.take(a.output(), step)
        a.take(b.output(), step)


def read(stream: YamuxStream, count: int = 1 << 30) -> bytes:
    data = bytes(stream.buffer[:count])
    stream.consume(len(data))
    return data


@dataclass
class Collect:
    """A sink that takes at most `at_once` bytes a call, and none while `full`."""

    at_once: int = 1 << 30
    full: bool = False
    data: bytearray = field(default_factory=bytearray)
    passes: int = 0
    ends: list[str | None] = field(default_factory=list)

    def feed(self, data: memoryview) -> int:
        if self.full:
            return 0
        self.data += data[: self.at_once]
        return min(len(data), self.at_once)

    def pass_done(self) -> None:
        self.passes += 1

    def ended(self, reason: str | None) -> None:
        self.ends.append(reason)


# Frames


def test_opening_on_the_wire() -> None:
    a, b = pair()
    stream = a.session.open()
    stream.queue(b"hi")
    data = a.output()
    assert data == frame(WINDOW, SYN, 1) + frame(DATA, 0, 1, payload=b"hi")
    b.take(data)
    assert b.output() == frame(WINDOW, ACK, 1)
    assert [s.id for s in b.accepted] == [1]
    assert read(b.accepted[0]) == b"hi"
    assert b.session.open().id == 2
    assert a.session.open().id == 3


@pytest.mark.parametrize("kind", [DATA, WINDOW])
def test_a_stream_opens_by_either_frame(kind: int) -> None:
    b = Side(False)
    b.take(frame(kind, SYN, 1, 0 if kind == DATA else 7))
    assert len(b.accepted) == 1
    assert b.accepted[0].send_window == INITIAL_WINDOW + (0 if kind == DATA else 7)


def test_ping_and_goodbye() -> None:
    a, b = pair()
    a.session.ping(7)
    exchange(a, b)
    assert a.pongs == [7]
    stream = a.session.open()
    b.session.go_away()
    exchange(a, b)
    assert a.goodbyes == [0]
    with pytest.raises(Misuse):
        a.session.open()
    assert stream.reset  # the other side said goodbye before it came
    assert b.output() == b""


def test_fin_follows_the_last_frame_and_reading_goes_on() -> None:
    a, b = pair()
    stream = a.session.open()
    stream.queue(b"question")
    stream.close()
    data = a.output()
    assert data.endswith(frame(DATA, 0, 1, payload=b"question") + frame(DATA, FIN, 1))
    b.take(data)
    (other,) = b.accepted
    assert other.remote_ended
    other.queue(b"answer")
    other.close()
    exchange(a, b)
    assert read(stream) == b"answer"
    assert stream.remote_ended
    assert not stream.reset
    assert a.session.streams == b.session.streams == {}
    with pytest.raises(Misuse):
        stream.queue(b"more")


def test_a_reset_is_sent_once_and_late_data_is_dropped_silently() -> None:
    a, b = pair()
    stream = a.session.open()
    exchange(a, b)
    (other,) = b.accepted
    other.queue(b"late")
    late = b.output()
    stream.abort("enough")
    assert a.output() == frame(WINDOW, RST, 1)
    a.take(late)
    assert a.output() == b""
    assert (stream.reset, stream.reason) == (True, "enough")
    assert not stream.buffer
    b.take(frame(WINDOW, RST, 1))
    assert (other.reset, other.reason) == (True, "reset by the peer")
    assert b.output() == b""


def test_frames_for_a_stream_that_never_was_are_answered_by_reset() -> None:
    b = Side(False)
    b.take(frame(DATA, 0, 9, payload=b"what") + frame(WINDOW, 0, 4, 5))
    assert b.output() == frame(WINDOW, RST, 9) + frame(WINDOW, RST, 4)
    b.take(frame(WINDOW, RST, 11))
    assert b.output() == b""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x01" + bytes(11), "yamux-version"),
        (frame(4, 0, 0), "yamux-type"),
        (frame(DATA, SYN, 0), "yamux-stream-zero"),
        (frame(WINDOW, 0, 0, 5), "yamux-stream-zero"),
        (frame(DATA, SYN, 2), "yamux-stream-parity"),
        (frame(DATA, SYN, 3) + frame(DATA, SYN, 1), "yamux-stream-reused"),
        (frame(DATA, SYN, 1) + frame(DATA, SYN, 1), "yamux-stream-reused"),
        (frame(DATA, SYN, 1, INITIAL_WINDOW + 1), "yamux-window-exceeded"),
        (frame(DATA, SYN, 1, 0xFFFFFFFF), "yamux-window-exceeded"),
        (frame(WINDOW, SYN, 1, 0xFFFFFFFF), "yamux-window-overflow"),
        (frame(DATA, SYN | FIN, 1) + frame(DATA, 0, 1, payload=b"x"), "yamux-data-after-end"),
        (frame(PING, SYN, 0, 1) * (MAX_CONTROL + 1), "yamux-control-flood"),
    ],
)
def test_faults_of_the_connection(data: bytes, reason: str) -> None:
    side = Side(False)
    with pytest.raises(PeerFault) as raised:
        side.take(data)
    assert raised.value.reason == reason


@given(st.lists(st.tuples(
    st.integers(0, 5), st.integers(0, 15), st.integers(0, 6), st.integers(0, 70_000)
), max_size=30), st.binary(max_size=20), st.booleans())  # fmt: skip
def test_garbage_is_the_peers_fault(
    frames: list[tuple[int, int, int, int]], tail: bytes, client: bool
) -> None:
    side = Side(client)
    data = b"".join(
        frame(kind, flags, stream, value, bytes(value) if kind == DATA else b"")
        for kind, flags, stream, value in frames
    )
    with suppress(PeerFault):
        side.take(data + tail, 997)
    assert side.session.unread == sum(len(s.buffer) for s in side.accepted)
    assert all(len(s.buffer) <= INITIAL_WINDOW for s in side.accepted)
    side.session.close_all("over")
    assert side.budget.unread == side.budget.queued == 0


# Data


@given(
    messages=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 90_000), st.booleans()), max_size=8
    ),
    step=st.sampled_from([1, 5, 11, 12, 13, 1000, 65_519, 1 << 20]),
    room=st.sampled_from([64, 5000, 70_000, 1 << 20]),
)
@settings(max_examples=40)
def test_bytes_arrive_in_order_under_every_split(
    messages: list[tuple[int, int, bool]], step: int, room: int
) -> None:
    """Three streams, bytes and file ranges mixed, whatever the frames and reads are cut into."""
    if step < 12:
        messages = [(which, size % 300, file) for which, size, file in messages]
    a, b = pair()
    streams = [a.session.open() for _ in range(3)]
    sent = [bytearray() for _ in streams]
    for number, (which, size, as_file) in enumerate(messages):
        data = bytes([number]) * size
        sent[which] += data
        streams[which].queue(FilePart(b"##" + data, 2, size) if as_file else data)
    for stream in streams:
        stream.close()
    got = [bytearray() for _ in streams]
    while a.session.has_output or b.session.has_output:
        b.take(a.output(room), step)
        for stream in b.accepted:
            got[stream.id // 2] += read(stream)
        a.take(b.output())
    assert got == sent
    assert all(stream.remote_ended for stream in b.accepted)
    assert a.session.queued == a.budget.queued == b.session.unread == b.budget.unread == 0


def test_streams_take_turns() -> None:
    a, b = pair()
    first, second = a.session.open(), a.session.open()
    first.queue(bytes(3 * MAX_FRAME))
    second.queue(b"small")
    plain = memoryview(bytearray(2 * (MAX_FRAME + 12) + 24))
    length, lead, _ = a.session.fill(plain)
    assert lead == 24  # both SYNs, in front of all data
    b.take(bytes(plain[:length]))
    assert read(b.accepted[1]) == b"small"


def test_a_sender_stops_at_the_window_and_goes_on_when_it_is_read() -> None:
    a, b = pair()
    stream = a.session.open()
    stream.queue(bytes(3 * INITIAL_WINDOW))
    exchange(a, b)
    (other,) = b.accepted
    assert len(other.buffer) == b.session.unread == b.budget.unread == INITIAL_WINDOW
    assert stream.queued == 2 * INITIAL_WINDOW
    read(other, INITIAL_WINDOW // 2 - 1)
    assert not b.session.has_output
    read(other, 1)
    assert b.output() == frame(WINDOW, 0, 1, INITIAL_WINDOW // 2)
    total = INITIAL_WINDOW // 2
    a.take(frame(WINDOW, 0, 1, INITIAL_WINDOW // 2))
    while stream.queued or other.buffer:
        exchange(a, b)
        total += len(read(other))
    assert total == 3 * INITIAL_WINDOW


@given(
    reads=st.lists(st.integers(0, 300_000), max_size=25),
    limit=st.integers(0, 24),
    budget=st.integers(0, 24),
)
@settings(max_examples=40)
def test_windows_never_exceed_their_limits(reads: list[int], limit: int, budget: int) -> None:
    a, b = pair()
    b.budget.windows = budget * INITIAL_WINDOW
    stream = a.session.open()
    stream.queue(bytes(8 << 20))
    exchange(a, b)
    (other,) = b.accepted
    other.allow_window(limit * INITIAL_WINDOW)
    for count in reads:
        b.clock += 0.01
        read(other, count)
        exchange(a, b)
        assert len(other.buffer) + other.receive_window + other.consumed == other.window
        assert other.window <= max(1, limit) * INITIAL_WINDOW
        assert b.budget.windows + other.window == (budget + 1) * INITIAL_WINDOW
        assert stream.send_window == other.receive_window
    other.abort()
    assert b.budget.windows == budget * INITIAL_WINDOW


def test_a_window_grows_only_where_we_asked_and_only_if_it_is_fast() -> None:
    def run(limit: int, pause: float) -> int:
        a, b = pair()
        stream = a.session.open()
        stream.queue(bytes(4 << 20))
        exchange(a, b)
        (other,) = b.accepted
        other.allow_window(limit)
        for _ in range(6):
            b.clock += pause
            read(other)
            exchange(a, b)
        return other.window

    assert run(0, 0.01) == INITIAL_WINDOW
    assert run(1 << 20, 0.01) == 1 << 20
    assert run(1 << 20, 1.0) == INITIAL_WINDOW


# Sinks


def with_sink(sink: Collect) -> tuple[Side, Side, YamuxStream, YamuxStream]:
    a, b = pair()
    stream = a.session.open()
    exchange(a, b)
    other = b.accepted[0]
    other.install_sink(sink)
    sink.passes = 0
    return a, b, stream, other


def test_a_sink_gets_what_was_buffered_and_then_everything() -> None:
    a, b = pair()
    stream = a.session.open()
    stream.queue(b"before ")
    exchange(a, b)
    sink = Collect()
    b.accepted[0].install_sink(sink)
    assert sink.data == b"before "
    stream.queue(b"after")
    stream.close()
    exchange(a, b)
    assert sink.data == b"before after"
    assert sink.ends == [None]
    assert b.session.unread == 0


def test_a_sink_is_told_once_a_pass() -> None:
    sink = Collect()
    a, b, stream, _ = with_sink(sink)
    for _ in range(5):
        stream.queue(b"x")
        data = a.output()
        used = b.session.receive(memoryview(data))
        assert used == len(data)
    assert sink.passes == 0
    b.session.pass_done()
    b.session.pass_done()
    assert sink.passes == 1


def test_what_a_sink_does_not_take_is_kept_uncredited_and_fed_again() -> None:
    sink = Collect(full=True)
    a, b, stream, other = with_sink(sink)
    stream.queue(bytes(range(256)) * 2048)
    stream.close()
    exchange(a, b)
    assert len(other.buffer) == INITIAL_WINDOW
    assert sink.data == b""
    sink.full = False
    for _ in range(5):
        other.resume()
        exchange(a, b)
    assert sink.data == bytes(range(256)) * 2048
    assert sink.ends == [None]


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=12), st.integers(1, 3000))
@settings(max_examples=30)
def test_a_slow_sink_sees_the_same_bytes(sizes: list[int], at_once: int) -> None:
    sink = Collect(at_once=at_once)
    a, b, stream, other = with_sink(sink)
    sent = b""
    for number, size in enumerate(sizes):
        data = bytes([number]) * size
        sent += data
        stream.queue(data)
        exchange(a, b)
    while other.buffer:
        other.resume()
    assert sink.data == sent


def test_a_fault_in_a_sink_resets_its_stream_alone() -> None:
    class Strict(Collect):
        def feed(self, data: memoryview) -> int:
            raise PeerFault("test-fault")

    sink = Strict()
    a, b, stream, other = with_sink(sink)
    second = a.session.open()
    stream.queue(bytes(100))
    second.queue(b"fine")
    data = a.output()
    b.take(data, 13)  # the frame that the fault is in goes on over several reads
    assert b.faults == ["test-fault"]
    assert sink.ends == ["test-fault"]
    assert other.reset
    assert read(b.accepted[1]) == b"fine"
    exchange(a, b)
    assert stream.reset


@pytest.mark.parametrize("end", ["reset", "lost"])
def test_a_sink_hears_how_it_ended(end: str) -> None:
    sink = Collect()
    a, b, stream, _ = with_sink(sink)
    if end == "reset":
        stream.abort()
        exchange(a, b)
        assert sink.ends == ["reset by the peer"]
    else:
        b.session.close_all("cable cut")
        assert sink.ends == ["cable cut"]


# Bounds and batches


def test_streams_are_bounded_both_ways() -> None:
    a, b = pair()
    for _ in range(MAX_STREAMS):
        a.session.open()
    with pytest.raises(Misuse):
        a.session.open()
    exchange(a, b)
    assert b.session.inbound == MAX_STREAMS
    b.take(frame(WINDOW, SYN, 2 * MAX_STREAMS + 1))
    assert b.output() == frame(WINDOW, RST, 2 * MAX_STREAMS + 1)
    b.accepted[0].abort()
    exchange(a, b)
    assert a.session.can_open


def test_closing_and_resetting_never_blames_the_peer() -> None:
    """What we send on our own account may exceed the bound on answers without a fault."""
    a, _ = pair()
    for _ in range(MAX_CONTROL):
        a.session.open().abort()
    assert len(a.output()) == 2 * 12 * MAX_CONTROL


def layout(a: Side) -> tuple[memoryview, int]:
    plain = memoryview(bytearray(4 << 20))
    length, _, _ = a.session.fill(plain)
    return plain, length


@pytest.mark.parametrize("behind", [0, 1, 2])
def test_a_failed_read_ends_its_stream_without_a_hole(behind: int) -> None:
    """The frames from the failed one on are cut; those before, and other streams', stay."""
    a, b = pair()
    bad, good = a.session.open(), a.session.open()
    exchange(a, b)
    for number in range(3):
        bad.queue(bytes([number]) * MAX_FRAME)
        good.queue(bytes([number + 10]) * 1000)
    plain, length = layout(a)
    starts: list[int] = []
    at = 0
    while at < length:
        _, _, _, stream_id, size = struct.unpack_from(">BBHII", plain, at)
        if stream_id == bad.id:
            starts.append(at)
        at += 12 + size
    length = cut(plain, length, bad.id, starts[behind])
    b.take(bytes(plain[:length]))
    first, second = b.accepted
    assert len(first.buffer) == behind * MAX_FRAME
    assert bytes(second.buffer) == b"".join(bytes([n + 10]) * 1000 for n in range(3))


def test_reads_name_file_ranges_and_their_places() -> None:
    a, _ = pair()
    stream = a.session.open()
    a.output()
    source = object()
    stream.queue(b"head")
    stream.queue(FilePart(source, 100, 2 * MAX_FRAME))
    assert stream.queued == 4 + 2 * MAX_FRAME
    assert a.session.queued == 4  # files weigh nothing in memory
    plain = memoryview(bytearray(1 << 20))
    _, _, reads = a.session.fill(plain)
    assert [(r.source, r.offset, len(r.view)) for r in reads] == [
        (source, 100, MAX_FRAME - 4),
        (source, 100 + MAX_FRAME - 4, MAX_FRAME),
        (source, 100 + 2 * MAX_FRAME - 4, 4),
    ]
    assert [r.frame for r in reads] == [0, MAX_FRAME + 12, 2 * (MAX_FRAME + 12)]


def test_a_lost_connection_leaves_nothing_counted() -> None:
    a, b = pair()
    stream = a.session.open()
    stream.queue(bytes(2 * INITIAL_WINDOW))
    exchange(a, b)
    for side in (a, b):
        side.session.close_all("over")
        assert side.budget.unread == side.budget.queued == 0
        assert not side.session.has_output
    stream.queue(b"dropped")
    assert stream.queued == 0


def test_goodbye_code() -> None:
    a, _ = pair()
    a.session.go_away(1)
    assert a.output() == frame(GO_AWAY, 0, 0, 1)
