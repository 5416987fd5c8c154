from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
import trio

from shoal.node.environment import RawStream
from shoal.node.net.bounds import Limits
from shoal.node.net.host import Host, HostConfig
from shoal.node.net.secure import NoiseKeys, upgrade
from shoal.node.net.stream import Stream
from shoal.simulations.link import Link
from shoal.simulations.world import World
from shoal.wire import noise
from shoal.wire.addresses import parse_multiaddr
from shoal.wire.keys import PrivateKey
from shoal.wire.multistream import HEADER, message
from shoal.wire.yamux_frames import HEADER as FRAME
from shoal.wire.yamux_frames import SYN, WINDOW

ECHO = "/test/echo"
LATENCY = 0.05


def key_of(name: str) -> PrivateKey:
    return PrivateKey(hashlib.sha256(name.encode()).digest())


async def echo(stream: Stream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)
    await stream.send_eof()


MakeHost = Callable[..., Awaitable[Host]]


@pytest.fixture
async def make_host(world: World) -> MakeHost:
    """Start a host at a place of its own; it listens on port 4001 and serves an echo."""
    world.network.default = Link(latency=LATENCY)

    async def make(name: str, *, ips: Sequence[str] = (), limits: Limits | None = None) -> Host:
        environment = world.environment(name, ips)
        config = HostConfig(limits=limits or Limits())
        host = Host(environment, key_of(name), config)
        host.handle(ECHO, echo)
        families = {":" in ip for ip in ips or ["4"]}
        listen = ["/ip4/0.0.0.0/tcp/4001"] if False in families else []
        listen += ["/ip6/::/tcp/4001"] if True in families else []
        await world.nursery.start(host.run, [parse_multiaddr(text) for text in listen])
        return host

    return make


@dataclass
class RawPeer:
    """A peer that speaks Noise properly and says whatever it likes behind it."""

    raw: RawStream
    session: noise.Session
    streams: int = 0
    got: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Frames received, by type and flags."""
    payload: bytearray = field(default_factory=bytearray)
    ended: trio.Event = field(default_factory=trio.Event)
    stop: trio.CancelScope = field(default_factory=trio.CancelScope)
    """Cancel it to read nothing more."""
    _cipher: bytearray = field(default_factory=bytearray)
    _plain: bytearray = field(default_factory=bytearray)

    async def send(self, plain: bytes) -> None:
        out = memoryview(bytearray(noise.sealed_size(len(plain)) + 18))
        await self.raw.send_all(out[: self.session.sealer.seal(memoryview(plain), out)])

    def open(self, protocol: str = "") -> bytes:
        """Return the frames that open a stream, and propose a protocol if one is given."""
        self.streams += 1
        stream = 2 * self.streams - 1
        out = FRAME.pack(0, WINDOW, SYN, stream, 0)
        if protocol:
            said = message(HEADER) + message(protocol)
            out += FRAME.pack(0, 0, 0, stream, len(said)) + said
        return out

    async def listen(self) -> None:
        """Note what comes until the end."""
        plain = memoryview(bytearray(noise.MAX_PLAIN))
        with self.stop, suppress(trio.BrokenResourceError):
            while data := await self.raw.receive_some(1 << 16):
                self._cipher += data
                while True:
                    used, made = self.session.opener.open(memoryview(bytes(self._cipher)), plain)
                    if not used:
                        break
                    del self._cipher[:used]
                    self._plain += plain[:made]
                self._frames()
        self.ended.set()

    def _frames(self) -> None:
        while len(self._plain) >= 12:
            _, kind, flags, _, length = FRAME.unpack_from(self._plain)
            size = length if kind == 0 else 0
            if len(self._plain) < 12 + size:
                break
            self.got[kind, flags] += 1
            self.payload += self._plain[12 : 12 + size]
            del self._plain[: 12 + size]


MakeRawPeer = Callable[..., Awaitable[RawPeer]]


@pytest.fixture
async def raw_peer(world: World) -> MakeRawPeer:
    """Connect to a host as a peer that need not keep to any rule."""

    async def make(host: Host, name: str = "eve", *, reads: bool = True) -> RawPeer:
        environment = world.environment(name)
        raw = await environment.transport.dial(host.listen_addrs()[0])
        keys = NoiseKeys(key_of(name), environment.random.secret(32))
        secured = await upgrade(
            raw, keys, environment.random.secret(32), initiator=True, expected=host.peer_id
        )
        peer = RawPeer(raw, secured.session)
        peer._cipher += secured.cipher
        if reads:
            world.nursery.start_soon(peer.listen)
        await trio.sleep(1)  # until the end of the handshake is over there
        return peer

    return make
