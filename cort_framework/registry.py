"""Finds plugins, keeps the broken ones apart, and turns names into classes.

Discovery is our own loop over the entry points of the group ``cort``, since pluggy's loader lets the ImportError of
one plugin stop all the others. A plugin's module is imported when its kind is first asked for, and a failure is
remembered until a recipe names something that the plugin might have provided.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import json
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from cort_framework import hookspecs
from cort_framework.errors import PluginError, PluginFault
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

if TYPE_CHECKING:
    import click

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
BUILTIN_MODULES = ("cort_framework.stages",)
"""What the core itself provides comes through the same hooks."""


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


@dataclass(frozen=True)
class Resolved:
    """A plugin that a recipe names: its class, and the checked config to build it with."""

    kind: str
    key: str
    """Its key in the recipe; the class's own name is ``cls.name``."""
    cls: type[Any]
    config: PluginConfig
    distribution: str
    version: str

    def build(self) -> Any:
        """A new instance, not opened yet. Raises ``PluginFault`` where the plugin's constructor does."""
        try:
            plugin = self.cls(self.config)
        except Exception as error:
            raise PluginFault(f"{self.kind} '{self.key}'", self.distribution, error) from error
        plugin.distribution = self.distribution
        return plugin

    def to_table(self) -> dict[str, Any]:
        """What the stage's cache key and ``plan.json`` say of it."""
        return {
            "use": f"{self.distribution}/{self.cls.name}",
            "version": self.version,
            "config": self.config.model_dump(mode="json"),
        }


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
        if dist is None:
            return cls(entry_point.name, entry_point.value, "unknown", "0")
        return cls(
            entry_point.name,
            entry_point.value,
            dist.name,
            dist.version,
            tuple(dist.requires or ()),
            _is_editable(dist),
        )

    def call(self, hook: str) -> Any:
        """What the plugin returns for a hook; ``None`` where it has none, or where it failed (see ``failures``)."""
        if self._manager is None:
            return None
        try:
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
        except Exception as error:
            self._fail(hook, error)
            return []
        return [Provider(kind, cls.name, cls, self.distribution, self.version) for cls in classes]

    @cached_property
    def version(self) -> str:
        """The release, with a hash of the package's source where the install is editable."""
        if not self.editable:
            return self.release
        package = importlib.import_module(self.module.partition(":")[0].partition(".")[0])
        file = Path(inspect.getfile(package))
        return f"{self.release}+{_source_hash(file.parent if file.name == '__init__.py' else file)}"

    @cached_property
    def _manager(self) -> pluggy.PluginManager | None:
        try:
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
        own = self.module.partition(":")[0].partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and error.name:
            missing = error.name.partition(".")[0]
            if missing == own:
                return f"pip install --force-reinstall {self.distribution}"
            declared = (r.partition(";")[0].strip() for r in self.requirements)
            wanted = {canonicalize_name(Requirement(r).name): r for r in declared}
            return f'pip install "{wanted.get(canonicalize_name(missing), missing)}"'
        frames = traceback.extract_tb(error.__traceback__)
        place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
        return (
            f"the fault is in {self.distribution} {self.release}{place}: pip install -U or pip uninstall it"
        )


class Registry:
    """Everything that is installed, and what a script registered."""

    def __init__(self, plugins: Iterable[InstalledPlugin] | None = None) -> None:
        self._given = None if plugins is None else list(plugins)
        self._registered: list[Provider] = []
        self._providers: dict[str, list[Provider]] = {}

    @cached_property
    def plugins(self) -> list[InstalledPlugin]:
        """The core's own, then the installed distributions by name."""
        if self._given is not None:
            return self._given
        found = [InstalledPlugin.from_entry_point(e) for e in entry_points(group=GROUP)]
        return [*_builtins(), *sorted(found, key=lambda p: (p.distribution, p.name))]

    # --- classes ----------------------------------------------------------------------------------------------
    def register(self, cls: type[Plugin]) -> type[Plugin]:
        """Makes a class of a script known under its name, without packaging. Usable as a decorator; the same module's
        class of the same name is replaced."""
        kind = next(
            (k for k, (base, _) in KINDS.items() if inspect.isclass(cls) and issubclass(cls, base)), None
        )
        if kind is None:
            raise PluginError(f"{cls!r} is of no plugin kind", f"derive it from one of: {_bases()}")
        try:
            check_class(cls, KINDS[kind][0])
        except TypeError as error:
            raise PluginError(str(error)) from error
        mine = Provider(kind, cls.name, cls, cls.__module__, _class_hash(cls))
        same = (mine.kind, mine.name, mine.distribution)
        self._registered = [p for p in self._registered if (p.kind, p.name, p.distribution) != same] + [mine]
        return cls

    def providers(self, kind: str) -> list[Provider]:
        """All classes of a kind, two of one name included."""
        if kind not in self._providers:
            self._providers[kind] = [p for plugin in self.plugins for p in plugin.providers(kind)]
        return self._providers[kind] + [p for p in self._registered if p.kind == kind]

    def names(self, kind: str) -> list[str]:
        return sorted({p.name for p in self.providers(kind)})

    def resolve(self, kind: str, name: str) -> Provider:
        """The one class of a kind with this name; ``dist/name`` picks between two distributions.

        Raises ``PluginError``: the name is unknown (with the nearest names, or with the failure of the plugin that may
        have had it) or is claimed twice (with both distributions).
        """
        distribution, _, bare = name.rpartition("/")
        found = [p for p in self.providers(kind) if p.name == bare and distribution in ("", p.distribution)]
        if len(found) > 1:
            owners = [p.distribution for p in found]
            raise PluginError(
                f"{kind} '{bare}' is claimed by {' and by '.join(owners)}",
                f'choose one with use = "{owners[0]}/{bare}", or uninstall the other',
            )
        if not found:
            raise self._unknown(kind, name)
        return found[0]

    def _unknown(self, kind: str, name: str) -> PluginError:
        known = self.names(kind)
        near = difflib.get_close_matches(name.rpartition("/")[2], known, n=3)
        suspects = list(self._suspects(kind, name))
        if suspects and not near:
            plugin, failure = suspects[0]
            error = PluginError(
                f"no {kind} '{name}': the plugin {plugin.distribution} {plugin.release} failed "
                f"({failure.where}: {failure.reason})",
                failure.fix,
            )
            error.__cause__ = failure.exception
            return error
        if near:
            return PluginError(
                f"no {kind} '{name}' is installed", f"did you mean {' or '.join(map(repr, near))}?"
            )
        return PluginError(
            f"no {kind} '{name}' is installed",
            f"installed are {', '.join(known) or 'none'}; `cort plugins list` shows where each comes from",
        )

    def _suspects(self, kind: str, name: str) -> Iterator[tuple[InstalledPlugin, Failure]]:
        """Failed plugins that may have provided the name, those whose own name resembles it first."""
        distribution, _, bare = name.rpartition("/")
        hook = KINDS[kind][1]
        failed = [(p, f) for p in self.plugins for f in p.failures if f.where in ("import", hook)]
        failed = [(p, f) for p, f in failed if distribution in ("", p.distribution)]
        return iter(sorted(failed, key=lambda pf: bare not in pf[0].distribution and bare != pf[0].name))

    # --- models and commands ----------------------------------------------------------------------------------
    def models(self) -> dict[str, Path]:
        """Models that ship in plugins: name and folder."""
        return {
            name: Path(path) for p in self.plugins for name, path in (p.call("cort_models") or {}).items()
        }

    def command_groups(self) -> dict[str, list[InstalledPlugin]]:
        """Command-group names and the plugins behind each. Nothing is imported for it."""
        groups: dict[str, list[InstalledPlugin]] = {}
        for plugin in self.plugins:
            if plugin.distribution != CORE:
                groups.setdefault(plugin.name, []).append(plugin)
        return groups

    def commands(self, group: str) -> list[click.Command]:
        """The commands of a plugin's group. Raises ``PluginError`` where two plugins claim it, or it failed."""
        plugins = self.command_groups().get(group, [])
        if len(plugins) > 1:
            owners = " and by ".join(p.distribution for p in plugins)
            raise PluginError(
                f"the command group '{group}' is claimed by {owners}", "uninstall one of the two"
            )
        commands = list(plugins[0].call("cort_commands") or ()) if plugins else []
        for failure in plugins[0].failures if plugins else []:
            if failure.where in ("import", "cort_commands"):
                raise PluginError(
                    f"plugin {plugins[0].distribution} failed ({failure.where}: {failure.reason})",
                    failure.fix,
                ) from failure.exception
        return commands

    def load_all(self) -> None:
        """Asks every plugin for everything, so that all failures are known."""
        for kind in KINDS:
            self.providers(kind)
        for plugin in self.plugins:
            plugin.call("cort_models")
            plugin.call("cort_commands")


@cache
def default_registry() -> Registry:
    """The registry of this process: installed plugins, and what ``register`` added."""
    return Registry()


def register(cls: type[Plugin]) -> type[Plugin]:
    """Makes a plugin class defined in a script usable by name in a recipe built in Python."""
    return default_registry().register(cls)


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


def check_requirements(cls: type[Plugin], label: str | None = None) -> None:
    """Raises ``PluginError`` with the pip line where a requirement of the class is not met here."""
    unmet = []
    for text in cls.requires:
        try:
            wanted = Requirement(text)
        except InvalidRequirement as error:
            raise PluginError(f"{label or cls.name} has a malformed requirement {text!r}: {error}") from error
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        try:
            have = version(wanted.name)
        except PackageNotFoundError:
            unmet.append((text, f"{wanted.name} is not installed"))
            continue
        if not wanted.specifier.contains(have, prereleases=True):
            unmet.append((text, f"{wanted.name} {have} is installed"))
    if unmet:
        needs = ", ".join(f"{text} ({state})" for text, state in unmet)
        pip = " ".join(f'"{text}"' for text, _ in unmet)
        raise PluginError(f"{label or cls.name} needs {needs}", f"pip install {pip}")


# --- what the above is made of ----------------------------------------------------------------------------------
def _builtins() -> list[InstalledPlugin]:
    try:
        release, editable = version(CORE), _is_editable(Distribution.from_name(CORE))
    except PackageNotFoundError:  # run from a folder, not installed
        release, editable = "0", True
    return [InstalledPlugin("cort", m, CORE, release, editable=editable) for m in BUILTIN_MODULES]


def _is_editable(dist: Distribution) -> bool:
    origin = json.loads(dist.read_text("direct_url.json") or "{}")
    return bool(origin.get("dir_info", {}).get("editable"))


def _check_hook(name: str, function: Any) -> None:
    known = [n for n in vars(hookspecs) if n.startswith("cort_")]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise TypeError(f"no hook is called {name}" + (f"; did you mean {near[0]}?" if near else ""))
    if not hasattr(function, f"{GROUP}_impl"):
        raise TypeError(f"{name} is not marked: put @cort.hookimpl above it")


@cache
def _source_hash(source: Path) -> str:
    """Of a module, or a package's Python files; the command line and the test helpers change no result."""
    digest = hashlib.blake2b(digest_size=4)
    for path in sorted(source.rglob("*.py")) if source.is_dir() else [source]:
        relative = path.relative_to(source).as_posix()
        if not relative.startswith(("cli/", "testing.py")):
            digest.update(relative.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _class_hash(cls: type) -> str:
    try:
        source = inspect.getsource(cls)
    except (OSError, TypeError):  # typed at a prompt: nothing to read
        source = cls.__qualname__
    return f"0+{hashlib.blake2b(source.encode(), digest_size=4).hexdigest()}"


def _bases() -> str:
    return ", ".join(base.__name__ for base, _ in KINDS.values())
