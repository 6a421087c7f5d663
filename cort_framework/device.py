"""What this machine computes on, as far as it can be had without torch: GPUs by ``nvidia-smi``, else memory under the
limits that its control groups set."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from cort_framework.footprint import Device


def find_device() -> Device:
    """The first visible GPU, else the machine's own memory."""
    return _gpu() or _memory()


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


def _memory() -> Device:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = control_group_limit()
    if limit is not None and limit < total:
        return Device("the memory that the control group allows", limit)
    return Device("the memory of this machine", total)


def control_group_limit(
    membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Bytes that this process's control groups allow it, version 1 or 2; ``None`` where they set no limit."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    limits = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            folder, file = root, "memory.max"
        elif "memory" in controllers.split(","):
            folder, file = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        # every group above it limits it, too; in a container the path may be that of the host
        parts = Path(group.lstrip("/")).parts
        for depth in range(len(parts) + 1):
            try:
                text = (folder.joinpath(*parts[:depth]) / file).read_text(encoding="utf-8").strip()
            except OSError:
                continue
            if text.isdigit():
                limits.append(int(text))
    return min(limits, default=None)
