"""Time an honest fetch alone and beside all hostile peers at its seeder, in alternation.

    python benchmarks/hostile.py [--size MIB] [--repeat N] [--each N] [--line MB]

Every kind of `misdeeds.py` has hold of the seeder before the fetch begins. Prints the rates, the
ratio of their medians (goal: at least 80 %) and the most memory that the seeder took (goal: under
150 MiB). The hostile process runs on the same cores as the other two, and does not have the work of
verifying and writing that they have: unlimited, the fetch mostly measures who gets the processor.
With `--line` the fetch takes at most so many MB a second, as if a line led to the seeder.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import hostile_peer
from misdeeds import MISDEEDS
from processes import Process, Shoal, ShoalFailed, seed, write_random
from transfer import warm_pages


def attack(folder: Path, cid: str, address: str, pieces: int, each: int) -> Process:
    """Start every kind of hostile peer; return when all have got hold of the seeder."""
    program = (hostile_peer.__file__, "all", "--cid", cid, "--pieces", str(pieces))
    arguments = ("--target", address, "--each", str(each))
    peers = Process(*program, *arguments, log=folder / "hostile.log")
    left = each * len(MISDEEDS)
    for event in peers.events(60):
        left -= event["event"] == "attached"
        if not left:
            return peers
    raise ShoalFailed("the hostile peers ended")


def run_once(folder: Path, path: Path, hostile: bool, each: int, line: int) -> tuple[float, int]:
    """Fetch once from a fresh seeder; return bytes a second and the seeder's peak memory."""
    size = path.stat().st_size
    with tempfile.TemporaryDirectory(dir=folder) as name, ExitStack() as stack:
        base = Path(name)
        seeder, listening = seed(base / "seed", path, log=base / "seed.log")
        stack.enter_context(seeder)
        cid, address = seeder.wait_for("shared", 600)["cid"], listening["addrs"][0]
        warm_pages(base / "scratch", size)
        attackers: list[Process] = []
        if hostile:
            attackers.append(attack(base, cid, address, -(-size >> 20), each))
            stack.enter_context(attackers[0])
        home = base / "get"
        home.mkdir(0o700)
        if line:
            (home / "config.toml").write_text(f'down_limit = "{line}MB"\n')
        target = ("-o", str(base / "fetched"), "--listen", "/ip4/127.0.0.1/tcp/0")
        getter = Shoal(home, "get", cid, *target, "--peer", address, log=base / "get.log")
        stack.enter_context(getter)
        getter.wait_for("progress", 60)
        began = time.perf_counter()
        used = [process.cpu_seconds() for process in (getter, seeder, *attackers)]
        getter.wait_for("complete", 600)
        seconds = time.perf_counter() - began
        shares = [
            (process.cpu_seconds() - before) / seconds
            for process, before in zip((getter, seeder, *attackers), used, strict=True)
        ]
        print("cores taken:", ", ".join(f"{share:.2f}" for share in shares), end="  ")
        return size / seconds, seeder.peak_bytes()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=1024, help="MiB to move (default 1024)")
    parser.add_argument("--repeat", type=int, default=3, help="counted rounds after one to warm up")
    parser.add_argument("--each", type=int, default=1, help="hostile peers of each kind")
    parser.add_argument("--line", type=int, default=0, help="MB/s of the fetch (default: no limit)")
    options = parser.parse_args()
    rates: dict[bool, list[float]] = {False: [], True: []}
    peaks: dict[bool, int] = {False: 0, True: 0}
    with tempfile.TemporaryDirectory(prefix="shoal-hostile-") as name:
        path = Path(name) / "random.bin"
        write_random(path, options.size << 20)
        for number in range(options.repeat + 1):
            for hostile in (False, True) if number % 2 else (True, False):
                rate, peak = run_once(Path(name), path, hostile, options.each, options.line)
                label = "beside hostile peers" if hostile else "alone"
                what = "warm-up" if number == 0 else f"round {number}"
                print(
                    f"{what:>8}, {label}: {rate / 1e6:.0f} MB/s, seeder {peak >> 20} MiB",
                    flush=True,
                )
                peaks[hostile] = max(peaks[hostile], peak)
                if number:
                    rates[hostile].append(rate)
    alone, beside = (statistics.median(rates[hostile]) for hostile in (False, True))
    print(
        f"medians: {alone / 1e6:.0f} MB/s alone, {beside / 1e6:.0f} MB/s beside hostile peers: "
        f"{beside / alone:.0%} (goal: at least 80 %); seeder's peak {peaks[True] >> 20} MiB"
    )


if __name__ == "__main__":
    main()
