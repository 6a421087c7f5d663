"""Temporary folders that outlive no run for long: what a killed process has left is removed when the next one starts."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

OWNER = ".owner"
"""In each folder, locked as long as the process lives that made it, however that ends."""

_held: dict[Path, int] = {}
"""The descriptors of this process's own locks."""


def new_scratch(prefix: str = "cort-", parent: str | None = None) -> Path:
    """A folder for this process alone, in ``parent`` or where temporary files are. Others of the same prefix whose process
    is gone are removed first."""
    parent = parent or tempfile.gettempdir()
    for owner in Path(parent).glob(f"{prefix}*/{OWNER}"):
        if (lock := _lock(owner)) is not None:
            shutil.rmtree(owner.parent, ignore_errors=True)
            os.close(lock)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    unlocked = folder / f"{OWNER}.new"  # under its own name it would look like one whose process is gone
    unlocked.touch()
    if (lock := _lock(unlocked)) is not None:
        _held[folder] = lock
        unlocked.rename(folder / OWNER)
    return folder


def remove_scratch(folder: Path) -> None:
    """At the end, with all that is in it."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder in _held:
        os.close(_held.pop(folder))


def _lock(file: Path) -> int | None:
    """A descriptor that holds the file's lock; ``None`` where another process does, or where it cannot be had."""
    try:
        descriptor = os.open(file, os.O_RDWR)
    except OSError:  # another user's, or just removed
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
