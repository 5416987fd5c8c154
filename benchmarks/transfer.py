"""Time a transfer over loopback between real processes.

    python benchmarks/transfer.py [--size MIB] [--seeders N] [--repeat N]

Prints, for each run and as medians: MB/s and CPU seconds per GiB of the receiver and of all senders
from the first `progress` event (nothing is asked for yet) to `complete` (everything is verified and
synced to disk), then the seconds from the command's start, and the peak memory of each side. The
first run warms up and is not counted. Before each fetch a scratch file of the same size is written
and removed: on virtual machines that take freed memory back, the first write to a cold page costs
ten times a later one, and would drown what is measured.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from processes import Shoal, ShoalFailed, Usage, seed, write_random


@dataclass(frozen=True)
class Run:
    """One measured transfer."""

    rate: float
    """Bytes a second, from the first event of progress on."""
    seconds: float
    """From the command's start."""
    receiver_cpu: float
    senders_cpu: float
    receiver: Usage
    senders: tuple[Usage, ...]


def warm_pages(path: Path, size: int) -> None:
    """Have the kernel hold as many pages as a file of `size` bytes takes."""
    block = bytes(1 << 20)
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(block)
    path.unlink()


def run_once(folder: Path, path: Path, size: int, seeders: int) -> Run:
    """Share `path` from `seeders` fresh nodes, fetch it once, and measure."""
    nodes: list[Shoal] = []
    peers: list[str] = []
    try:
        for number in range(seeders):
            node, listening = seed(folder / f"seed-{number}", path, log=folder / f"{number}.log")
            nodes.append(node)
            peers += ["--peer", listening["addrs"][0]]
        cids = [node.wait_for("shared", 600)["cid"] for node in nodes]
        target = folder / "fetched"
        warm_pages(folder / "scratch", size)
        getter = Shoal(
            folder / "get",
            "get",
            cids[0],
            "-o",
            str(target),
            "--listen",
            "/ip4/127.0.0.1/tcp/0",
            *peers,
            log=folder / "get.log",
        )
        nodes.append(getter)
        getter.wait_for("progress", 600)
        began, receiver_before = time.perf_counter(), getter.cpu_seconds()
        senders_before = sum(node.cpu_seconds() for node in nodes[:-1])
        done = getter.wait_for("complete", 600)
        rate = size / (time.perf_counter() - began)
        receiver_cpu = getter.cpu_seconds() - receiver_before
        senders_cpu = sum(node.cpu_seconds() for node in nodes[:-1]) - senders_before
        receiver = getter.finish()
        senders = tuple(node.finish(stop=True) for node in nodes[:-1])
        if target.stat().st_size != size:
            raise ShoalFailed("the fetched file has another size")
        return Run(rate, done["seconds"], receiver_cpu, senders_cpu, receiver, senders)
    finally:
        for node in nodes:
            node.finish(stop=True)
        (folder / "fetched").unlink(missing_ok=True)
        for home in folder.glob("*/"):
            shutil.rmtree(home)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=1024, help="MiB to move (default 1024)")
    parser.add_argument("--seeders", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3, help="counted runs after one to warm up")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    options = parser.parse_args()
    size = options.size << 20
    gib = size / (1 << 30)
    with tempfile.TemporaryDirectory(prefix="shoal-bench-", dir=options.folder) as name:
        folder = Path(name)
        path = folder / "random.bin"
        write_random(path, size)
        runs: list[Run] = []
        for number in range(options.repeat + 1):
            run = run_once(folder, path, size, options.seeders)
            label = "warm-up" if number == 0 else f"run {number}"
            print(
                f"{label:>8}: {run.rate / 1e6:6.0f} MB/s  {run.seconds:6.2f} s   CPU s/GiB: "
                f"receiver {run.receiver_cpu / gib:.2f}, senders {run.senders_cpu / gib:.2f}   "
                f"peak MiB: receiver {run.receiver.peak_bytes >> 20}, "
                f"sender {max(usage.peak_bytes for usage in run.senders) >> 20}",
                flush=True,
            )
            if number:
                runs.append(run)
        rate = statistics.median(run.rate for run in runs)
        received = statistics.median(run.receiver_cpu for run in runs) / gib
        sent = statistics.median(run.senders_cpu for run in runs) / gib
        print(
            f"  median: {rate / 1e6:6.0f} MB/s, CPU s/GiB: receiver {received:.2f}, "
            f"senders {sent:.2f}, both {received + sent:.2f}"
        )


if __name__ == "__main__":
    main()
