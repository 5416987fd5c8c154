"""Run the matrix of NATs and print it.

    python benchmarks/natlab [--pair GETTER:SHARER]… [--folder FOLDER] [--write docs/nat.md]

Needs Linux, root, iproute2, nftables and miniupnpd.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parent.parent))

from natlab.lab import a_lab, missing
from natlab.matrix import all_pairs, run_all, table, theory_table, write_table
from natlab.theory import KINDS


def main() -> int:
    """Run it."""
    words = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    words.add_argument("--theory", action="store_true", help="only print what theory says")
    words.add_argument("--pair", action="append", default=[], help="letters, as c:d; else all")
    words.add_argument("--folder", type=Path, help="where to work, and to keep the logs")
    words.add_argument("--write", type=Path, help="a text whose matrix is to be replaced")
    asked = words.parse_args()
    if asked.theory:
        print(theory_table())
        return 0
    if why := missing():
        print(why, file=sys.stderr)
        return 1
    by_letter = {kind.letter: kind for kind in KINDS}
    pairs = [(by_letter[a], by_letter[b]) for a, _, b in (p.partition(":") for p in asked.pair)]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as made:
        folder = asked.folder or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        with a_lab(folder) as lab:
            matrix = trio.run(run_all, folder, pairs or all_pairs(), lab)
    for o in matrix.outcomes:
        mark = "ok" if o.agrees else f"NOT {o.expected}"
        print(
            f"{o.getter.letter} gets from {o.sharer.letter}: {o.began:>8} -> {o.path:8} {mark:12} "
            f"{o.seconds:5.1f} s, {o.wasted} bytes twice{'' if o.right else ' WRONG BYTES'}"
        )
    if asked.write is not None:
        write_table(asked.write, matrix.outcomes)
    print()
    print(table(matrix.outcomes))
    print(f"{time.monotonic() - began:.0f} s in all")
    return 0 if all(o.agrees for o in matrix.outcomes) else 1


sys.exit(main())
