"""The confinement of one process: worked out once in the template, put on by each child after the fork."""

from __future__ import annotations

import os
import platform
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace

from cort_python import limits as own
from cort_python.folders import WORK
from cort_python.isolation import landlock, seccomp
from cort_python.isolation.policy import LAYERS, Layer, Limits, Policy, State
from cort_python.isolation.readable import reachable_by_others, readable_by_others, readable_paths
from cort_python.isolation.surroundings import SHARED_MEMORY, own_file_systems
from cort_python.isolation.trial import fails

SCOPES = 6
"""The version of Landlock from which on signals stay within a session."""

FIRST_USER = 1_879_048_192
"""What root starts gets this user number plus its process number. In systemd's table of user numbers the range is
nobody's."""

_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


class Confinement:
    """What a child has to do, with all that takes time done before. Made by the template after its imports.

    A layer that is not to be had here is left out, and ``layers`` says so; one that is to be had and then fails in a
    child is an ``OSError``, and the child must end. ``around``: the layers that the template has put around itself
    (see ``surroundings``).
    """

    def __init__(self, policy: Policy, around: Mapping[Layer, State], folder: str) -> None:
        """``folder``: the one that the sessions' folders are in."""
        self.policy = policy
        self.parent = os.getpid()
        self.abi = landlock.version()
        self._filters: dict[bool, seccomp.Filter] = {}
        """By whether the process is to be alone; none where a filter has to name its process."""
        python = (sys.prefix, sys.base_prefix, os.path.realpath(sys.executable))
        self.open_to_others = all(map(readable_by_others, python)) and reachable_by_others(folder)
        self.changes_user = False
        self.namespace_each = False
        self.own_mounts = False
        self.layers: dict[Layer, State] = {layer: State(True, "") for layer in LAYERS}
        for layer in policy.without:
            self.layers[layer] = State(False, "isolation.without leaves it out")
        if self.in_force("landlock") and not self.abi:
            self.layers["landlock"] = State(False, "this kernel has no Landlock, or has it switched off")
        if self.in_force("seccomp") and (reason := seccomp.missing()):
            self.layers["seccomp"] = State(False, reason)
        self.layers.update(around)
        self._try_out()
        own.look_up()  # here, once, and not in each child

    def in_force(self, layer: Layer) -> bool:
        return self.layers[layer].in_force

    # --- in the child -----------------------------------------------------------------------------------------
    def enter(self, limits: Limits, folder: str | None, *, made_here: bool = True) -> None:
        """Before there are threads: limits, user, capabilities, files. ``folder`` is the only place to write; without
        one there is none. ``made_here``: its owner may be changed."""
        own.no_new_privileges()
        writable = [] if folder is None else [folder]
        kept: tuple[int, ...] = ()
        counted = True  # processes, for this session alone
        if made_here and self.changes_user:
            user = FIRST_USER + os.getpid()
            if folder is not None:
                os.chown(folder, user, user)
            writable += self._mount(folder, user, limits.scratch_mb)
            own.become_user(user)
            if not self.open_to_others:
                kept = (own.DAC_READ_SEARCH,)  # within what Landlock leaves of it
        elif self.namespace_each:
            own.enter_user_namespace()
            writable += self._mount(folder, os.geteuid(), limits.scratch_mb)
        else:
            counted = False
        if self.in_force("rlimits"):
            own.limit_resources(limits.cpu_s, limits.file_mb, limits.open_files)
            own.limit_processes(limits.processes, of_this_session=counted)
        if self.in_force("privileges"):
            own.keep_capabilities(*kept)
        if os.getpid() != self.parent:
            own.die_with_parent(signal.SIGKILL)  # the change of user has cleared it
            if os.getppid() != self.parent:
                os._exit(1)
        if self.in_force("landlock"):
            self._rules.restrict(*writable)

    def seal(self, limits: Limits) -> None:
        """Once its sockets are bound: the filter of system calls, on all threads, and the limit of memory."""
        if self.in_force("seccomp"):
            self._filter(limits.alone).install()
        if self.in_force("rlimits"):
            own.limit_memory(limits.memory_mb)

    def _mount(self, folder: str | None, user: int, megabytes: int | None) -> list[str]:
        if folder is None or not self.own_mounts:
            return []
        work = os.path.join(folder, WORK)
        if megabytes is not None:
            os.mkdir(work)
        own_file_systems(user, work, megabytes)
        return [SHARED_MEMORY]

    def _filter(self, alone: bool) -> seccomp.Filter:
        return self._filters.get(alone) or seccomp.Filter(
            seccomp.program(alone=alone, signals_to=os.getpid())
        )

    # --- in the template --------------------------------------------------------------------------------------
    def _try_out(self) -> None:
        """Find out what a child can do, in a child, and what it says where it cannot."""
        if self.in_force("landlock"):
            self._rules = landlock.Ruleset(
                readable_paths(self.policy.readable), _DEVICES, abi=self.abi, listens=self.policy.foreign
            )
            reach = f"files, TCP, signals, abstract sockets (ABI {self.abi})"
            self._try("landlock", lambda: self._rules.restrict(), State(True, reach, landlock.gap(self.abi)))
        if self.in_force("seccomp"):
            if self.in_force("landlock") and self.abi >= SCOPES:
                self._filters = {one: seccomp.Filter(seccomp.program(alone=one)) for one in (False, True)}
            self._try("seccomp", lambda: self._filter(alone=False).install(), State(True, platform.machine()))
        root = os.geteuid() == 0
        if self.in_force("privileges"):
            reachable = self.in_force("landlock") or self.open_to_others
            if root and reachable and not self.policy.foreign:
                self.changes_user = not fails(lambda: own.become_user(FIRST_USER + os.getpid()))
            elif not root:
                self.namespace_each = not fails(own.enter_user_namespace)
            self._try("privileges", own.keep_capabilities, State(True, self._privileges(root)))
        if self.in_force("namespaces"):
            whose = self.changes_user or self.namespace_each
            self.own_mounts = whose and not fails(self._try_mounts)
            if not self.own_mounts:
                state = self.layers["namespaces"]
                gap = "; ".join(filter(None, (state.gap, "the files of a session have no limit together")))
                self.layers["namespaces"] = replace(state, gap=gap)
        if self.in_force("rlimits"):
            self._try(
                "rlimits", lambda: own.limit_resources(1, 1, 16), State(True, "", self._uncounted(root))
            )

    def _try(self, layer: Layer, attempt: Callable[[], None], state: State) -> None:
        def unprivileged() -> None:
            own.no_new_privileges()
            own.keep_capabilities()
            attempt()

        reason = fails(unprivileged)
        self.layers[layer] = State(False, reason) if reason else state

    def _try_mounts(self) -> None:
        if self.namespace_each:
            own.enter_user_namespace()
        own_file_systems(os.geteuid())

    def _uncounted(self, root: bool) -> str:
        if self.changes_user or self.namespace_each:
            return ""
        return (
            "root's processes are not counted"
            if root
            else "processes are counted for the user, not for a session"
        )

    def _privileges(self, root: bool) -> str:
        if not self.changes_user:
            return "root without capabilities" if root else "no capabilities"
        return "a user for each session" + ("" if self.open_to_others else ", which may read what root may")
