"""Sinks and files on streams: what arrives, and what happens when a file is not what it was."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from shoal.node.net.host import Host
from shoal.node.net.stream import FileRange, Stream
from shoal.storage.filesystem import FileStat
from shoal.wire.errors import PeerFault

MakeHost = Callable[..., Awaitable[Host]]
PIECE = 1 << 20
CONTENT = b"".join(number.to_bytes(4, "big") for number in range(PIECE))


class Source:
    """A file in memory: only what is asked without waiting is cut short, as on a cold disk."""

    def __init__(self, data: bytes, cached: int = 1 << 60) -> None:
        self.data = data
        self.cached = cached
        self.error: OSError | None = None
        self.calls: list[tuple[int, bool]] = []

    def preadv(
        self, buffers: Sequence[memoryview | bytearray], offset: int, nowait: bool = False
    ) -> int:
        self.calls.append((offset, nowait))
        if self.error is not None:
            raise self.error
        done = 0
        end = min(len(self.data), self.cached) if nowait else len(self.data)
        for buffer in buffers:
            part = self.data[offset + done : min(offset + done + len(buffer), end)]
            buffer[: len(part)] = part
            done += len(part)
            if len(part) < len(buffer):
                break
        return done

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        raise NotImplementedError

    def pwritev(self, parts: Sequence[bytes | bytearray | memoryview], offset: int) -> None:
        raise NotImplementedError

    def fdatasync(self) -> None:
        raise NotImplementedError

    def fstat(self) -> FileStat:
        raise NotImplementedError

    def truncate(self, size: int) -> None:
        raise NotImplementedError

    def lock(self) -> bool:
        raise NotImplementedError

    def close(self) -> None:
        pass


@dataclass
class Collect:
    data: bytearray = field(default_factory=bytearray)
    ends: list[str | None] = field(default_factory=list)
    over: trio.Event = field(default_factory=trio.Event)
    passes: int = 0
    room: int = 1 << 60

    def feed(self, data: memoryview) -> int:
        take = min(len(data), self.room)
        self.data += data[:take]
        self.room -= take
        return take

    def pass_done(self) -> None:
        self.passes += 1

    def ended(self, reason: str | None) -> None:
        self.ends.append(reason)
        self.over.set()


@dataclass
class Sending:
    """Alice asks; what `work` queues at Bob's end comes to her sink."""

    alice: Host
    bob: Host
    asked: int = 0

    async def fetch(
        self, work: Callable[[Stream], None], window: int = 0, sink: Collect | None = None
    ) -> tuple[Collect, Stream]:
        async def serve(stream: Stream) -> None:
            work(stream)
            await stream.send_eof()
            await stream.receive_some()

        self.asked += 1
        protocol = f"/test/file/{self.asked}"
        self.bob.handle(protocol, serve)
        addrs = self.bob.listen_addrs()[:1]
        stream = await self.alice.open_stream(self.bob.peer_id, [protocol], addrs, lazy=True)
        if window:
            stream.grow_window(window)
        sink = sink or Collect()
        stream.install_sink(sink)
        return sink, stream


@pytest.fixture
async def sending(make_host: MakeHost) -> Sending:
    return Sending(await make_host("alice"), await make_host("bob"))


@pytest.mark.parametrize("cached", [0, 100_000, 1 << 60])
async def test_bytes_and_ranges_arrive_in_order(
    autojump_clock: MockClock, sending: Sending, cached: int
) -> None:
    source = Source(CONTENT, cached)

    def work(stream: Stream) -> None:
        stream.queue(b"head")
        stream.queue_file(FileRange(source, 0, PIECE))
        stream.queue(b"between")
        stream.queue_file(FileRange(source, PIECE + 7, 2 * PIECE))

    sink, stream = await sending.fetch(work, 16 << 20)
    await sink.over.wait()
    assert sink.data == b"head" + CONTENT[:PIECE] + b"between" + CONTENT[PIECE + 7 : 3 * PIECE + 7]
    assert sink.ends == [None]
    assert 0 < sink.passes < 200
    # What is cached is read at once; for the rest a worker is asked, and only for the rest.
    assert any(nowait for _, nowait in source.calls)
    assert any(not nowait for _, nowait in source.calls) == (cached < 3 * PIECE + 7)
    await stream.aclose()
    assert not sending.alice.faults
    assert not sending.bob.faults


async def test_a_window_grows_where_bytes_were_asked_for(
    autojump_clock: MockClock, sending: Sending
) -> None:
    source = Source(CONTENT)

    async def seconds(window: int) -> float:
        began = trio.current_time()
        sink, stream = await sending.fetch(
            lambda stream: stream.queue_file(FileRange(source, 0, 4 * PIECE)), window
        )
        await sink.over.wait()
        await stream.aclose()
        return trio.current_time() - began

    assert await seconds(16 << 20) < await seconds(0) / 2
    (connection,) = sending.alice.connections()
    await trio.sleep(60)
    assert connection.streams == 0
    assert sending.alice._budgets.shared.windows == 48 << 20  # all given back


@pytest.mark.parametrize("what", ["changed", "short", "unreadable"])
@pytest.mark.parametrize("when", [0, 3 * PIECE])
async def test_a_file_that_is_not_as_it_was_ends_the_stream_before_it(
    autojump_clock: MockClock, sending: Sending, what: str, when: int
) -> None:
    """Nothing that stands behind the failed part arrives: no hole, no old bytes."""
    source = Source(CONTENT)
    told: list[str] = []
    bad = Source(CONTENT[: PIECE // 2] if what == "short" else CONTENT)
    if what == "unreadable":
        bad.error = OSError(5, "Input/output error")

    def work(stream: Stream) -> None:
        stream.queue_file(FileRange(source, 0, 1 + when))
        stream.queue_file(FileRange(bad, 0, PIECE, lambda: what != "changed", told.append))
        stream.queue(b"behind")
        stream.queue_file(FileRange(source, 0, PIECE))

    sink, _ = await sending.fetch(work, 16 << 20)
    await sink.over.wait()
    assert sink.ends != [None]
    assert len(told) == 1
    if what == "short":
        # What the file still has is sent as long as it comes in whole batches.
        limit = 1 + when + PIECE // 2
        assert len(sink.data) <= limit
        assert sink.data == (CONTENT[: 1 + when] + CONTENT[: PIECE // 2])[: len(sink.data)]
    else:
        assert sink.data == CONTENT[: len(sink.data)]
        assert len(sink.data) <= 1 + when
    (connection,) = sending.bob.connections()
    assert connection.session.queued == 0


async def test_large_buffers_are_few_and_given_back(
    autojump_clock: MockClock, sending: Sending
) -> None:
    buffers = sending.alice._budgets.buffers
    everything = FileRange(Source(CONTENT), 0, len(CONTENT))
    for left in (1, 0):
        buffers.large_left = left
        sink, stream = await sending.fetch(lambda stream: stream.queue_file(everything), 16 << 20)
        await sink.over.wait()
        assert buffers.large_left == 0
        assert sink.data == CONTENT
        await stream.aclose()
        await trio.sleep(10)
        assert buffers.large_left == left


async def test_large_batches_are_few_and_given_back(
    autojump_clock: MockClock, sending: Sending
) -> None:
    buffers = sending.bob._budgets.buffers
    everything = FileRange(Source(CONTENT), 0, len(CONTENT))
    for left in (1, 0):
        buffers.large_batches_left = left
        sink, stream = await sending.fetch(lambda stream: stream.queue_file(everything), 16 << 20)
        await sink.over.wait()
        assert buffers.large_batches_left == 0
        assert sink.data == CONTENT
        await stream.aclose()
        await trio.sleep(10)
        assert buffers.large_batches_left == left


async def test_other_streams_go_on_when_a_file_fails(
    autojump_clock: MockClock, sending: Sending
) -> None:
    good, bad = Source(CONTENT), Source(b"")
    results: list[Collect] = []
    for source in (good, bad, good):

        def work(stream: Stream, source: Source = source) -> None:
            stream.queue_file(FileRange(source, 0, PIECE))

        sink, _ = await sending.fetch(work)
        results.append(sink)
    for sink in results:
        await sink.over.wait()
    assert [sink.ends == [None] for sink in results] == [True, False, True]
    assert results[0].data == results[2].data == CONTENT[:PIECE]
    assert results[1].data == b""


async def test_a_sink_that_is_full_stops_the_sender_until_it_is_resumed(
    autojump_clock: MockClock, sending: Sending
) -> None:
    source = Source(CONTENT)
    sink, stream = await sending.fetch(
        lambda stream: stream.queue_file(FileRange(source, 0, 2 * PIECE)),
        sink=Collect(room=1000),
    )
    await trio.sleep(5)
    assert len(sink.data) == 1000
    (connection,) = sending.alice.connections()
    # The rest of the window, but for the few bytes that agreed on the protocol.
    assert 256 * 1024 - 1100 < connection.session.unread <= 256 * 1024 - 1000
    sink.room = 1 << 60
    stream.resume()
    await sink.over.wait()
    assert sink.data == CONTENT[: 2 * PIECE]


async def test_a_fault_found_by_a_sink_is_counted_and_ends_the_stream(
    autojump_clock: MockClock, sending: Sending
) -> None:
    class Strict(Collect):
        def feed(self, data: memoryview) -> int:
            raise PeerFault("test-fault")

    sink, stream = await sending.fetch(lambda stream: stream.queue(b"x"), sink=Strict())
    await sink.over.wait()
    assert sink.ends == ["test-fault"]
    assert stream.is_reset
    assert stream.reason == "test-fault"
    assert sending.alice.faults == {"test-fault": 1}


async def test_senders_wait_until_little_is_queued(
    autojump_clock: MockClock, sending: Sending
) -> None:
    queued: list[int] = []

    async def serve(stream: Stream) -> None:
        for _ in range(10):
            stream.queue(bytes(PIECE))
            await stream.wait_drained(PIECE)
            queued.append(stream.queued)
        await stream.send_eof()

    sending.bob.handle("/test/drain", serve)
    stream = await sending.alice.open_stream(
        sending.bob.peer_id, ["/test/drain"], sending.bob.listen_addrs()[:1]
    )
    total = 0
    while data := await stream.receive_some():
        total += len(data)
    assert total == 10 * PIECE
    assert max(queued) <= PIECE


async def test_a_goodbye_waits_for_what_is_queued_beyond_the_window(
    autojump_clock: MockClock, sending: Sending
) -> None:
    source = Source(CONTENT)
    sink, _ = await sending.fetch(lambda stream: stream.queue_file(FileRange(source, 0, 2 * PIECE)))
    await trio.sleep(0.25)
    (connection,) = sending.bob.connections()
    await connection.aclose()
    assert len(sink.data) == 2 * PIECE


async def test_a_goodbye_does_not_wait_for_ever(
    autojump_clock: MockClock, sending: Sending
) -> None:
    source = Source(CONTENT)
    await sending.fetch(
        lambda stream: stream.queue_file(FileRange(source, 0, 2 * PIECE)), sink=Collect(room=0)
    )
    await trio.sleep(1)
    (connection,) = sending.bob.connections()
    with trio.fail_after(4):
        await connection.aclose()
