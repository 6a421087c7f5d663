"""What a full disk, or one that cannot be written, looks like from here."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cort_framework.errors import CortError, DiskError, PluginFault

NO_ROOM = 1 << 16
"""Bytes that a disk has left when it is full to whoever writes more than a line."""


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Where a disk is behind an error, it is raised as a ``DiskError`` that says so: libraries report a full disk each in
    words of their own."""
    try:
        yield
    except Exception as error:
        if (fault := _disk_fault(error, folder)) is not None:
            raise fault from error
        raise


def _disk_fault(error: Exception, folder: Path) -> DiskError | None:
    here: BaseException | None = error
    while here is not None:
        if isinstance(here, OSError):
            place = Path(str(here.filename)) if here.filename is not None else folder
            if here.errno in (errno.ENOSPC, errno.EDQUOT):
                return _full(place)
            if here.errno in (errno.EROFS, errno.EACCES, errno.EPERM) and place.is_relative_to(folder):
                return DiskError(
                    f"{place} cannot be written: {here.strerror}", "choose another folder with --run-dir"
                )
        if os.strerror(errno.ENOSPC) in str(here):  # a library of another language has been told
            return _full(folder)
        here = here.__cause__ or here.__context__
    if not isinstance(error, CortError) or isinstance(error, PluginFault):
        with suppress(OSError):
            disk = os.statvfs(folder)
            if disk.f_bavail * disk.f_frsize < NO_ROOM or (disk.f_files and not disk.f_favail):
                return _full(folder)
    return None


def _full(place: Path) -> DiskError:
    return DiskError(
        f"there is no room left on the disk of {place}",
        "make room there, or move the folder to another disk; the same command goes on from what is there",
    )
