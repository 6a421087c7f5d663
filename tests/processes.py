"""Which processes there are below one, read off /proc, zombies too."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def children(pid: int) -> dict[int, str]:
    """Their ids and command lines."""
    parents, commands = _all()
    return {child: commands[child] for child, parent in parents.items() if parent == pid}


def descendants(pid: int) -> dict[int, str]:
    """The same, with what is below them."""
    parents, commands = _all()
    found: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        above = waiting.pop()
        below = {child: commands[child] for child, parent in parents.items() if parent == above}
        found |= below
        waiting += below
    return found


def _all() -> tuple[dict[int, int], dict[int, str]]:
    parents, commands = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):  # it may end while it is looked at
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                commands[int(entry.name)] = command
    return parents, commands
