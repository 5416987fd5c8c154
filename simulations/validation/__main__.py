"""`python -m shoal.simulations.validation [NUMBER…] [--quick] [--json]`: run, print, judge."""

from __future__ import annotations

import json
import sys

from .experiment import Finding, table
from .registry import validate


def main(words: list[str]) -> int:
    """Run the experiments that are named (all unless any is); 1 if one misses its band."""
    numbers = {int(word) for word in words if word.isdecimal()}

    def say(finding: Finding) -> None:
        print(json.dumps(finding.facts()) if "--json" in words else finding.line(), flush=True)

    findings = validate(numbers, quick="--quick" in words, say=say)
    if "--table" in words:
        print("\n".join(table(findings)))
    return 0 if all(finding.passes for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
