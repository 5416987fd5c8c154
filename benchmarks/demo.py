"""The whole of shoal in one scene, with real processes on this machine.

Three nodes share one file. A fourth knows one bootstrap address and the file's content hash: it
finds the three through the DHT and pulls pieces from all of them at once, encrypted and verified.

    python benchmarks/demo.py [--size MIB]
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import tempfile
import time
from pathlib import Path

from processes import Event, Shoal, ShoalFailed, seed, shares, write_random
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

SEEDERS = 3
NAMES = ("alice", "bob", "carol")
LEAST_SHARE = 0.15
MOST_WASTE = 0.05


def picture(event: Event, names: dict[str, str]) -> Group:
    """Draw a progress event: the whole, and what came from whom."""
    done, total = event["done_bytes"], event["total_bytes"] or 1
    head = Text.assemble(
        ("dave ", "bold"),
        f"{done / 1e6:7.0f} of {total / 1e6:.0f} MB",
        f"   {(event['rate'] or 0) / 1e6:5.0f} MB/s",
        no_wrap=True,
        overflow="ellipsis",
    )
    waiting = Text(event["waiting"] or "", style="dim", no_wrap=True, overflow="ellipsis")
    table = Table.grid(padding=(0, 2))
    parts = dict(shares(event.get("sources") or []))
    for peer_id, name in names.items():
        share = parts.get(peer_id, 0.0)
        table.add_row(
            f"  from {name}", ProgressBar(total=1.0, completed=share, width=36), f"{share:4.0%}"
        )
    return Group(head, ProgressBar(total=total, completed=done, width=60), table, waiting)


def sha256_of(path: Path) -> str:
    """Return the file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def scene(folder: Path, size: int, console: Console) -> bool:
    """Play it; return whether everything held."""
    original = folder / "film.bin"
    console.print(f"making a file of {size >> 20} MiB of random bytes")
    write_random(original, size)

    nodes: list[Shoal] = []
    try:
        names: dict[str, str] = {}
        bootstrap: list[str] = []
        for name in NAMES:
            node, listening = seed(folder / name, original, *bootstrap, log=folder / f"{name}.log")
            nodes.append(node)
            names[listening["peer_id"]] = name
            bootstrap = bootstrap or ["--bootstrap", listening["addrs"][0]]
            console.print(f"{name:>6} listens at {listening['addrs'][0]}", soft_wrap=True)
        cids = set()
        for name, node in zip(NAMES, nodes, strict=True):
            shared = node.wait_for("shared", 600)
            cids.add(shared["cid"])
            console.print(f"{name:>6} hashed {shared['size'] >> 20} MiB: {shared['seconds']:.1f} s")
        for node in nodes:
            node.wait_for("announced", 60)
        (cid,) = cids
        console.print(f"\ndave knows this address: {bootstrap[1]}", soft_wrap=True)
        console.print(f"       and this hash:     {cid}\n")

        target = folder / "dave-film.bin"
        listen = ("--listen", "/ip4/127.0.0.1/tcp/0")
        started = time.monotonic()
        dave = Shoal(
            folder / "dave", "get", cid, "-o", str(target), *listen, *bootstrap,
            log=folder / "dave.log",
        )  # fmt: skip
        nodes.append(dave)
        complete: Event | None = None
        with Live(console=console, refresh_per_second=8) as live:
            for event in dave.events(60):
                match event["event"]:
                    case "progress":
                        live.update(picture(event, names))
                    case "complete":
                        complete = event
                    case "error":
                        raise ShoalFailed(event["message"])
        if complete is None:
            raise ShoalFailed("dave ended without the file")
        seconds = time.monotonic() - started
        dave.finish()

        console.print(
            f"\ncomplete after {complete['seconds']:.2f} s ({seconds:.2f} s with the process "
            f"itself): {size / complete['seconds'] / 1e6:.0f} MB/s, encrypted, verified, on disk"
        )
        parts = shares(complete["sources"])
        for peer_id, share in parts:
            console.print(f"  {share:4.0%} from {names.get(peer_id, peer_id)}")
        waste = complete["wasted_bytes"] / size
        console.print(f"  {waste:.1%} fetched twice")
        console.print("comparing the SHA-256 of both files … ", end="")
        same = sha256_of(original) == sha256_of(target)
        console.print("the same" if same else "[red]DIFFERENT")
        fair = len(parts) == SEEDERS and all(share >= LEAST_SHARE for _, share in parts)
        if not fair:
            console.print(f"[red]not every source gave at least {LEAST_SHARE:.0%}")
        if waste >= MOST_WASTE:
            console.print(f"[red]over {MOST_WASTE:.0%} was fetched twice")
        return same and fair and waste < MOST_WASTE
    finally:
        for node in nodes:
            node.finish(stop=True)


def main() -> int:
    """Run the demo in a temporary folder and clean up."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=1024, help="MiB of random bytes (1024)")
    options = parser.parse_args()
    size = options.size << 20
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="shoal-demo-") as name:
        folder = Path(name)
        room = shutil.disk_usage(folder).free
        if room < 2.2 * size:
            console.print(
                f"the demo needs {2.2 * size / 1e9:.1f} GB in {folder.parent}, where "
                f"{room / 1e9:.1f} GB are free: choose another place with TMPDIR=…"
            )
            return 5
        try:
            return 0 if scene(folder, size, console) else 1
        except ShoalFailed as error:
            console.print(f"[red]the demo failed: {error}")
            for log in sorted(folder.glob("*.log")):
                text = log.read_text(errors="replace").strip()
                if text:
                    console.print(f"--- {log.stem}\n{text[-2000:]}", markup=False)
            return 1


if __name__ == "__main__":
    sys.exit(main())
