"""Time what one bad seeder of four costs a fetch, with real processes over loopback.

    python benchmarks/stalls.py [--size MIB] [--repeat N] [--case stopped|slow] [--json]

Each round fetches the file once from four good seeders, and once while one of them goes bad:
`stopped` gets SIGSTOP when 30 % are there (its connections stay open, nothing comes any more);
`slow` sits behind a line of 50 kB/s. Prints the seconds from the first `progress` event (nothing is
asked for yet) to `complete` (everything is verified and synced) of each fetch, their medians, and
what the bad seeder cost. The first round warms up and is not counted; good and bad take turns in
going first.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from processes import Event, Shoal, ShoalFailed, seed, write_random
from relay import Relay
from transfer import warm_pages

SEEDERS = 4
STOP_AT = 0.3
"""Share of the bytes that are there when the seeder is stopped."""

SLOW_RATE = 50e3
"""Bytes a second of the slow line."""

CASES = ("stopped", "slow")
GOALS = {"stopped": "goal: under 2 s lost", "slow": "goal: under 3 % more time"}


@dataclass(frozen=True)
class Fetched:
    """One fetch."""

    seconds: float
    """From the first event of progress to the end."""
    wasted_bytes: int
    from_bad: int
    """Bytes that came from the bad seeder."""
    longest_pause: float
    """Seconds between two events of progress that told of more bytes."""


@dataclass(frozen=True)
class Result:
    """What a bad seeder costs, as medians."""

    case: str
    good: Sequence[Fetched]
    bad: Sequence[Fetched]

    @property
    def seconds(self) -> tuple[float, float]:
        """Medians: without and with the bad seeder."""
        good, bad = (statistics.median(f.seconds for f in fs) for fs in (self.good, self.bad))
        return good, bad


class Seeders:
    """Four running seeders of one file."""

    def __init__(self, folder: Path, path: Path) -> None:
        self.nodes: list[Shoal] = []
        self._listening: list[Event] = []
        try:
            for number in range(SEEDERS):
                node, listening = seed(
                    folder / f"seed-{number}", path, log=folder / f"seed-{number}.log"
                )
                self.nodes.append(node)
                self._listening.append(listening)
            cids = [node.wait_for("shared", 600)["cid"] for node in self.nodes]
        # Ctrl-C, too, must leave no process behind; it goes on outwards.
        except BaseException:
            self.close()
            raise
        self.cid: str = cids[0]
        self.bad_id: str = self._listening[-1]["peer_id"]

    @property
    def addresses(self) -> list[str]:
        """One address of each; the last is the one that goes bad."""
        return [str(listening["addrs"][0]) for listening in self._listening]

    def close(self) -> None:
        """End them."""
        for node in self.nodes:
            node.finish(stop=True)


@contextmanager
def slow_line(address: str, rate: float) -> Iterator[str]:
    """Put a slow line in front of an address; yield the new one."""
    port = address.split("/")[4]
    relay = Relay(int(port), rate)
    try:
        yield address.replace(f"/tcp/{port}/", f"/tcp/{relay.port}/")
    finally:
        relay.close()


def fetch(folder: Path, seeders: Seeders, size: int, case: str | None) -> Fetched:
    """Fetch the file once; `case` says how the last seeder behaves (None: well)."""
    target, home = folder / "fetched", folder / "get"
    warm_pages(folder / "scratch", size)
    bad = seeders.nodes[-1].process
    with ExitStack() as stack:
        addresses = seeders.addresses
        if case == "slow":
            addresses[-1] = stack.enter_context(slow_line(addresses[-1], SLOW_RATE))
        peers = [argument for address in addresses for argument in ("--peer", address)]
        arguments = ["-o", str(target), "--listen", "/ip4/127.0.0.1/tcp/0", *peers]
        getter = Shoal(home, "get", seeders.cid, *arguments, log=folder / "get.log")
        node = stack.enter_context(getter)
        stack.callback(bad.send_signal, signal.SIGCONT)
        complete: Event | None = None
        began = moved_at = time.perf_counter()
        done, pause = -1, 0.0
        for event in node.events(600):
            now = time.perf_counter()
            if event["event"] == "error":
                raise ShoalFailed(event["message"])
            if event["event"] == "progress" and event["done_bytes"] > done:
                if done < 0:
                    began = now
                elif done:
                    pause = max(pause, now - moved_at)
                done, moved_at = event["done_bytes"], now
                if case == "stopped" and done >= STOP_AT * size:
                    bad.send_signal(signal.SIGSTOP)
            elif event["event"] == "complete":
                complete, ended = event, now
        if complete is None:
            raise ShoalFailed("the fetch ended without the file")
        if target.stat().st_size != size:
            raise ShoalFailed("the fetched file has another size")
    target.unlink()
    shutil.rmtree(home)
    sources = {source["peer_id"]: source["bytes"] for source in complete["sources"]}
    from_bad = int(sources.get(seeders.bad_id, 0))
    return Fetched(ended - began, complete["wasted_bytes"], from_bad, pause)


def measure(folder: Path, path: Path, case: str, repeat: int, out: bool) -> Result:
    """Fetch in alternation with four good seeders, and with one of them bad."""
    size = path.stat().st_size
    fetched: dict[str | None, list[Fetched]] = {None: [], case: []}
    for number in range(repeat + 1):
        # Fresh ones each round: a stopped node wakes to dead connections and a late clock.
        seeders = Seeders(folder, path)
        try:
            orders: tuple[str | None, ...] = (None, case) if number % 2 else (case, None)
            for way in orders:
                one = fetch(folder, seeders, size, way)
                label = f"{'warm-up' if number == 0 else f'round {number}'}, {way or 'all good'}"
                if out:
                    print(
                        f"{label:>20}: {one.seconds:6.2f} s  {size / one.seconds / 1e6:5.0f} MB/s"
                        f"   longest pause {one.longest_pause:.2f} s, "
                        f"from the bad one {one.from_bad >> 20} MiB, "
                        f"wasted {one.wasted_bytes >> 20} MiB",
                        flush=True,
                    )
                if number:
                    fetched[way].append(one)
        finally:
            seeders.close()
            for home in folder.glob("*/"):
                shutil.rmtree(home)
    return Result(case, fetched[None], fetched[case])


def report(result: Result) -> str:
    """Return a line for people."""
    good, bad = result.seconds
    return (
        f"{result.case:>20}: medians {good:.2f} s without, {bad:.2f} s with it: "
        f"{bad - good:+.2f} s, {bad / good - 1:+.1%} ({GOALS[result.case]})"
    )


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=2048, help="MiB to move (default 2048)")
    parser.add_argument("--repeat", type=int, default=3, help="counted rounds after one to warm up")
    parser.add_argument("--case", choices=CASES, help="only this one")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    options = parser.parse_args()
    size = options.size << 20
    with tempfile.TemporaryDirectory(prefix="shoal-stalls-", dir=options.folder) as name:
        folder = Path(name)
        if (room := shutil.disk_usage(folder).free) < 2.2 * size:
            print(
                f"{2.2 * size / 1e9:.1f} GB are needed in {folder.parent}, where {room / 1e9:.1f} "
                "GB are free: choose another place with --folder, or a smaller --size",
                file=sys.stderr,
            )
            return 5
        path = folder / "random.bin"
        write_random(path, size)
        results = [
            measure(folder, path, case, options.repeat, not options.json)
            for case in CASES
            if options.case in (None, case)
        ]
    if options.json:
        print(
            json.dumps(
                {
                    result.case: {
                        "bytes": size,
                        "seconds_good": result.seconds[0],
                        "seconds_bad": result.seconds[1],
                        "good": [asdict(one) for one in result.good],
                        "bad": [asdict(one) for one in result.bad],
                    }
                    for result in results
                }
            )
        )
    else:
        for result in results:
            print(report(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
