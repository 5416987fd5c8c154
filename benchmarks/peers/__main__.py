"""Shoal beside other ways to move a file, on this machine, in alternation.

    python benchmarks/peers [--size MIB] [--repeat N] [--only NAME]…

Every round moves the same random file once with each system; the first round warms up and is not
counted. What is timed is the transfer alone: from the moment at which a started receiver may dial
and ask, to the end. Shoal encrypts, verifies and syncs to disk; libtorrent runs in plain
text and verifies; curl from nginx encrypts and does not verify. After each run the file is compared
with its source. Prints medians, ratios of medians, CPU seconds per GiB and peak memory.
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from processes import write_random
from transfer import warm_pages

from peers.measuring import Measured
from peers.systems import (
    System,
    available,
    libtorrent_default,
    libtorrent_tuned,
    nginx_curl,
    shoal,
)


@dataclass
class Row:
    """One system with so many seeders."""

    name: str
    seeders: int
    move: System
    protects: str
    runs: list[Measured] = field(default_factory=list)


def rows(only: list[str]) -> list[Row]:
    """Return what can be run here; says what cannot."""
    found = []
    missing = available()
    for seeders in (1, 3):
        found.append(Row("shoal", seeders, shoal, "encrypted, verified, synced"))
        if "libtorrent" not in missing:
            found.append(Row("libtorrent", seeders, libtorrent_default, "verified"))
            found.append(Row("libtorrent tuned", seeders, libtorrent_tuned, "verified"))
        if "nginx" not in missing and seeders == 1:
            found.append(Row("nginx + curl TLS 1.3", seeders, nginx_curl, "encrypted"))
    for name, why in missing.items():
        print(f"{name} is left out: {why}")
    return [row for row in found if not only or f"{row.name}/{row.seeders}" in only]


def run_once(row: Row, path: Path, base: Path) -> Measured:
    """Move the file once, and compare."""
    with tempfile.TemporaryDirectory(dir=base) as name:
        folder = Path(name)
        warm_pages(folder / "scratch", path.stat().st_size)
        measured = row.move(folder, path, row.seeders)
        if not filecmp.cmp(path, folder / "fetched", shallow=False):
            raise RuntimeError(f"{row.name} fetched another content")
        return measured


def report(found: list[Row], size: int) -> None:
    """Print the table."""
    gib = size / (1 << 30)

    def median(row: Row, what: str) -> float:
        return statistics.median(float(getattr(run, what)) for run in row.runs)

    print(
        f"\n{'':26}{'MB/s':>6} {'min':>5} {'max':>5}   "
        f"{'CPU s/GiB: receiver':>19} {'senders':>8} {'both':>6}   {'peak MiB':>9}"
    )
    rates = {}
    for row in found:
        speeds = sorted(size / run.seconds / 1e6 for run in row.runs)
        rate = rates[row.name, row.seeders] = statistics.median(speeds)
        receiver, senders = median(row, "receiver_cpu") / gib, median(row, "senders_cpu") / gib
        peaks = (
            f"{max(r.receiver_peak for r in row.runs) >> 20}"
            f"/{max(r.sender_peak for r in row.runs) >> 20}"
        )
        label = f"{row.name}, {row.seeders} seed" + "s" * (row.seeders > 1)
        print(
            f"{label:26}{rate:6.0f} {speeds[0]:5.0f} {speeds[-1]:5.0f}   "
            f"{receiver:19.2f} {senders:8.2f} {receiver + senders:6.2f}   {peaks:>9}  "
            f"{row.protects}"
        )
    print()
    for (name, seeders), rate in rates.items():
        ours = rates.get(("shoal", seeders))
        if ours is not None and name != "shoal":
            label = f"shoal / {name}, {seeders} seed" + "s" * (seeders > 1)
            print(f"{label:44}{ours / rate:5.2f} x")


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=1024, help="MiB to move (default 1024)")
    parser.add_argument("--repeat", type=int, default=5, help="rounds after one to warm up")
    parser.add_argument("--only", action="append", default=[], help="such as shoal/1; repeatable")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    options = parser.parse_args()
    size = options.size << 20
    found = rows(options.only)
    with tempfile.TemporaryDirectory(prefix="shoal-peers-", dir=options.folder) as name:
        base = Path(name)
        path = base / "random.bin"
        write_random(path, size)
        clean = partial(shutil.rmtree, ignore_errors=True)
        for number in range(options.repeat + 1):
            for at in range(len(found)):
                row = found[(at + number) % len(found)]  # nobody always follows the same one
                measured = run_once(row, path, base)
                rate = size / measured.seconds / 1e6
                what = "warm-up" if number == 0 else f"round {number}"
                print(f"{what:>8}  {row.name}/{row.seeders}: {rate:.0f} MB/s", flush=True)
                if number:
                    row.runs.append(measured)
        clean(base / "scratch")
    report(found, size)


if __name__ == "__main__":
    main()
