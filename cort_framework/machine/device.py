"""What this machine computes on, as far as it can be had without torch: GPUs by ``nvidia-smi``, else memory under the
limits that its control groups set."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from cort_framework.machine.footprint import Device


def find_device() -> Device:
    """The first visible GPU, else the machine's own memory."""
    return _gpu() or memory()


def _gpu() -> Device | None:
    command = ["nvidia-smi", "--query-gpu=name,memory.total,uuid", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    return choose_gpu(rows, os.environ.get("CUDA_VISIBLE_DEVICES"))


def choose_gpu(rows: list[list[str]], visible: str | None) -> Device | None:
    """The smallest of the GPUs that torch will see; ``rows`` are name, MiB and uuid."""
    if visible is not None:
        wanted = [v.strip() for v in visible.split(",") if v.strip()]
        rows = [
            row for i, row in enumerate(rows) if any(v == str(i) or (row[2].startswith(v)) for v in wanted)
        ]
    sized = [(int(size) << 20, name) for name, size, _ in rows if size.isdigit()]
    if not sized:
        return None
    size, name = min(sized)
    return Device(name, size, gpu=True, count=len(sized))


def memory() -> Device:
    """The machine's, or what its control groups leave of it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = control_group_limit()
    if limit is not None and limit < total:
        return Device("the memory that the control group allows", limit)
    return Device("the memory of this machine", total)


# --- limits of control groups -----------------------------------------------------------------------------------
MEMBERSHIP, ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def control_group_limit(membership: Path = MEMBERSHIP, root: Path = ROOT) -> int | None:
    """Bytes that this process's control groups allow it, version 1 or 2; ``None`` where they set no limit."""
    files = ("memory.max", "memory.limit_in_bytes")
    texts = (_read(group, files) for group in _groups("memory", membership, root))
    return min((int(text) for text in texts if text.isdigit()), default=None)


def processors(membership: Path = MEMBERSHIP, root: Path = ROOT) -> float:
    """How many may work for this process at once: those that it may run on, or the time that its control groups allow it
    on them, which need not be a whole number."""
    allowed = [
        float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    ]
    for group in _groups("cpu", membership, root):
        quota, _, period = _read(group, ("cpu.max",)).partition(" ")
        quota, period = (
            quota or _read(group, ("cpu.cfs_quota_us",)),
            period or _read(group, ("cpu.cfs_period_us",)),
        )
        if quota.isdigit() and period.isdigit():
            allowed.append(int(quota) / int(period))
    return min(allowed)


def processes_left(membership: Path = MEMBERSHIP, root: Path = ROOT) -> int | None:
    """Processes and threads that its control groups let this process add; ``None`` where they set no limit."""
    left = []
    for group in _groups("pids", membership, root):
        limit, now = _read(group, ("pids.max",)), _read(group, ("pids.current",))
        if limit.isdigit() and now.isdigit():
            left.append(int(limit) - int(now))
    return min(left, default=None)


def _groups(controller: str, membership: Path, root: Path) -> Iterator[Path]:
    """The folders of this process's groups and of all above them: each limits it."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            folder = root
        elif controller in controllers.split(","):
            folder = root / controller
        else:
            continue
        parts = Path(group.lstrip("/")).parts  # in a container the path may be that of the host
        yield from (folder.joinpath(*parts[:depth]) for depth in range(len(parts) + 1))


def _read(group: Path, names: Sequence[str]) -> str:
    """What the first of these files says that is there; empty where none is."""
    for name in names:
        with suppress(OSError):
            return (group / name).read_text(encoding="utf-8").strip()
    return ""
