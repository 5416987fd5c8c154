"""Time what grows with the number of files, contents and pieces, on real processes.

    python benchmarks/scale.py [--files] [--index] [--contents] [--size N] [--repeat N]

Without a choice all three run:

- `--files`: a folder of N small files (100 000 of 4 KiB) is shared by one process and fetched by
  another; both times are from the command's start to its last event. Prints the peaks of memory.
- `--index`: a home with a content of N TiB (50) of sparse files, whose index consists of few nodes
  repeated, starts; a second home that fetches it knows nothing but the index.
- `--contents`: a home with N contents (10 000) starts beside a node to announce to; from then on
  the control socket is asked for `id` again and again until the node is quiet, and the longest
  answers are printed: that is how long the node was blocked.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from processes import Shoal, seed
from synthetic import create_microseconds, fill_contents, fill_index, write_files
from waiting_times import quiet_after

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
GOALS = {
    "files": "sharing and fetching 100 000 files within 20 s, 150 MiB each",
    "index": "50 TiB within 2 s and 100 MiB",
    "contents": "10 000 within 2 s, and not blocked behind it",
}


def mib(count: int) -> int:
    """Return bytes as whole MiB, rounded up."""
    return -(-count >> 20)


def many_files(folder: Path, count: int, size: int, per_folder: int) -> tuple[float, ...]:
    """Share and fetch a tree; return seconds and peaks: share, fetch."""
    tree = folder.parent / "tree"
    if not tree.exists():
        write_files(tree, count, size, per_folder)
        os.sync()
    began = time.perf_counter()
    node, listening = seed(folder / "share", tree, log=folder / "share.log")
    try:
        cid = node.wait_for("shared", 600)["cid"]
        sharing = time.perf_counter() - began
        share_peak, share_cpu = node.peak_bytes(), node.cpu_seconds()
        began = time.perf_counter()
        peer = listening["addrs"][0]
        target = folder / "fetched"
        arguments = ("get", cid, "-o", str(target), "--listen", LOOPBACK, "--peer", peer)
        with Shoal(folder / "get", *arguments, log=folder / "get.log") as getter:
            getter.wait_for("complete", 600)
            fetching = time.perf_counter() - began
            get_cpu, get_peak = getter.cpu_seconds(), getter.peak_bytes()
        serve_cpu = node.cpu_seconds() - share_cpu
        serve_peak = node.peak_bytes()
    finally:
        node.finish(stop=True)
    found = sum(len(names) for _, _, names in os.walk(target))
    if found != count:
        sys.exit(f"{found} files of {count} were fetched")
    print(
        f"  {count} files of {size} bytes (a bare loop makes one in "
        f"{create_microseconds(folder):.0f} us here): share {sharing:.2f} s (CPU {share_cpu:.2f}), "
        f"fetch {fetching:.2f} s (CPU {get_cpu:.2f} + {serve_cpu:.2f} of the sender), "
        f"both {sharing + fetching:.2f} s; peak MiB: importer {mib(share_peak)}, "
        f"sender {mib(serve_peak)}, receiver {mib(get_peak)}",
        flush=True,
    )
    return sharing, fetching, sharing + fetching


def large_index(folder: Path, tebibytes: int) -> tuple[float, ...]:
    """Start homes that hold and that fetch a large content; return their seconds."""
    home, data = folder / "holds", folder / "data"
    cid = fill_index(home, data, tebibytes)
    node, holds, peak = _start(home, folder / "holds.log")
    try:
        getter = Shoal(
            folder / "fetches",
            "get",
            cid,
            "-o",
            str(folder / "target"),
            "--listen",
            LOOPBACK,
            "--peer",
            node.first["addrs"][0],
            log=folder / "get.log",
        )
        began = time.perf_counter()
        for event in getter.events():
            # Where so much is not free, it is refused as soon as the index is known.
            if event["event"] == "error" or (event["event"] == "progress" and event["done_bytes"]):
                break
        known = time.perf_counter() - began
        fetch_peak = getter.finish(stop=True).peak_bytes
        print(
            f"  {tebibytes} TiB: a node that holds it listens after {holds:.2f} s with "
            f"{mib(peak)} MiB; one that fetches it knows the index after {known:.2f} s with "
            f"{mib(fetch_peak)} MiB, the sender has {mib(node.peak_bytes())}",
            flush=True,
        )
    finally:
        node.finish(stop=True)
    return holds, known


def many_contents(folder: Path, count: int) -> tuple[float, ...]:
    """Start a home with many contents; return the seconds and the longest answer behind it."""
    home = folder / "home"
    fill_contents(home, folder / "data", count)
    other, _, _ = _start(folder / "other", folder / "other.log")
    try:
        join = ("--bootstrap", other.first["addrs"][0])
        node, seconds, peak = _start(home, folder / "home.log", *join)
        with node:
            used = node.cpu_seconds()
            answers, busy = quiet_after(node)
            used = node.cpu_seconds() - used
            slow = sorted(answers)[-3:]
            print(
                f"  {count} contents: listening after {seconds:.2f} s with {mib(peak)} MiB; then "
                f"busy for {busy:.1f} s (CPU {used:.1f} s, {mib(node.peak_bytes())} MiB), "
                f"{len(answers)} answers, the median after "
                f"{1000 * statistics.median(answers):.0f} ms, the slowest after "
                + ", ".join(f"{1000 * one:.0f}" for one in slow)
                + " ms",
                flush=True,
            )
    finally:
        other.finish(stop=True)
    return seconds, max(answers)


def _start(home: Path, log: Path, *arguments: str) -> tuple[Shoal, float, int]:
    """Run `up`; return the process, the seconds until it listens, and its memory then."""
    began = time.perf_counter()
    node = Shoal(home, "up", "--listen", LOOPBACK, *arguments, log=log)
    node.first = node.wait_for("listening")
    return node, time.perf_counter() - began, node.peak_bytes()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", action="store_true", help="only many small files")
    parser.add_argument("--index", action="store_true", help="only a large index")
    parser.add_argument("--contents", action="store_true", help="only many contents")
    parser.add_argument("--size", type=int, help="files, TiB or contents")
    parser.add_argument("--bytes", type=int, default=4096, help="of a small file (default 4096)")
    parser.add_argument(
        "--per-folder",
        type=int,
        default=1000,
        help="small files of a folder (default 1000; 0: all)",
    )
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    options = parser.parse_args()
    chosen = [name for name in GOALS if getattr(options, name)] or list(GOALS)
    if options.size is not None and len(chosen) > 1:
        parser.error("--size needs one of --files, --index, --contents")

    def files(folder: Path) -> tuple[float, ...]:
        count = options.size or 100_000
        return many_files(folder, count, options.bytes, options.per_folder or count)

    runs: dict[str, Callable[[Path], tuple[float, ...]]] = {
        "files": files,
        "index": lambda folder: large_index(folder, options.size or 50),
        "contents": lambda folder: many_contents(folder, options.size or 10_000),
    }
    for name in chosen:
        print(f"{name} (to reach: {GOALS[name]})", flush=True)
        with tempfile.TemporaryDirectory(prefix="shoal-scale-", dir=options.folder) as place:
            results = []
            for number in range(options.repeat):
                folder = Path(place) / f"run-{number}"
                folder.mkdir()
                results.append(runs[name](folder))
        if options.repeat > 1:
            medians = (statistics.median(values) for values in zip(*results, strict=True))
            print("  medians: " + ", ".join(f"{value:.2f} s" for value in medians))


if __name__ == "__main__":
    main()
