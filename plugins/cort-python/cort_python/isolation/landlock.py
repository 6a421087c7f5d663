"""Landlock: what of the file system a process and its children may touch, whom they may signal. Linux 5.13 and later.

Needs no rights: a process gives its own up. See the kernel's ``userspace-api/landlock``.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from contextlib import suppress

from cort_python.limits import checked, libc

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every machine type
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL_DEVICE = 1 << 14, 1 << 15
READ = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEVICE
"""The rights that a rule for a file, not a folder, may give."""

_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1
_ABSTRACT_SOCKETS, _SIGNALS = 1 << 0, 1 << 1


def version() -> int:
    """The version of Landlock that the running kernel has; 0 where it has none, or has it switched off."""
    return max(0, int(libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)))


def gap(abi: int) -> str:
    """What this version cannot do; empty for one that can do all that we ask of it."""
    since = ((3, "cutting files short"), (4, "TCP"), (6, "signals and abstract sockets"))
    absent = ", ".join(what for first, what in since if abi < first)
    return f"it does not govern {absent}" if absent else ""


def file_rights(abi: int) -> int:
    """Every right over files that this version knows."""
    return (1 << (13 if abi < 2 else 14 if abi < 3 else 15 if abi < 5 else 16)) - 1


def restrict(readable: Iterable[str], writable: Iterable[str], *, abi: int, listens: bool) -> None:
    """From now on: read and execute only beneath ``readable``, all that and write beneath ``writable``; no TCP (but
    ``listens``: it may bind); no signal and no abstract socket beyond the processes that are started from here.

    Holds for this thread and what it starts, so call it before there are threads, after ``no_new_privileges``. Paths
    that do not exist are passed over. Raises ``OSError``.
    """
    files = file_rights(abi)
    network = (_CONNECT_TCP if listens else _CONNECT_TCP | _BIND_TCP) if abi >= 4 else 0
    scopes = _ABSTRACT_SOCKETS | _SIGNALS if abi >= 6 else 0
    attributes = struct.pack("QQQ", files, network, scopes)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    call = libc().syscall
    ruleset = checked(call(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0), "landlock")
    try:
        for paths, rights in ((readable, READ), (writable, files)):
            for path in paths:
                with suppress(FileNotFoundError, PermissionError):
                    parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
                    try:
                        folder = stat.S_ISDIR(os.fstat(parent).st_mode)
                        rule = struct.pack("=Qi", rights if folder else rights & _OF_FILES & files, parent)
                        checked(call(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0), f"landlock: {path}")
                    finally:
                        os.close(parent)
        checked(call(_RESTRICT_SELF, ruleset, 0), "landlock")
    finally:
        os.close(ruleset)
