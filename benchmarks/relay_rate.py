"""Time a transfer through an own relay beside a direct one, over loopback, in turn.

    python benchmarks/relay_rate.py [--size MIB] [--repeat N] [--fetchers N]

Prints MB/s (with several fetchers: of all together) from the first `progress` event of the first
fetch to the last `complete`, the CPU seconds per GiB of the relay and of all others, and the
relay's peak memory, as medians. The first turn of each kind warms up and is not counted.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from processes import Shoal, write_random

LOCAL = ("--listen", "/ip4/127.0.0.1/tcp/0", "--no-mdns", "--no-port-mapping")
HIDDEN = ("--no-announce", "--dht", "client")
"""For nobody to learn of another way than the one that is named."""

KINDS = ("direct", "relayed")


@dataclass(frozen=True)
class Turn:
    """One measured transfer."""

    rate: float
    """Bytes a second."""
    relay_cpu: float
    """Seconds."""
    others_cpu: float
    peak: int
    """The relay's memory so far, in bytes."""


class Bench:
    """A relay, and a seed with a place there.

    Args:
        folder: Where everything lies.
        size: Bytes of the file.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self._size = size
        path = folder / "film"
        write_random(path, size)
        self._relay = Shoal(folder / "relay", "up", "--relay", *LOCAL)
        relay = self._relay.wait_for("listening")["addrs"][0]
        own = ("share", str(path), *LOCAL, *HIDDEN, "--via", relay)
        self._seed = Shoal(folder / "seed", *own)
        listening = self._seed.wait_for("listening")
        placed, self._cid = False, ""
        for event in self._seed.events():
            self._cid = event.get("cid", self._cid)
            placed = placed or relay in " ".join(event.get("addrs", ()))
            if placed and self._cid:
                break
        there = f"{relay}/p2p-circuit/p2p/{listening['peer_id']}"
        self._ways = {"direct": listening["addrs"][0], "relayed": there}

    def turn(self, kind: str, fetchers: int) -> Turn:
        """Fetch once with each fetcher, all at the same time."""
        before = self._relay.cpu_seconds(), self._seed.cpu_seconds()
        getters = []
        for number in range(fetchers):
            target = str(self._folder / f"got-{number}")
            ask = ("get", self._cid, "-o", target, "--peer", self._ways[kind])
            getters.append(Shoal(self._folder / f"get-{number}", *ask, *LOCAL, "--dht", "client"))
        getters[0].wait_for("progress", 600)
        began = time.perf_counter()
        for getter in getters:
            getter.wait_for("complete", 600)
        rate = fetchers * self._size / (time.perf_counter() - began)
        relay_cpu = self._relay.cpu_seconds() - before[0]
        others_cpu = self._seed.cpu_seconds() - before[1]
        others_cpu += sum(getter.finish().cpu_seconds for getter in getters)
        for number in range(fetchers):
            shutil.rmtree(self._folder / f"get-{number}")
            (self._folder / f"got-{number}").unlink()
        return Turn(rate, relay_cpu, others_cpu, self._relay.peak_bytes())

    def close(self) -> None:
        """End all processes."""
        for node in self._seed, self._relay:
            node.finish(stop=True)


def main() -> None:
    """Measure in turn, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256, metavar="MIB")
    parser.add_argument("--repeat", type=int, default=5, metavar="N")
    parser.add_argument("--fetchers", type=int, default=1, metavar="N")
    given = parser.parse_args()
    size = given.size << 20
    turns: dict[str, list[Turn]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), size)
        try:
            for number in range(given.repeat + 1):
                for kind in KINDS:
                    turn = bench.turn(kind, given.fetchers)
                    print(f"{kind:8} {turn.rate / 1e6:6.0f} MB/s{' (warms up)' * (not number)}")
                    if number:
                        turns[kind].append(turn)
        finally:
            bench.close()
    gib = given.fetchers * size / (1 << 30)
    for kind, each in turns.items():
        rate = statistics.median(turn.rate for turn in each)
        relay = statistics.median(turn.relay_cpu for turn in each) / gib
        others = statistics.median(turn.others_cpu for turn in each) / gib
        print(
            f"{kind}: {rate / 1e6:.0f} MB/s; CPU s/GiB: relay {relay:.1f}, others {others:.1f}; "
            f"the relay's peak: {each[-1].peak / 1e6:.0f} MB"
        )


if __name__ == "__main__":
    main()
