"""What a template puts around itself, and so around all that it forks: a cgroup, and name spaces in which there is no
network and the file systems are read-only."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

from cort_python.isolation.policy import Layer, Policy, State
from cort_python.isolation.trial import fails
from cort_python.limits import be_first_to_go, checked, libc, map_own_user

_NEW_MOUNTS, _NEW_UTS, _NEW_IPC, _NEW_USER, _NEW_NETWORK = 1 << 17, 1 << 26, 1 << 27, 1 << 28, 1 << 30
_BIND, _RECURSIVE, _PRIVATE = 1 << 12, 1 << 14, 1 << 18
_READ_ONLY, _NO_SETUID, _NO_DEVICES = 1, 2, 4
_DETACH = 2

SHARED_MEMORY, SHARED_MEMORY_MB = "/dev/shm", 64


def surround(policy: Policy, folder: str, *, inside_bwrap: bool = False) -> dict[Layer, State]:
    """Put this process, while it has one thread, where its children are to be; ``folder`` stays writable. Says what
    came of it."""
    states: dict[Layer, State] = {}
    be_first_to_go()
    if "cgroups" not in policy.without:
        states["cgroups"] = _cgroups(policy)
    if policy.foreign:
        states["namespaces"] = State(False, "another Jupyter client has to reach the kernels")
    elif "namespaces" not in policy.without:
        in_bwrap = State(True, "an empty network, by bwrap", "file systems stay as they are")
        states["namespaces"] = in_bwrap if inside_bwrap else _namespaces(folder)
    return states


def through_bwrap(policy: Policy) -> list[str]:
    """The command behind which this process should start again: where the system lets bwrap make name spaces, and not
    us. Elsewhere empty."""
    program = shutil.which("bwrap")
    if program is None or policy.foreign or "namespaces" in policy.without or not fails(_enter_network):
        return []
    command = [program, "--dev-bind", "/", "/", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--"]
    works = subprocess.run([*command, "true"], capture_output=True).returncode == 0
    return command if works else []


def _namespaces(folder: str) -> State:
    def enter_all() -> None:
        _enter_network(_NEW_MOUNTS)
        make_read_only(folder)

    # found out beforehand: a user name space cannot be left again
    if not (reason := fails(enter_all)):
        enter_all()
        return State(True, "an empty network, file systems read-only")
    if fails(_enter_network):
        return State(False, f"this system does not let us make any ({reason})")
    _enter_network()
    return State(True, "an empty network", f"file systems stay as they are ({reason})")


def _enter_network(more: int = 0) -> None:
    """An empty network name space; for an ordinary user, in a user name space."""
    user, group = os.geteuid(), os.getegid()
    kinds = _NEW_NETWORK | _NEW_IPC | _NEW_UTS | more
    checked(libc().unshare(kinds | (_NEW_USER if user else 0)), "unshare")
    if user:
        map_own_user(user, group)


def own_file_systems(user: int, work: str | None = None, megabytes: int | None = None) -> None:
    """In a mount name space of this process's own: a /dev/shm that no other session sees, for ``multiprocessing``, and
    a ``work`` folder that can hold so much and no more. They go when the process and its children are gone."""
    checked(libc().unshare(_NEW_MOUNTS), "unshare")
    mount(None, "/", _PRIVATE | _RECURSIVE)
    for path, size in ((SHARED_MEMORY, SHARED_MEMORY_MB), (work, megabytes)):
        if path is not None and size is not None:
            options = f"size={size}m,mode=700,uid={user},gid={user}"
            mount("none", path, _NO_SETUID | _NO_DEVICES, "tmpfs", options)


def make_read_only(folder: str) -> None:
    """Every file system but ``folder`` and /proc, for this process and its children, in a mount name space of theirs."""
    mount(None, "/", _PRIVATE | _RECURSIVE)  # or the machine would follow
    mount(folder, folder, _BIND)
    _set_attributes("/", _READ_ONLY, 0, recursive=True)
    _set_attributes(folder, 0, _READ_ONLY)
    _set_attributes("/proc", 0, _READ_ONLY)
    os.chdir(folder)  # the working folder was the one below the new mount


def mount(
    source: str | None, target: str, flags: int, kind: str | None = None, options: str | None = None
) -> None:
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    checked(libc().mount(*texts[:3], flags, texts[3]), f"mount {target}")


def _set_attributes(path: str, on: int, off: int, *, recursive: bool = False) -> None:
    attributes = struct.pack("QQQQ", on, off, 0, 0)
    arguments = (-100, os.fsencode(path), 0x8000 if recursive else 0, attributes, ctypes.c_size_t(32))
    checked(libc().syscall(442, *arguments), f"mount_setattr {path}")


# --- cgroups ----------------------------------------------------------------------------------------------------
_FILES = {"memory": ("memory.max", "memory.limit_in_bytes"), "pids": ("pids.max", "pids.max")}
"""The limit's file of a controller, in version 2 and version 1."""


def _cgroups(policy: Policy) -> State:
    limits: dict[str, int] = {}
    if policy.total_memory_mb is not None:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        limits["memory"] = min(policy.total_memory_mb * 2**20, machine * 9 // 10)
    if policy.total_processes is not None:
        limits["pids"] = policy.total_processes
    if not limits:
        return State(False, "no limit for all sessions together is asked for")
    reasons = []
    for controllers, parent, unified in hierarchies():
        wanted = {name: limit for name, limit in limits.items() if name in controllers}
        if not wanted:
            continue
        try:
            _join(parent, wanted, unified)
        except OSError as error:
            reasons.append(f"{', '.join(wanted)}: {error.strerror} ({parent})")
        else:
            limits = {name: limit for name, limit in limits.items() if name not in wanted}
    if limits:
        return State(False, "; ".join(reasons) or f"no controller for {', '.join(limits)} is mounted")
    return State(True, "memory, processes")


def hierarchies() -> list[tuple[list[str], Path, bool]]:
    """For each hierarchy that is mounted: controllers, the group below which ours can be, whether it is version 2."""
    memberships = Path("/proc/self/cgroup").read_text()
    mounts = Path("/proc/self/mountinfo").read_text()
    return [_parent(*own) for own in own_groups(memberships, mounts)]


def own_groups(memberships: str, mounts: str) -> list[tuple[str, Path, Path]]:
    """Controllers (none: version 2), where it is mounted and this process's group, for each hierarchy."""
    paths = {}
    for line in memberships.splitlines():
        _, controllers, path = line.split(":", 2)
        paths[controllers] = path
    found = []
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        root, mount = before.split(" ")[3:5]
        for controllers, path in paths.items():
            version_1 = (
                kind == "cgroup" and controllers and {*controllers.split(",")} <= {*options.split(",")}
            )
            if version_1 or (kind == "cgroup2" and not controllers):
                within = os.path.relpath(path, root) if Path(path).is_relative_to(root) else "."
                found.append((controllers, Path(mount), Path(mount, within)))
    return found


def _parent(controllers: str, mount: Path, group: Path) -> tuple[list[str], Path, bool]:
    if controllers:
        return controllers.split(","), group, False
    names: list[str] = []
    for candidate in (
        group,
        group.parent,
    ):  # a group of version 2 that has processes itself cannot divide what it has
        if candidate.is_relative_to(mount) and not {"memory", "pids"} & {*names}:
            with suppress(OSError):
                names, group = (candidate / "cgroup.subtree_control").read_text().split(), candidate
    return names, group, True


def _join(parent: Path, limits: dict[str, int], unified: bool) -> None:
    sweep(parent)
    group = parent / f"cort-{os.getpid()}"
    group.mkdir()
    try:
        for name, limit in limits.items():
            (group / _FILES[name][0 if unified else 1]).write_text(str(limit))
        (group / "cgroup.procs").write_text(str(os.getpid()))
    except OSError:
        with suppress(OSError):
            group.rmdir()
        raise


def leave(folder: str) -> None:
    """Undo it, so that what is left can be removed: ``folder``, and the cgroups. Children have to be gone."""
    own = own_groups(Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text())
    groups = [group for _, _, group in own if group.name == f"cort-{os.getpid()}"]
    if libc().umount2(os.fsencode(folder), _DETACH) == 0:
        os.chdir("/")
        for path in {parent for end in (Path(folder), *groups) for parent in end.parents}:
            with suppress(OSError):  # it is no mount of its own
                _set_attributes(str(path), 0, _READ_ONLY)
    for group in groups:
        with suppress(OSError):
            (group.parent / "cgroup.procs").write_text(str(os.getpid()))
            group.rmdir()


def sweep(parent: Path) -> None:
    """Remove the groups that killed templates have left."""
    for group in parent.glob("cort-*"):
        number = group.name.removeprefix("cort-")
        if number.isdigit() and not os.path.exists(f"/proc/{number}"):
            with suppress(OSError):
                group.rmdir()
