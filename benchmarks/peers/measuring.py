"""What a transfer between processes costs: seconds, CPU of either side, peak memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Measured:
    """One transfer."""

    seconds: float
    receiver_cpu: float
    senders_cpu: float
    receiver_peak: int
    """Bytes; 0 = not known."""
    sender_peak: int
    """The largest of all senders."""


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return what running processes have used so far."""
    total = 0
    for pid in pids:
        text = Path(f"/proc/{pid}/stat").read_text()
        fields = text[text.rindex(")") :].split()
        total += int(fields[12]) + int(fields[13])
    return total / os.sysconf("SC_CLK_TCK")


def peak_bytes(pids: Iterable[int]) -> int:
    """Return the largest peak of resident memory among running processes."""
    peaks = [0]
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                peaks.append(int(line.split()[1]) * 1024)
    return max(peaks)
