"""A peer that speaks Noise, yamux and the swarm protocol, and misbehaves as it is told.

    python benchmarks/hostile_peer.py --cid CID [--pieces N] [--target ADDR]… [--each N] MISDEED…

Every misdeed (see `misdeeds.py`; `all` = each of them) gets N peers of its own, each with its own
identity, listener and connections. It is done to whoever opens a swarm stream for the content, and
to every target, again and again: when the stream or the connection ends, with a new one. Prints
JSON lines: `listening` for each peer, and `attached` when it has first got hold of somebody.
It is for the tests and timings of this repository: point it at nodes of your own.
"""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import trio
from misdeeds import MISDEEDS, UNGREETED, Tap, Wire
from multiaddr import Multiaddr

from shoal.node.environment import RawStream, real_environment
from shoal.node.net.connection import Connection
from shoal.node.net.errors import NetError
from shoal.node.net.host import Host
from shoal.node.net.stream import Stream
from shoal.node.net.tcp import TcpListener, TcpTransport
from shoal.wire.addresses import parse_multiaddr, with_peer
from shoal.wire.errors import PeerFault
from shoal.wire.ids import Cid
from shoal.wire.keys import PrivateKey
from shoal.wire.swarm import PROTOCOL

AGAIN_SECONDS = 0.05
"""Pause before a new stream: each peer breaks the rules up to twenty times a second."""

PATIENCE_SECONDS = 15.0
"""For a greeting to be answered."""

BROKEN = (
    EOFError,
    OSError,
    NetError,
    PeerFault,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.TooSlowError,
)


class Tapped:
    """A raw stream that is read as fast as its peer's tap says."""

    def __init__(self, raw: RawStream, tap: Tap) -> None:
        self._raw = raw
        self._tap = tap

    @property
    def remote(self) -> Multiaddr:
        """As the raw stream's."""
        return self._raw.remote

    @property
    def local(self) -> Multiaddr:
        """As the raw stream's."""
        return self._raw.local

    async def receive_into(self, buffer: memoryview) -> int:
        """Read, slowly if the tap says so."""
        if self._tap.seconds_a_byte:
            await trio.sleep(self._tap.seconds_a_byte)
            return await self._raw.receive_into(buffer[:1])
        return await self._raw.receive_into(buffer)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """As the raw stream's."""
        return await self._raw.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As the raw stream's."""
        await self._raw.send_all(data)

    async def send_eof(self) -> None:
        """As the raw stream's."""
        await self._raw.send_eof()

    async def aclose(self) -> None:
        """As the raw stream's."""
        await self._raw.aclose()


class TappedListener:
    """A listener whose streams are tapped."""

    def __init__(self, listener: TcpListener, tap: Tap) -> None:
        self._listener = listener
        self._tap = tap

    @property
    def addrs(self) -> Sequence[Multiaddr]:
        """As the listener's."""
        return self._listener.addrs

    async def accept(self) -> RawStream:
        """Wait for the next stream."""
        return Tapped(await self._listener.accept(), self._tap)

    async def aclose(self) -> None:
        """Stop listening."""
        await self._listener.aclose()


class TappedTransport:
    """TCP whose streams are tapped."""

    def __init__(self, tap: Tap) -> None:
        self._tcp = TcpTransport()
        self._tap = tap

    def can_dial(self, addr: Multiaddr) -> bool:
        """As TCP."""
        return self._tcp.can_dial(addr)

    async def dial(self, addr: Multiaddr, *, source_port: int | None = None) -> RawStream:
        """Connect."""
        return Tapped(await self._tcp.dial(addr), self._tap)

    async def listen(self, addr: Multiaddr) -> TappedListener:
        """Listen."""
        return TappedListener(await self._tcp.listen(addr), self._tap)

    async def resolve(self, addr: Multiaddr) -> Sequence[Multiaddr]:
        """As TCP."""
        return await self._tcp.resolve(addr)


class HostilePeer:
    """One peer with one way to do harm."""

    def __init__(self, name: str, root: Cid, pieces: int) -> None:
        self.name = name
        self._root = root
        self._pieces = pieces
        self._tap = Tap()
        environment = replace(real_environment(), transport=TappedTransport(self._tap))
        self._host = Host(environment, PrivateKey(environment.random.secret(32)))
        self._attached = False

    async def run(
        self,
        targets: Sequence[Multiaddr],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Do harm until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._host.run, [Multiaddr("/ip4/127.0.0.1/tcp/0")])
            self._host.handle(PROTOCOL, self._inbound)
            addr = with_peer(self._host.listen_addrs()[0], self._host.peer_id)
            self._say("listening", addrs=[str(addr)])
            task_status.started()
            for target in targets:
                nursery.start_soon(self._harass, target)

    def _say(self, event: str, **fields: object) -> None:
        line = {"event": event, "misdeed": self.name, "peer_id": str(self._host.peer_id)}
        print(json.dumps({**line, **fields}), flush=True)

    async def _inbound(self, stream: Stream) -> None:
        """Do it to one who opened a stream to us."""
        wire = Wire(stream, self._root, self._pieces, self._tap)
        with suppress(*BROKEN):
            await wire.receive()
            await wire.greet()
            await self._misbehave(wire)

    async def _harass(self, target: Multiaddr) -> None:
        """Do it to a target, again and again."""
        connection: Connection | None = None
        while True:
            with suppress(*BROKEN):
                if connection is None or not connection.usable:
                    self._tap.seconds_a_byte = 0.0
                    connection = await self._host.dial(target)
                stream = await connection.open_stream([PROTOCOL])
                wire = Wire(stream, self._root, self._pieces, self._tap)
                if self.name not in UNGREETED:
                    await wire.greet()
                    with trio.fail_after(PATIENCE_SECONDS):
                        await wire.receive()
                await self._misbehave(wire)
            await trio.sleep(AGAIN_SECONDS)

    async def _misbehave(self, wire: Wire) -> None:
        if not self._attached:
            self._attached = True
            self._say("attached")
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._until_over, wire, nursery.cancel_scope)
                await MISDEEDS[self.name](wire)
                nursery.cancel_scope.cancel()
        except* BROKEN:
            pass
        wire.stream.reset()

    async def _until_over(self, wire: Wire, scope: trio.CancelScope) -> None:
        """End what is done on a connection that has ended."""
        await wire.connection.wait_closed()
        scope.cancel()


async def run(options: argparse.Namespace) -> None:
    """Run all peers until SIGTERM or SIGINT."""
    names = sorted(MISDEEDS) if "all" in options.misdeed else options.misdeed
    targets = [parse_multiaddr(text) for text in options.target]
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            for name in names:
                for _ in range(options.each):
                    peer = HostilePeer(name, Cid.parse(options.cid), options.pieces)
                    await nursery.start(peer.run, targets)
            async for _ in signals:
                nursery.cancel_scope.cancel()


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("misdeed", nargs="+", choices=[*MISDEEDS, "all"])
    parser.add_argument("--cid", required=True)
    parser.add_argument("--pieces", type=int, default=64, help="of the content (default 64)")
    parser.add_argument("--target", action="append", default=[], help="an address, with /p2p")
    parser.add_argument("--each", type=int, default=1, help="peers for each misdeed (default 1)")
    trio.run(run, parser.parse_args())


if __name__ == "__main__":
    main()
