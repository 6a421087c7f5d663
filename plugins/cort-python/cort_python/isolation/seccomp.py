"""A system-call filter: what no cell of a calculation needs, and what would get around the other layers, fails with
EPERM. Linux on x86-64 and ARM64.

A list of refusals, not of permissions: numerical libraries call what they like, and go on working. Scheduling is not
in it, since they bind and rank their own threads, by number.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from typing import NamedTuple

from cort_python.limits import checked, libc

_TABLES: dict[str, tuple[int, int, str]] = {
    "x86_64": (
        0xC000003E,
        317,
        "ptrace 101 process_vm_readv 310 process_vm_writev 311 kcmp 312 pidfd_getfd 438 process_madvise 440"
        " move_pages 279 migrate_pages 256 perf_event_open 298 bpf 321 userfaultfd 323"
        " io_uring_setup 425 io_uring_enter 426 io_uring_register 427"
        " mount 165 umount2 166 pivot_root 155 chroot 161 open_tree 428 move_mount 429 fsopen 430 fsconfig 431"
        " fsmount 432 fspick 433 mount_setattr 442 unshare 272 setns 308 quotactl 179 quotactl_fd 443"
        " swapon 167 swapoff 168 reboot 169 sethostname 170 setdomainname 171 acct 163 vhangup 153"
        " settimeofday 164 clock_settime 227 clock_adjtime 305 adjtimex 159 iopl 172 ioperm 173 modify_ldt 154"
        " init_module 175 delete_module 176 finit_module 313 kexec_load 246 kexec_file_load 320 syslog 103"
        " add_key 248 request_key 249 keyctl 250 open_by_handle_at 304 fanotify_init 300 uselib 134"
        " memfd_create 319 memfd_secret 447 shmget 29 shmat 30 semget 64 msgget 68 mq_open 240"
        " socket 41 connect 42 bind 49 listen 50 socketpair 53 sendto 44 clone 56 clone3 435"
        " prctl 157 prlimit64 302 setpriority 141 ioprio_set 251"
        " execve 59 execveat 322 fork 57 vfork 58"
        " kill 62 tkill 200 tgkill 234 rt_sigqueueinfo 129 rt_tgsigqueueinfo 297 pidfd_send_signal 424",
    ),
    "aarch64": (
        0xC00000B7,
        277,
        "ptrace 117 process_vm_readv 270 process_vm_writev 271 kcmp 272 pidfd_getfd 438 process_madvise 440"
        " move_pages 239 migrate_pages 238 perf_event_open 241 bpf 280 userfaultfd 282"
        " io_uring_setup 425 io_uring_enter 426 io_uring_register 427"
        " mount 40 umount2 39 pivot_root 41 chroot 51 open_tree 428 move_mount 429 fsopen 430 fsconfig 431"
        " fsmount 432 fspick 433 mount_setattr 442 unshare 97 setns 268 quotactl 60 quotactl_fd 443"
        " swapon 224 swapoff 225 reboot 142 sethostname 161 setdomainname 162 acct 89 vhangup 58"
        " settimeofday 170 clock_settime 112 clock_adjtime 266 adjtimex 171"
        " init_module 105 delete_module 106 finit_module 273 kexec_load 104 kexec_file_load 294 syslog 116"
        " add_key 217 request_key 218 keyctl 219 open_by_handle_at 265 fanotify_init 262"
        " memfd_create 279 memfd_secret 447 shmget 194 shmat 196 semget 190 msgget 186 mq_open 180"
        " socket 198 connect 203 bind 200 listen 201 socketpair 199 sendto 206 clone 220 clone3 435"
        " prctl 167 prlimit64 261 setpriority 140 ioprio_set 30"
        " execve 221 execveat 281"
        " kill 129 tkill 130 tgkill 131 rt_sigqueueinfo 138 rt_tgsigqueueinfo 240 pidfd_send_signal 424",
    ),
}
"""Machine type: audit code, number of ``seccomp`` itself, numbers of the system calls below."""

_NEW_NAMESPACES = 0x7E020080
"""The CLONE_NEW… flags."""
_THREAD = 0x00010000
"""The flag that makes a clone a thread."""


class Where(NamedTuple):
    """Refuse only where this argument has one of the ``bits``, or is ``value``; without either, where it is not 0."""

    argument: int
    bits: int = 0
    value: int | None = None


_CONDITIONS: dict[str, Where] = {
    "clone": Where(0, bits=_NEW_NAMESPACES),
    "prlimit64": Where(0),  # 0: the caller itself
    "prctl": Where(0, value=1),  # the signal at its parent's death, with which it has to end
    "socketpair": Where(1, bits=2),  # of datagrams: one end could write to any other socket; streams cannot
    "sendto": Where(4),  # with an address; ZMQ's own sockets are connected
}
_SIGNALS = ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal")

_PROGRAMS = ("execve", "execveat", "fork", "vfork")

Instruction = tuple[int, int, int, int]
"""Operation, instructions to jump over where it holds, and where it does not, operand."""

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_KILL = 0x80000000
_allow: Instruction = (_RETURN, 0, 0, 0x7FFF0000)
_refuse: Instruction = (_RETURN, 0, 0, 0x00050000 | errno.EPERM)
_absent: Instruction = (_RETURN, 0, 0, 0x00050000 | errno.ENOSYS)


def _load(argument: int, offset: int = 0) -> Instruction:
    """Its lower half; the upper one with an offset of 4. Both machine types are little-endian."""
    return (_LOAD, 0, 0, 16 + 8 * argument + offset)


def missing() -> str:
    """Why there is no filter on this machine; empty where there is one."""
    if platform.machine() not in _TABLES:
        return f"there is no table of system calls for {platform.machine()}"
    if libc().prctl(21, 0, 0, 0, 0) < 0:  # PR_GET_SECCOMP
        return "this kernel has no seccomp"
    return ""


def program(*, alone: bool = False, signals_to: int | None = None) -> bytes:
    """The filter, assembled. ``alone``: only threads may be started, and nothing executed. ``signals_to``: the one
    process that may be signalled, where nothing else keeps signals from strangers; ``None`` leaves signals alone."""
    audit, _, table = _TABLES[platform.machine()]
    words = table.split()
    code: list[Instruction] = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
    ]
    if platform.machine() == "x86_64":
        code += [(_AT_LEAST, 0, 1, 0x40000000), _refuse]  # the x32 calls have other numbers
    for name, number in zip(words[::2], map(int, words[1::2]), strict=True):
        if (name in _PROGRAMS and not alone) or (name in _SIGNALS and signals_to is None):
            continue
        where = _CONDITIONS.get(name)
        if name == "clone3":  # its flags are out of a filter's sight: the C library then falls back to clone
            verdict = [_absent]
        elif name == "clone" and alone:
            verdict = [_load(0), (_ANY_BIT, 1, 0, _THREAD), _refuse, _allow]
        elif name in _SIGNALS:
            verdict = [_load(0), (_EQUAL, 1, 0, signals_to or 0), _refuse, _allow]
        elif where is None:
            verdict = [_refuse]
        elif where.value is not None:
            verdict = [_load(where.argument), (_EQUAL, 0, 1, where.value), _refuse, _allow]
        elif where.bits:
            verdict = [_load(where.argument), (_ANY_BIT, 0, 1, where.bits), _refuse, _allow]
        else:
            verdict = [_load(where.argument), (_EQUAL, 0, 2, 0), _load(where.argument, 4), (_EQUAL, 1, 0, 0)]
            verdict += [_refuse, _allow]
        code += [(_EQUAL, 0, len(verdict), number), *verdict]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in [*code, _allow])


class Filter:
    """An assembled program, ready to be installed by a child without another copy of it."""

    def __init__(self, program: bytes) -> None:
        self._instructions = ctypes.create_string_buffer(program, len(program))
        self._header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(self._instructions))
        self._number = _TABLES[platform.machine()][1]

    def install(self) -> None:
        """Put it before every thread of this process and all that they start. After ``no_new_privileges``. Raises
        ``OSError``."""
        for_all_threads = 1
        refused = checked(libc().syscall(self._number, 1, for_all_threads, self._header), "seccomp")
        if refused:
            raise OSError(errno.ESRCH, f"seccomp: thread {refused} does not take the filter")
