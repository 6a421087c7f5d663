"""What the processes of this plugin do to themselves, so that none outlives its owner or takes too much."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    import resource

_SET_PDEATHSIG, _SET_KEEPCAPS, _SET_SECUREBITS, _SET_CHILD_SUBREAPER = 1, 8, 28, 36
_SET_NO_NEW_PRIVS, _CAP_AMBIENT, _AMBIENT_RAISE = 38, 47, 2
_CAPABILITIES_VERSION = 0x20080522

DAC_READ_SEARCH = 2
"""The capability to read every file and pass through every folder."""


@cache
def libc() -> Any:
    """The C library of this process."""
    return ctypes.CDLL(None, use_errno=True)


def look_up() -> None:
    """Find the functions that confinement calls."""
    for name in ("prctl", "capset", "syscall", "unshare", "mount"):
        getattr(libc(), name)


def checked(result: int, what: str) -> int:
    """The result of a call of the C library. Raises ``OSError`` where it is negative."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _prctl(option: int, value: int, second: int = 0) -> None:
    if sys.platform == "linux":
        checked(libc().prctl(option, value, second, 0, 0), "prctl")


def die_with_parent(number: int) -> None:
    """Get this signal when the thread that started this process ends. A change of user clears it. Linux."""
    _prctl(_SET_PDEATHSIG, number)


def become_subreaper() -> None:
    """Become the parent of what children leave behind when they end. Linux."""
    _prctl(_SET_CHILD_SUBREAPER, 1)


def no_new_privileges() -> None:
    """From here on, no program that is executed gets rights that this process has not. Linux."""
    _prctl(_SET_NO_NEW_PRIVS, 1)


def become_user(number: int) -> None:
    """Root: become the user and group of that number for good. Capabilities last until ``keep_capabilities``.
    Raises ``OSError``."""
    _prctl(_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(number, number, number)
    os.setresuid(number, number, number)


def keep_capabilities(*kept: int) -> None:
    """Give up every capability but these, for good: what this process executes has no others either. Linux."""
    mask = sum(1 << number for number in kept)
    if os.geteuid() == 0 and not kept:
        with suppress(OSError):  # without the right to do so there is nothing to lose: see no_new_privileges
            _prctl(_SET_SECUREBITS, 0b11)  # user 0 is one like any other
    header = struct.pack("Ii", _CAPABILITIES_VERSION, 0)
    sets = struct.pack("6I", mask, mask, mask, 0, 0, 0)
    checked(libc().capset(header, sets), "capset")
    for number in kept:
        _prctl(_CAP_AMBIENT, _AMBIENT_RAISE, number)


def limit_memory(megabytes: int | None) -> None:
    """Let this process take that much address space beyond what it has, and leave no core files. Linux."""
    if not sys.platform.startswith("linux"):
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if megabytes is not None:
        pages = os.open("/proc/self/statm", os.O_RDONLY)
        used = int(os.read(pages, 100).split()[0]) * resource.getpagesize()
        os.close(pages)
        limit = used + megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def limit_resources(cpu_s: int | None, file_mb: int | None, open_files: int | None) -> None:
    """Processor seconds (SIGXCPU, a second later SIGKILL), size of a file, open files. ``None`` changes nothing."""
    _limit("CPU", cpu_s, None if cpu_s is None else cpu_s + 1)
    _limit("FSIZE", None if file_mb is None else file_mb * 2**20)
    _limit("NOFILE", open_files)
    _limit("MSGQUEUE", 0)
    _limit("MEMLOCK", 2**20)
    _limit("CORE", 0)


def limit_processes(number: int | None, *, of_this_session: bool) -> None:
    """Processes and threads. Linux counts those of a user: where that is not ``of_this_session`` alone, there is room
    for the user's others, too, and so the limit only ends what grows without bound."""
    if number is not None:
        _limit("NPROC", number if of_this_session else number + 4096)


def _limit(name: str, soft: int | None, hard: int | None = None) -> None:
    """Never beyond what this process was given."""
    if soft is None:
        return
    number = getattr(resource, f"RLIMIT_{name}")
    most = resource.getrlimit(number)[1]
    wanted = soft if hard is None else hard
    ceiling = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.setrlimit(number, (min(soft, ceiling), ceiling))


def enter_user_namespace() -> None:
    """Into a user name space of this process's own, in which its user is what it was: there, processes are counted
    from none. Raises ``OSError`` where the system does not let us."""
    user, group = os.geteuid(), os.getegid()
    checked(libc().unshare(0x10000000), "unshare")
    map_own_user(user, group)


def map_own_user(user: int, group: int) -> None:
    """In a new user name space: be who we were."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        Path(f"/proc/self/{name}").write_text(text)


def be_first_to_go() -> None:
    """Where the machine runs out of memory, let this process and what it forks end before its owner. Linux."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
