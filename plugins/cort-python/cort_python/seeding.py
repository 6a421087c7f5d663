"""One seed for all the generators that a program uses without seeding them itself.

A kernel is seeded with its trajectory's first cell, so it does not matter when, or for whom, it was started.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


def seed(value: int) -> None:
    """Seed ``random`` now; numpy's and sympy's generators now or when they are imported."""
    random.seed(value)
    later: dict[str, Callable[[Any, int], None]] = {}
    for name, apply in {"numpy.random": _seed_numpy, "sympy.core.random": _seed_sympy}.items():
        if module := sys.modules.get(name):
            apply(module, value)
        else:
            later[name] = apply
    if later:
        sys.meta_path.insert(0, _SeedsOnImport(value, later))


def _seed_numpy(module: Any, value: int) -> None:
    module.seed(value % 2**32)
    # where `default_rng()` and its like take their entropy from
    module.bit_generator.randbits = random.Random(value).getrandbits


def _seed_sympy(module: Any, value: int) -> None:
    module.seed(value)


class _SeedsOnImport(MetaPathFinder):
    """Lets the usual finder find these modules, and seeds them once they have run."""

    def __init__(self, value: int, modules: dict[str, Callable[[Any, int], None]]) -> None:
        self.value = value
        self.modules = modules

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        apply = self.modules.pop(fullname, None)
        spec = PathFinder.find_spec(fullname, path, target) if apply else None
        if apply and spec and spec.loader:
            spec.loader = _Seeding(spec.loader, lambda module: apply(module, self.value))
        return spec


class _Seeding(Loader):
    def __init__(self, loader: Loader, after: Callable[[ModuleType], None]) -> None:
        self.loader = loader
        self.after = after

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        self.after(module)
