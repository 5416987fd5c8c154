"""Time one stream of a real connection: no swarm protocol, no database, nothing written.

    python benchmarks/raw_stream.py [--size MIB] [--repeat N] [--verify] [--memory] [--quic]

Two processes on loopback. The sender queues ranges of a file (or, with --memory, bytes) on a
stream; the receiver's sink copies them into a buffer of 1 MiB and, with --verify, hashes it.
With --quic it runs over QUIC instead of TCP, Noise and yamux. Prints MB/s and CPU seconds per GiB
of either side; the first run warms up and is not counted.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import trio
from multiaddr import Multiaddr

from shoal.node.environment import real_environment
from shoal.node.net.host import Host
from shoal.node.net.stream import FileRange, Stream
from shoal.wire.addresses import parse_multiaddr, with_peer
from shoal.wire.keys import PrivateKey

PROTOCOL = "/shoal/benchmark/raw"
PIECE = 1 << 20
AHEAD = 16 << 20
WINDOW = 16 << 20


def cpu() -> float:
    """Return the CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def send(path: Path, memory: bool, quic: bool) -> None:
    """Serve the file until standard input ends; print the address, then CPU seconds per run."""
    environment = real_environment()
    host = Host(environment, PrivateKey(environment.random.secret(32)))
    block = bytes(PIECE)

    async def serve(stream: Stream) -> None:
        started = cpu()
        (size,) = struct.unpack(">Q", await stream.receive_some(8))
        folder = environment.disk.folder(path.parent)
        file = folder.open(path.name)
        for offset in range(0, size, PIECE):
            if memory:
                stream.queue(block)
            else:
                stream.queue_file(FileRange(file, offset, PIECE))
            await stream.wait_drained(AHEAD)
        await stream.send_eof()
        await stream.wait_drained(0)
        await stream.receive_some()
        file.close()
        folder.close()
        print(cpu() - started, flush=True)

    async with trio.open_nursery() as nursery:
        addr = "/ip4/127.0.0.1/udp/0/quic-v1" if quic else "/ip4/127.0.0.1/tcp/0"
        await nursery.start(host.run, [Multiaddr(addr)])
        host.handle(PROTOCOL, serve)
        print(with_peer(host.listen_addrs()[0], host.peer_id), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


class Taker:
    """A sink that fills one buffer again and again."""

    def __init__(self, verify: bool) -> None:
        self.verify = verify
        self.buffer = memoryview(bytearray(PIECE))
        self.have = 0
        self.total = 0
        self.over = trio.Event()

    def feed(self, data: memoryview) -> int:
        """Copy the bytes; hash the buffer when it is full."""
        at, size = 0, len(data)
        while at < size:
            take = min(size - at, PIECE - self.have)
            self.buffer[self.have : self.have + take] = data[at : at + take]
            at += take
            self.have += take
            if self.have == PIECE:
                self.have = 0
                if self.verify:
                    hashlib.sha256(self.buffer).digest()
        self.total += size
        return size

    def pass_done(self) -> None:
        """Do nothing."""

    def ended(self, reason: str | None) -> None:
        """Let the receiver go on."""
        self.over.set()


async def receive(addr: str, size: int, repeat: int, verify: bool) -> list[tuple[float, float]]:
    """Fetch the bytes several times; return seconds and CPU seconds of each run."""
    environment = real_environment()
    host = Host(environment, PrivateKey(environment.random.secret(32)))
    runs: list[tuple[float, float]] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run, [])
        connection = await host.dial(parse_multiaddr(addr))
        connection.fetching += 1
        for _ in range(repeat + 1):
            stream = await connection.open_stream([PROTOCOL])
            stream.grow_window(WINDOW)
            taker = Taker(verify)
            stream.install_sink(taker)
            began, used = time.perf_counter(), cpu()
            await stream.send_all(struct.pack(">Q", size))
            await taker.over.wait()
            runs.append((time.perf_counter() - began, cpu() - used))
            await stream.aclose()
            if taker.total != size:
                raise SystemExit(f"{taker.total} bytes arrived instead of {size}")
        nursery.cancel_scope.cancel()
    return runs[1:]


def main() -> None:
    """Run the benchmark, or the sending side of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=512, help="MiB to transfer")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--verify", action="store_true", help="hash what arrives")
    parser.add_argument("--memory", action="store_true", help="send bytes, not a file")
    parser.add_argument("--quic", action="store_true", help="over QUIC")
    parser.add_argument("--send", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.send is not None:
        trio.run(send, options.send, options.memory, options.quic)
        return
    size = options.size << 20
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "bytes"
        with path.open("wb") as file:
            for _ in range(options.size):
                file.write(bytes(PIECE))
        command = [sys.executable, __file__, "--send", str(path)]
        command += ["--memory"] if options.memory else []
        command += ["--quic"] if options.quic else []
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as sender:
            assert sender.stdout is not None
            addr = sender.stdout.readline().strip()
            runs = trio.run(receive, addr, size, options.repeat, options.verify)
            sent, _ = sender.communicate()
    gib = size / (1 << 30)
    sending = [float(line) / gib for line in sent.split()][1:]
    rates = [size / 1e6 / seconds for seconds, _ in runs]
    taking = [used / gib for _, used in runs]
    print(f"MB/s            median {statistics.median(rates):.0f}, best {max(rates):.0f}")
    print(f"CPU s/GiB       receiver {min(taking):.2f}, sender {min(sending):.2f} (best runs)")


if __name__ == "__main__":
    main()
