"""Landlock: what of the file system a process and its children may touch, whom they may signal. Linux 5.13 and later.

Needs no rights: a process gives its own up. See the kernel's ``userspace-api/landlock``.
"""

from __future__ import annotations

import ctypes
import fcntl
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

_FIRST_DESCRIPTOR = 128
"""Of those that rules refer to. They are above all others, so that a process closes them in one call."""

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


class Ruleset:
    """What processes of one kind may do, worked out before they are forked: to open and describe fifty paths in each
    would cost it time, and copies of the template's memory.

    ``readable``: read and execute only beneath these; ``writable``: all that and write, too. Paths that do not exist are
    passed over. No TCP (but ``listens``: it may bind); no signal and no abstract socket beyond the process and what it
    starts.
    """

    def __init__(self, readable: Iterable[str], writable: Iterable[str], *, abi: int, listens: bool) -> None:
        self._rights = file_rights(abi)
        network = (_CONNECT_TCP if listens else _CONNECT_TCP | _BIND_TCP) if abi >= 4 else 0
        scopes = _ABSTRACT_SOCKETS | _SIGNALS if abi >= 6 else 0
        size = 8 if abi < 4 else 16 if abi < 6 else 24
        self._attributes = struct.pack("QQQ", self._rights, network, scopes)[:size]
        self._size = ctypes.c_size_t(size)
        self._rules: list[bytes] = []
        for paths, rights in ((readable, READ), (writable, self._rights)):
            for path in paths:
                with suppress(FileNotFoundError, PermissionError):
                    low = os.open(path, os.O_PATH | os.O_CLOEXEC)
                    high = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, _FIRST_DESCRIPTOR)
                    os.close(low)
                    self._rules.append(self._rule(high, rights))

    def restrict(self, *folders: str) -> None:
        """From now on, for this thread and what it starts: these rules, and ``folders`` writable. Call it before there
        are threads, after ``no_new_privileges``. Raises ``OSError``."""
        call = libc().syscall
        ruleset = checked(call(_CREATE_RULESET, self._attributes, self._size, 0), "landlock")
        for rule in self._rules:
            checked(call(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0), "landlock")
        for folder in folders:
            parent = os.open(folder, os.O_PATH)
            checked(call(_ADD_RULE, ruleset, _PATH_BENEATH, self._rule(parent, self._rights), 0), folder)
            os.close(parent)
        checked(call(_RESTRICT_SELF, ruleset, 0), "landlock")
        os.close(ruleset)
        os.closerange(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + len(self._rules))

    def _rule(self, parent: int, rights: int) -> bytes:
        folder = stat.S_ISDIR(os.fstat(parent).st_mode)
        return struct.pack("=Qi", rights if folder else rights & _OF_FILES & self._rights, parent)
