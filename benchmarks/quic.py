"""Time one QUIC stream: what aioquic or qh3 carry over loopback, with trio doing their IO.

    python benchmarks/quic.py aioquic|qh3 [--size MIB] [--repeat N] [--datagram BYTES] [--plain]

Two processes on loopback, as in `raw_stream.py`: the receiver dials and asks, the sender sends from
memory. Datagrams go out and come in by the batch where the kernel can (UDP_SEGMENT, UDP_GRO);
--plain uses a call for each. Prints MB/s and CPU seconds per GiB of either side; the first run
warms up and is not counted. Neither library is a dependency: `pip install aioquic qh3`.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.util
import resource
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ALPN = "libp2p"
PIECE = 1 << 20
WINDOW = 16 << 20
AHEAD = 2 << 20
"""Bytes queued in the library's buffer, so that it never waits for us."""

UDP_SEGMENT = 103
UDP_GRO = 104
SOCKET_BUFFER = 4 << 20
MAX_SEGMENTS = 64
MAX_BATCH = 65_000
"""What one call may send (Linux: 64 segments, 64 KiB)."""

READS = 16
"""Calls to read before what came is answered."""

Peer = tuple[str, int]


def cpu() -> float:
    """Return the CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a self-signed certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "benchmark")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


class Wire:
    """A UDP socket that takes and gives datagrams by the batch."""

    def __init__(self, *, plain: bool) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(("127.0.0.1", 0))
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self.socket.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
        self.plain = plain
        if not plain:
            self.socket.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)

    async def send(self, datagrams: list[tuple[bytes, Peer]]) -> None:
        """Send them in order."""
        at = 0
        while at < len(datagrams):
            first, peer = datagrams[at]
            until = at + 1
            size = len(first)
            if not self.plain:
                most = min(MAX_SEGMENTS, MAX_BATCH // size)
                while until < len(datagrams) and until - at < most:
                    until += 1
                    if len(datagrams[until - 1][0]) != size:
                        # A shorter one may end a batch, a longer one begins the next.
                        until -= len(datagrams[until - 1][0]) > size
                        break
            batch = [data for data, _ in datagrams[at:until]]
            options = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("@H", size))]
            while True:
                try:
                    self.socket.sendmsg(batch, options if len(batch) > 1 else [], 0, peer)
                    break
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self.socket)
            at = until

    def receive(self) -> tuple[bytes, int, Peer] | None:
        """Return bytes, the size of each datagram in them, and the sender; None = nothing there."""
        try:
            data, options, _, peer = self.socket.recvmsg(1 << 16, socket.CMSG_SPACE(4))
        except BlockingIOError:
            return None
        for _, kind, value in options:
            if kind == UDP_GRO:
                return data, struct.unpack("@i", value)[0], peer
        return data, len(data), peer


class End:
    """One end of a connection."""

    def __init__(self, library: str, quic: Any, wire: Wire) -> None:
        self.quic = quic
        self.wire = wire
        self._events = importlib.import_module(f"{library}.quic.events")
        self._native = hasattr(quic, "receive_gro_buffer")

    async def run(
        self, feed: Callable[[], None], got: Callable[[bytes], None], over: Callable[[], bool]
    ) -> None:
        """Drive the connection until it is over."""
        while True:
            feed()
            await self.wire.send(self.quic.datagrams_to_send(time.monotonic()))
            if over():
                return
            timer = self.quic.get_timer()
            wait = 1.0 if timer is None else max(0.0, timer - time.monotonic())
            with trio.move_on_after(wait) as waited:
                await trio.lowlevel.wait_readable(self.wire.socket)
            if waited.cancelled_caught and timer is not None:
                self.quic.handle_timer(time.monotonic())
            for _ in range(READS):
                came = self.wire.receive()
                if came is None:
                    break
                self.take(*came)
            while (event := self.quic.next_event()) is not None:
                if isinstance(event, self._events.StreamDataReceived):
                    got(event.data)
                elif isinstance(event, self._events.ConnectionTerminated):
                    raise SystemExit(f"the connection ended: {event}")

    def take(self, data: bytes, size: int, peer: Peer) -> None:
        """Give datagrams that came to the connection."""
        now = time.monotonic()
        if self._native:
            self.quic.receive_gro_buffer(data, size, peer, now)
            return
        for at in range(0, len(data), size):
            self.quic.receive_datagram(data[at : at + size], peer, now)

    def queued(self, stream: int) -> int:
        """Return the bytes that wait in the library to be sent (aioquic: or acknowledged)."""
        if self._native:
            return int(self.quic.get_send_buffer_size(stream))
        sender = self.quic._streams[stream].sender if stream in self.quic._streams else None
        return len(sender._buffer) if sender is not None else 0


def settings(library: str, options: argparse.Namespace, *, client: bool) -> Any:
    """Return the library's configuration."""
    module = importlib.import_module(f"{library}.quic.configuration")
    found = module.QuicConfiguration(
        is_client=client, alpn_protocols=[ALPN], max_data=WINDOW, max_stream_data=WINDOW
    )
    if options.datagram:
        found.max_datagram_size = options.datagram
    if client:
        found.verify_mode = ssl.CERT_NONE
    else:
        with tempfile.TemporaryDirectory() as name:
            found.load_cert_chain(*certificate(Path(name)))
    return found


async def send(library: str, options: argparse.Namespace) -> None:
    """Serve one connection: for each eight bytes that come, send so many bytes."""
    module = importlib.import_module(f"{library}.quic.connection")
    wire = Wire(plain=options.plain)
    print(wire.socket.getsockname()[1], flush=True)
    await trio.lowlevel.wait_readable(wire.socket)
    first = wire.receive()
    assert first is not None
    configuration = settings(library, options, client=False)
    chosen = first[0][6 : 6 + first[0][5]]  # the connection id that the client chose for us
    quic = module.QuicConnection(
        configuration=configuration, original_destination_connection_id=chosen
    )
    end = End(library, quic, wire)
    end.take(*first)
    block = bytes(PIECE)
    left, stream, used = 0, 0, cpu()
    asked = b""

    def feed() -> None:
        nonlocal left
        while left and end.queued(stream) < AHEAD:
            take = min(left, PIECE)
            quic.send_stream_data(stream, block[:take])
            left -= take

    def got(data: bytes) -> None:
        nonlocal left, asked, used
        asked += data
        if len(asked) == 8:
            (left,), asked = struct.unpack(">Q", asked), b""
            now = cpu()
            print(now - used, flush=True)  # of what came before this request
            used = now

    await end.run(feed, got, lambda: False)


async def receive(
    library: str, options: argparse.Namespace, port: int
) -> list[tuple[float, float]]:
    """Ask for the bytes several times; return seconds and CPU seconds of each run."""
    module = importlib.import_module(f"{library}.quic.connection")
    quic = module.QuicConnection(configuration=settings(library, options, client=True))
    end = End(library, quic, Wire(plain=options.plain))
    quic.connect(("127.0.0.1", port), now=time.monotonic())
    size: int = options.size << 20
    buffer = memoryview(bytearray(PIECE))
    total = at = 0

    def got(data: bytes) -> None:
        nonlocal total, at
        total += len(data)
        while data:
            take = min(len(data), PIECE - at)
            buffer[at : at + take] = data[:take]
            at = (at + take) % PIECE
            data = data[take:]

    def whole() -> bool:
        return total >= size

    runs = []
    for _ in range(options.repeat + 1):
        total = 0
        began, used = time.perf_counter(), cpu()
        quic.send_stream_data(0, struct.pack(">Q", size))
        await end.run(lambda: None, got, whole)
        runs.append((time.perf_counter() - began, cpu() - used))
    quic.send_stream_data(0, struct.pack(">Q", 0))  # so that the sender tells of the last run
    with trio.move_on_after(1):
        await end.run(lambda: None, got, lambda: False)
    return runs[1:]


def main() -> None:
    """Run the benchmark, or the sending side of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("library", choices=["aioquic", "qh3"])
    parser.add_argument("--size", type=int, default=128, help="MiB to transfer")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--datagram", type=int, default=0, help="bytes (else the library's own)")
    parser.add_argument("--plain", action="store_true", help="a call for each datagram")
    parser.add_argument("--send", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if importlib.util.find_spec(options.library) is None:
        raise SystemExit(f"{options.library} is missing: pip install {options.library}")
    if options.send:
        trio.run(send, options.library, options)
        return
    with subprocess.Popen(
        [sys.executable, __file__, *sys.argv[1:], "--send"], stdout=subprocess.PIPE, text=True
    ) as sender:
        assert sender.stdout is not None
        try:
            port = int(sender.stdout.readline())
            runs = trio.run(receive, options.library, options, port)
        finally:
            sender.kill()
        sent = sender.stdout.read()
    size = options.size << 20
    gib = size / (1 << 30)
    sending = [float(line) / gib for line in sent.split()][2:]
    rates = [size / 1e6 / seconds for seconds, _ in runs]
    taking = [used / gib for _, used in runs]
    print(f"MB/s            median {statistics.median(rates):.0f}, best {max(rates):.0f}")
    print(f"CPU s/GiB       receiver {min(taking):.2f}, sender {min(sending):.2f} (best runs)")


if __name__ == "__main__":
    main()
