"""What a process holds, from /proc. Linux."""

from __future__ import annotations

import gc
from pathlib import Path

MB = 2**20


def _field(pid: int | str, file: str, *names: str) -> float:
    """Megabytes."""
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.split(":")[0] in names) / 1024


def own(pid: int) -> float:
    """Megabytes that would be free if it ended (USS)."""
    return _field(pid, "smaps_rollup", "Private_Clean", "Private_Dirty")


def proportional(pid: int) -> float:
    """Megabytes, of shared ones its share (PSS)."""
    return _field(pid, "smaps_rollup", "Pss")


class Peak:
    """How far a process grows beyond what it held at first, in megabytes."""

    def __init__(self, pid: int | str = "self") -> None:
        gc.collect()
        self.pid = pid
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is now what it holds
        self.before = _field(pid, "status", "VmHWM")

    @property
    def growth(self) -> float:
        return _field(self.pid, "status", "VmHWM") - self.before
