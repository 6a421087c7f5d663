"""What a confined process may take and touch, and the layers that see to it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

Layer = Literal["rlimits", "privileges", "landlock", "seccomp", "namespaces", "cgroups"]

LAYERS: tuple[Layer, ...] = get_args(Layer)

WHAT: dict[Layer, str] = {
    "rlimits": "memory, processor time, processes, open files and the size of a file are limited",
    "privileges": "root becomes a user of its own; no capabilities; executing a program gives no rights",
    "landlock": "writing elsewhere, reading what is private, TCP, signals to strangers are refused",
    "seccomp": "sockets, tracing, mounts, namespaces, shared memory and the like are refused",
    "namespaces": "all sessions are where there is no network and file systems are read-only",
    "cgroups": "memory and processes of all sessions together are limited",
}
"""What each layer is for."""

REMEDY: dict[Layer, str] = {
    "rlimits": "this needs Linux",
    "privileges": "this needs Linux; in a container, CAP_SETUID and CAP_SETGID",
    "landlock": "this needs Linux 5.13 or later with landlock among the security modules (boot option lsm=)",
    "seccomp": "this needs Linux with seccomp filters, on x86-64 or ARM64",
    "namespaces": "install bubblewrap, or let users make name spaces (sysctl user.max_user_namespaces,"
    " kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)",
    "cgroups": "start it with `systemd-run --user --scope -p Delegate=yes`, or as root",
}
"""What brings a missing layer."""


@dataclass(frozen=True)
class State:
    """Of one layer on this machine."""

    in_force: bool
    detail: str
    """What it does, or why it is not there."""
    gap: str = ""
    """What it does not do here although it is in force."""

    @property
    def whole(self) -> bool:
        return self.in_force and not self.gap

    def __str__(self) -> str:
        return "; but ".join(filter(None, (self.detail, self.gap)))


@dataclass(frozen=True)
class Limits:
    """Of one process and what it starts. ``None``: no limit."""

    memory_mb: int | None = 2048
    """Address space of a process, beyond what it starts with."""
    cpu_s: int | None = 600
    """Processor seconds of a process in its whole life; then SIGXCPU."""
    processes: int | None = 64
    """Processes and threads, together."""
    file_mb: int | None = 256
    """Size of one file."""
    open_files: int | None = 256
    scratch_mb: int | None = 512
    """All files of a session together, which are then in memory; where there are name spaces."""
    alone: bool = False
    """It starts no process and executes no program."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Policy:
    """Of a template and all that is forked from it."""

    readable: tuple[str, ...] = ()
    """Paths that may be read, besides the system's programs and libraries and Python's own."""
    without: tuple[Layer, ...] = ()
    """Layers to leave out."""
    foreign: bool = False
    """For kernels that another Jupyter client starts: they may listen on TCP and work in a folder of the client's
    choice, so they keep their user and the machine's network name space."""
    total_memory_mb: int | None = None
    """Of all processes together, where there are cgroups; never more than nine tenths of the machine's."""
    total_processes: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        return cls(**{**value, "readable": tuple(value["readable"]), "without": tuple(value["without"])})
