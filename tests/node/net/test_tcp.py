"""Real sockets on loopback: trio's contract, addresses, and what an eavesdropper sees."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from shoal.node.environment import RawStream, real_environment
from shoal.node.net.host import Host
from shoal.node.net.secure import NoiseKeys, upgrade
from shoal.node.net.stream import Stream
from shoal.node.net.tcp import TcpListener, TcpStream, TcpTransport
from shoal.wire import yamux
from shoal.wire.addresses import parse_multiaddr, tcp_addr
from shoal.wire.errors import PeerFault
from shoal.wire.keys import PrivateKey
from shoal.wire.multistream import HEADER, message
from shoal.wire.noise import Handshake, sealed_size

ANY = parse_multiaddr("/ip4/127.0.0.1/tcp/0")
ALICE, BOB = PrivateKey(bytes([1]) * 32), PrivateKey(bytes([2]) * 32)
SECRET = b"nobody but Bob may read this sentence"
DEADLINE = 30.0


async def pair(listener: TcpListener) -> tuple[TcpStream, TcpStream]:
    ours: list[TcpStream] = []

    async def dial() -> None:
        ours.append(await TcpTransport().dial(listener.addrs[0]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial)
        theirs = await listener.accept()
    return ours[0], theirs


async def clogged(listener: TcpListener) -> tuple[TcpStream, TcpStream]:
    both = await pair(listener)
    for stream in both:
        while True:
            with trio.move_on_after(0.05) as scope:
                await stream.send_all(bytes(1 << 16))
            if scope.cancelled_caught:
                break
    return both


async def test_tcp_streams_keep_trios_contract() -> None:
    listener = await TcpTransport().listen(ANY)
    with trio.fail_after(DEADLINE):
        await trio.testing.check_half_closeable_stream(
            lambda: pair(listener), lambda: clogged(listener)
        )
    await listener.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


async def test_reading_into_a_buffer() -> None:
    listener = await TcpTransport().listen(ANY)
    ours, theirs = await pair(listener)
    assert isinstance(ours, RawStream)
    assert (ours.remote, ours.local) == (theirs.local, theirs.remote)
    buffer = memoryview(bytearray(100))
    await ours.send_all(b"hello")
    assert await theirs.receive_into(buffer) == 5
    assert bytes(buffer[:5]) == b"hello"
    await ours.send_eof()
    assert await theirs.receive_into(buffer) == 0
    await theirs.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await theirs.receive_into(buffer)
    await ours.aclose()
    await listener.aclose()


async def test_a_connection_that_was_reset() -> None:
    listener = await TcpTransport().listen(ANY)
    ours, theirs = await pair(listener)
    ours._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01" + bytes(7))
    await ours.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await theirs.receive_into(memoryview(bytearray(10)))
    await theirs.aclose()
    await listener.aclose()


async def test_listening() -> None:
    transport = TcpTransport()
    listener = await transport.listen(parse_multiaddr("/ip4/0.0.0.0/tcp/0"))
    texts = [str(addr) for addr in listener.addrs]
    port = texts[0].rsplit("/", 1)[1]
    assert port != "0"
    assert f"/ip4/127.0.0.1/tcp/{port}" in texts
    assert not any("0.0.0.0" in text for text in texts)
    with pytest.raises(OSError, match="in use"):
        await transport.listen(parse_multiaddr(f"/ip4/0.0.0.0/tcp/{port}"))
    await listener.aclose()
    with pytest.raises(OSError, match="refused"):
        await transport.dial(tcp_addr("127.0.0.1", int(port)))
    with pytest.raises(OSError, match="is no TCP address"):
        await transport.dial(parse_multiaddr("/ip4/127.0.0.1/udp/1/quic-v1"))
    assert transport.can_dial(ANY)
    assert not transport.can_dial(parse_multiaddr("/ip4/127.0.0.1/udp/1/quic-v1"))
    assert await transport.resolve(ANY) == [ANY]


# Hosts over sockets


async def echo(stream: Stream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)
    await stream.send_eof()


@asynccontextmanager
async def hosts() -> AsyncIterator[tuple[Host, Host]]:
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            alice, bob = (Host(real_environment(), key) for key in (ALICE, BOB))
            for host in (alice, bob):
                host.handle("/test/echo", echo)
                await nursery.start(host.run, [ANY])
            yield alice, bob
            nursery.cancel_scope.cancel()


class Tap:
    """Stands between a dialler and a listener, and writes down what passes."""

    def __init__(self, target: Host) -> None:
        self.target = target
        self.there = bytearray()
        self.back = bytearray()

    async def run(self, *, task_status: trio.TaskStatus[int]) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        task_status.started(listener.socket.getsockname()[1])
        async with listener:
            one = await listener.accept()
            other = await TcpTransport().dial(self.target.listen_addrs()[0])
            async with one, other, trio.open_nursery() as nursery:
                nursery.start_soon(self._relay, one, other, self.there)
                nursery.start_soon(self._relay, other, one, self.back)

    async def _relay(
        self, source: trio.abc.Stream, target: trio.abc.Stream, log: bytearray
    ) -> None:
        while data := await source.receive_some():
            log += data
            await target.send_all(data)


def frames(data: bytes) -> list[int]:
    """Return the lengths of Noise frames; they must fill the data exactly."""
    lengths = []
    while data:
        length = int.from_bytes(data[:2], "big")
        assert len(data) >= 2 + length
        lengths.append(length)
        data = data[2 + length :]
    return lengths


async def test_only_the_first_line_of_multistream_travels_in_plain_text() -> None:
    async with hosts() as (alice, bob), trio.open_nursery() as nursery:
        tap = Tap(bob)
        port = await nursery.start(tap.run)
        connection = await alice.dial(tcp_addr("127.0.0.1", port))
        await connection.identified()
        stream = await connection.open_stream(["/test/echo"])
        await stream.send_all(SECRET)
        assert await stream.receive_some() == SECRET
        plain = message(HEADER) + message("/noise")
        for log in (tap.there, tap.back):
            assert log.startswith(plain)
            rest = bytes(log[len(plain) :])
            lengths = frames(rest)
            assert len(lengths) >= 4
            for word in (SECRET, b"/test/echo", b"/ipfs/id", b"yamux", b"multistream", b"shoal"):
                assert word not in rest
            for key in (ALICE, BOB):
                assert key.public.message not in rest
                assert key.peer_id.raw[6:] not in rest
        nursery.cancel_scope.cancel()


async def test_a_flipped_bit_on_the_way_ends_the_connection() -> None:
    class Flip(Tap):
        async def _relay(
            self, source: trio.abc.Stream, target: trio.abc.Stream, log: bytearray
        ) -> None:
            while data := await source.receive_some():
                log += data
                if len(self.there) > 2000:
                    data = bytes([data[0], data[1], data[2] ^ 1]) + bytes(data[3:])
                await target.send_all(data)

    async with hosts() as (alice, bob), trio.open_nursery() as nursery:
        port = await nursery.start(Flip(bob).run)
        connection = await alice.dial(tcp_addr("127.0.0.1", port))
        stream = await connection.open_stream(["/test/echo"])

        async def talk() -> None:
            while True:
                await stream.send_all(SECRET)
                await stream.receive_some()

        with pytest.raises(trio.BrokenResourceError):
            await talk()
        assert bob.faults["noise-decrypt"] == 1
        nursery.cancel_scope.cancel()


# Peers that name no muxer inside the handshake


@pytest.mark.parametrize("initiator", [True, False])
async def test_the_muxer_may_be_agreed_behind_the_handshake(
    initiator: bool, autojump_clock: trio.testing.MockClock
) -> None:
    left, right = trio.testing.memory_stream_pair()

    async def ours() -> None:
        keys = NoiseKeys(ALICE, bytes([3]) * 32)
        secured = await upgrade(left, keys, bytes([4]) * 32, initiator=initiator)  # type: ignore[arg-type]
        assert secured.session.peer == BOB.peer_id
        assert secured.session.muxer is None
        # What the peer sent right behind its agreement is not lost.
        assert secured.plain == (b"" if initiator else b"behind")

    async def theirs() -> None:
        machine = Handshake(BOB, bytes([5]) * 32, bytes([6]) * 32, initiator=not initiator)
        hello = message(HEADER) + message("/noise")
        await right.send_all(hello + (b"" if initiator else machine.start()))
        got = b""
        while len(got) < len(hello):
            got += await right.receive_some()
        await right.send_all(machine.receive(got[len(hello) :]))
        while machine.session is None:
            await right.send_all(machine.receive(await right.receive_some()))
        said = message(HEADER) + message(yamux.PROTOCOL) + (b"" if initiator else b"behind")
        out = memoryview(bytearray(sealed_size(len(said)) + 18))
        size = machine.session.sealer.seal(memoryview(said), out)
        for at in range(size):  # byte by byte
            await right.send_all(bytes(out[at : at + 1]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours)
        nursery.start_soon(theirs)


async def test_a_peer_without_noise(autojump_clock: trio.testing.MockClock) -> None:
    left, right = trio.testing.memory_stream_pair()
    await right.send_all(message(HEADER) + message("na"))
    keys = NoiseKeys(ALICE, bytes([3]) * 32)
    with pytest.raises(PeerFault, match="no-noise"):
        await upgrade(left, keys, bytes([4]) * 32, initiator=True)  # type: ignore[arg-type]
