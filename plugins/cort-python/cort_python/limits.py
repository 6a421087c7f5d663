"""What the processes of this plugin do to themselves, so that none outlives its owner or takes too much."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl failed")


def die_with_parent(number: int) -> None:
    """Get this signal when the thread that started this process ends. Linux."""
    _prctl(PR_SET_PDEATHSIG, number)


def become_subreaper() -> None:
    """Become the parent of what children leave behind when they end. Linux."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def limit_memory(megabytes: int | None) -> None:
    """Let this process take that much address space beyond what it has, and leave no core files. Linux."""
    if not sys.platform.startswith("linux"):
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if megabytes is not None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = used + megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
