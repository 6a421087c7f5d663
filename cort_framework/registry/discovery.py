"""The installed plugins, each on its own: imported when first asked, its failures remembered and kept from the others.

Discovery is our own loop over the entry points of the group ``cort``: pluggy's loader lets the ImportError of one
plugin stop all of them.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import json
import signal
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any

import pluggy
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from cort_framework import hookspecs
from cort_framework.hookspecs import GROUP
from cort_framework.interfaces import (
    Engine,
    Executor,
    Filter,
    HealthCheck,
    HintInjector,
    Plugin,
    PluginConfig,
    RewardFunction,
    Stage,
    TaskSource,
    Tool,
    Trainer,
)

KINDS: Mapping[str, tuple[type[Plugin], str]] = {
    "tool": (Tool, "cort_tools"),
    "hint-injector": (HintInjector, "cort_hint_injectors"),
    "filter": (Filter, "cort_filters"),
    "reward-function": (RewardFunction, "cort_reward_functions"),
    "task-source": (TaskSource, "cort_task_sources"),
    "engine": (Engine, "cort_engines"),
    "trainer": (Trainer, "cort_trainers"),
    "stage": (Stage, "cort_stages"),
    "executor": (Executor, "cort_executors"),
    "health-check": (HealthCheck, "cort_health_checks"),
}
"""Each kind of plugin, its base class and the hook that gives it."""

CORE = "cort-framework"
BUILTIN_MODULES = {
    "cort": "cort_framework.stages",
    "bench": "cort_framework.cli.bench",
    "health": "cort_framework.doctor.health",
}
"""What the core itself provides comes through the same hooks: name of the plugin and its module."""

PRESENTATION = ("cli/", "display.py", "testing/", "health.py", "doctor/")
"""Files whose change changes no result: they are left out of an editable install's version."""

PATIENCE_S = 120.0
"""How long a plugin may take to be imported, or to answer a hook, before it counts as broken."""


@dataclass(frozen=True)
class Failure:
    """Why a plugin, or one hook of it, cannot be used."""

    where: str
    """``import``, or the hook's name."""
    exception: BaseException
    fix: str
    """What to do about it, as a rule a pip line."""

    @property
    def reason(self) -> str:
        return f"{type(self.exception).__name__}: {self.exception}".strip(": ")


@dataclass(frozen=True)
class Provider:
    """A class that a distribution offers under a name."""

    kind: str
    name: str
    cls: type[Plugin]
    distribution: str
    version: str
    """With a hash of the source where the code can change under the version: an editable install, a script."""


@dataclass
class InstalledPlugin:
    """One entry point of the group ``cort``, imported when something is first asked of it."""

    name: str
    """The entry point's name, and the name of the plugin's command group."""
    module: str
    distribution: str
    release: str
    """The distribution's version."""
    requirements: tuple[str, ...] = ()
    editable: bool = False
    failures: list[Failure] = field(default_factory=list)

    @classmethod
    def from_entry_point(cls, entry_point: EntryPoint) -> InstalledPlugin:
        dist = entry_point.dist
        name, release = (dist.name, dist.version) if dist is not None else ("", "")
        return cls(
            entry_point.name,
            entry_point.value,
            name or "unknown",  # a distribution whose metadata is damaged has neither
            release or "0",
            tuple(dist.requires or ()) if dist is not None else (),
            dist is not None and _is_editable(dist),
        )

    def call(self, hook: str) -> Any:
        """What the plugin returns for a hook; ``None`` where it has none, or where it failed (see ``failures``)."""
        if self._manager is None:
            return None
        try:
            with _patience():
                answers = getattr(self._manager.hook, hook)()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may raise anything, SystemExit too
            self._fail(hook, error)
            return None
        return answers[0] if answers else None

    def providers(self, kind: str) -> list[Provider]:
        """The classes of a kind that the plugin offers; none of them if one is not fit to be used."""
        base, hook = KINDS[kind]
        try:
            classes = list(self.call(hook) or ())
            for cls in classes:
                check_class(cls, base)
            return [Provider(kind, cls.name, cls, self.distribution, self.version) for cls in classes]
        except Exception as error:
            self._fail(hook, error)
            return []

    def models(self) -> dict[str, Path]:
        """Name and folder of each model that ships in the plugin."""
        try:
            return {str(name): Path(path) for name, path in dict(self.call("cort_models") or {}).items()}
        except Exception as error:
            self._fail("cort_models", error)
            return {}

    @property
    def package(self) -> str:
        """The top of its module's name."""
        return self.module.partition(":")[0].partition(".")[0]

    @cached_property
    def version(self) -> str:
        """The release, with a hash of the package's source where the install is editable."""
        if not self.editable:
            return self.release
        package = importlib.import_module(self.package)
        file = Path(inspect.getfile(package))
        return f"{self.release}+{_source_hash(file.parent if file.name == '__init__.py' else file)}"

    @cached_property
    def _manager(self) -> pluggy.PluginManager | None:
        try:
            with _patience():
                loaded = EntryPoint(self.name, self.module, GROUP).load()
            for name, value in vars(loaded).items():
                if name.startswith("cort_") and inspect.isfunction(value):
                    _check_hook(name, value)
            manager = pluggy.PluginManager(GROUP)
            manager.add_hookspecs(hookspecs)
            manager.register(loaded, self.name)
            manager.check_pending()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._fail("import", error)
            return None
        return manager

    def _fail(self, where: str, error: BaseException) -> None:
        if all(f.where != where for f in self.failures):
            self.failures.append(Failure(where, error, self._fix(error)))

    def _fix(self, error: BaseException) -> str:
        if isinstance(error, ModuleNotFoundError) and error.name:
            missing = error.name.partition(".")[0]
            if missing == self.package:
                return f"pip install --force-reinstall {self.distribution}"
            for text in self.requirements:
                with suppress(InvalidRequirement):
                    declared = Requirement(text)
                    if canonicalize_name(declared.name) == canonicalize_name(missing):
                        return f'pip install "{declared.name}{declared.specifier}"'
            return f"pip install {missing}"
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
        place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
        return (
            f"the fault is in {self.distribution} {self.release}{place}: pip install -U or pip uninstall it"
        )


def discover() -> list[InstalledPlugin]:
    """The core's own, then the installed distributions by name. Nothing of theirs is imported."""
    found = [InstalledPlugin.from_entry_point(e) for e in entry_points(group=GROUP)]
    return [*_builtins(), *sorted(found, key=lambda p: (p.distribution, p.name))]


def check_class(cls: Any, base: type[Plugin]) -> None:
    """Raises ``TypeError`` unless ``cls`` is a plugin class of this kind that can be built and named."""
    label = getattr(cls, "__qualname__", repr(cls))
    if not inspect.isclass(cls) or not issubclass(cls, base):
        raise TypeError(f"{label} is not a subclass of {base.__name__}")
    if not isinstance(getattr(cls, "name", None), str) or not cls.name:
        raise TypeError(f'{label} has no name; give it one: name = "{label.lower()}"')
    if "/" in cls.name:
        raise TypeError(f"{label}: a name has no '/' in it: {cls.name!r}")
    if missing := getattr(cls, "__abstractmethods__", None):
        raise TypeError(f"{label} lacks {', '.join(sorted(missing))}")
    if not inspect.isclass(cls.Config) or not issubclass(cls.Config, PluginConfig):
        raise TypeError(f"{label}.Config is not a subclass of PluginConfig")


# --- what the above is made of ----------------------------------------------------------------------------------
@contextmanager
def _patience() -> Iterator[None]:
    """``TimeoutError`` in a block that takes longer than ``PATIENCE_S``; only the main thread can be interrupted."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGALRM) is None:
        yield  # the alarm is somebody's who is not Python, and could not be given back
        return

    def ring(*_: object) -> None:
        raise TimeoutError(f"it has not come back within {PATIENCE_S:g} s")

    handler = signal.signal(signal.SIGALRM, ring)
    # it rings again, for a plugin that swallows the first
    pending = signal.setitimer(signal.ITIMER_REAL, PATIENCE_S, PATIENCE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *pending)
        signal.signal(signal.SIGALRM, handler)


def _builtins() -> list[InstalledPlugin]:
    try:
        release, editable = version(CORE), _is_editable(Distribution.from_name(CORE))
    except PackageNotFoundError:  # run from a folder, not installed
        release, editable = "0", True
    return [InstalledPlugin(n, m, CORE, release, editable=editable) for n, m in BUILTIN_MODULES.items()]


def _is_editable(dist: Distribution) -> bool:
    with suppress(ValueError, AttributeError):
        origin = json.loads(dist.read_text("direct_url.json") or "{}")
        return bool(origin.get("dir_info", {}).get("editable"))
    return False


def _check_hook(name: str, function: Any) -> None:
    known = [n for n in vars(hookspecs) if n.startswith("cort_")]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise TypeError(f"no hook is called {name}" + (f"; did you mean {near[0]}?" if near else ""))
    if not hasattr(function, f"{GROUP}_impl"):
        raise TypeError(f"{name} is not marked: put @cort.hookimpl above it")


@cache
def _source_hash(source: Path) -> str:
    """Of a module, or of a package's Python files."""
    digest = hashlib.blake2b(digest_size=4)
    for path in sorted(source.rglob("*.py")) if source.is_dir() else [source]:
        relative = path.relative_to(source).as_posix()
        if not relative.startswith(PRESENTATION):
            digest.update(relative.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
