"""Templates that several tools use: one process for each set of preloads, started once and ended by the last user."""

from __future__ import annotations

import threading
from dataclasses import replace

from cort_python.isolation.policy import Policy
from cort_python.template import Template

_lock = threading.Lock()
_shared: list[Shared] = []


class Shared:
    """A template and how many hold it. Started again where it has ended by itself."""

    def __init__(self, preload: tuple[str, ...], kernels: bool, policy: Policy) -> None:
        self.preload = preload
        self.kernels = kernels
        self.policy = policy
        self.users = 0
        self.start()

    def start(self) -> None:
        self.template = Template(list(self.preload), kernels=self.kernels, policy=self.policy)

    def serves(self, preload: tuple[str, ...], kernels: bool, policy: Policy) -> bool:
        own = self.policy
        if not kernels:  # totals are for sessions; a call has limits of its own
            policy, own = (replace(p, total_memory_mb=None, total_processes=None) for p in (policy, own))
        return set(preload) <= set(self.preload) and (self.kernels or not kernels) and policy == own


class Lease:
    """A share in a template that has these modules, and a kernel to fork where ``kernels`` asks for one.

    A live template that has more will do, so open the tool that preloads the most first.
    """

    def __init__(self, preload: tuple[str, ...], *, kernels: bool, policy: Policy | None = None) -> None:
        policy = policy or Policy()
        with _lock:
            fits = (shared for shared in _shared if shared.serves(preload, kernels, policy))
            self._shared = next(fits, None) or Shared(preload, kernels, policy)
            if not self._shared.users:
                _shared.append(self._shared)
            self._shared.users += 1
        self._closed = False

    @property
    def template(self) -> Template:
        """The template, alive."""
        with _lock:
            if not self._shared.template.alive and not self._closed:
                self._shared.start()
            return self._shared.template

    def close(self) -> None:
        """Give the share back; with the last one the template ends, and what was forked from it. Blocks."""
        with _lock:
            if self._closed:
                return
            self._closed = True
            self._shared.users -= 1
            if self._shared.users:
                return
            _shared.remove(self._shared)
        self._shared.template.close()
