"""`python -m shoal.simulations.validation [NUMBER…] [--quick] [--json]`: run, print, judge.

With `--write TEXT FILE…` nothing is run: the lines that `--json` printed into the files become the
table between the marks of a text.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from .experiment import Finding, table
from .registry import validate

MARKS: Final = ("<!-- validation -->\n", "<!-- /validation -->\n")
"""What the table stands between in a text."""


def write(text: Path, files: list[str]) -> None:
    """Put a table of findings into a text."""
    lines = [line for name in files for line in Path(name).read_text("utf-8").splitlines()]
    found = "\n".join(table(json.loads(line) for line in lines))
    before, _, rest = text.read_text("utf-8").partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    text.write_text(f"{before}{MARKS[0]}{found}\n{MARKS[1]}{after}", "utf-8")


def main(words: list[str]) -> int:
    """Run the experiments that are named (all unless any is); 1 if one misses its band."""
    if "--write" in words:
        text, *files = words[words.index("--write") + 1 :]
        write(Path(text), files)
        return 0
    numbers = {int(word) for word in words if word.isdecimal()}

    def say(finding: Finding) -> None:
        print(json.dumps(finding.facts()) if "--json" in words else finding.line(), flush=True)

    findings = validate(numbers, quick="--quick" in words, say=say)
    return 0 if all(finding.passes for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
