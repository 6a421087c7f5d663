"""Names to classes: what is installed and what a script registered, with clashes and failures named when they matter."""

from __future__ import annotations

import difflib
import hashlib
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from cort_framework.errors import PluginError, PluginFault
from cort_framework.interfaces import Plugin, PluginConfig
from cort_framework.registry.discovery import KINDS, Failure, InstalledPlugin, Provider, check_class, discover

if TYPE_CHECKING:
    import click

C = TypeVar("C", bound=type[Plugin])

APART = {("engine", "vllm"): "cort-vllm", ("executor", "ray"): "cort-ray"}
"""Plugins of this project that are installed by those who need them alone, since they bring much with them."""


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


class Registry:
    """Everything that is installed, and what a script registered."""

    def __init__(self, plugins: Iterable[InstalledPlugin] | None = None) -> None:
        self.plugins = discover() if plugins is None else list(plugins)
        self._registered: list[Provider] = []
        self._providers: dict[str, list[Provider]] = {}

    # --- classes ----------------------------------------------------------------------------------------------
    def register(self, cls: C) -> C:
        """Makes a class of a script known under its name, without packaging. Usable as a decorator; the same module's
        class of the same name is replaced."""
        bases = cls.__mro__ if inspect.isclass(cls) else ()
        kind = next((kind for kind, (base, _) in KINDS.items() if base in bases), None)
        if kind is None:
            known = ", ".join(base.__name__ for base, _ in KINDS.values())
            raise PluginError(f"{cls!r} is of no plugin kind", f"derive it from one of: {known}")
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
        distribution, bare = _split(name)
        found = [
            p
            for p in self.providers(kind)
            if p.name == bare and distribution in ("", canonicalize_name(p.distribution))
        ]
        if len(found) > 1:
            owners = [p.distribution for p in found]
            raise PluginError(
                f"{kind} '{bare}' is claimed by {' and by '.join(owners)}",
                f'name it "{owners[0]}/{bare}" (in a table of its own: use = …), or uninstall the other',
            )
        if not found:
            raise self._unknown(kind, name)
        return found[0]

    def _unknown(self, kind: str, name: str) -> PluginError:
        text = f"no {kind} '{name}' is installed"
        known = self.names(kind)
        near = difflib.get_close_matches(_split(name)[1], known, n=3)
        suspects = list(self.suspects(name, KINDS[kind][1]))
        likely = [s for s in suspects if _split(name)[1] in (s[0].name, *s[0].distribution.split("-"))]
        if likely or (suspects and not near):
            return absent_because(text, *(likely or suspects)[0])
        if near:
            return PluginError(text, f"did you mean {' or '.join(map(repr, near))}?")
        if (kind, _split(name)[1]) in APART:
            return PluginError(text, f"pip install {APART[kind, _split(name)[1]]}")
        listed = f"installed: {', '.join(known)}" if known else f"no {kind} is installed at all"
        return PluginError(text, f"{listed}; `cort plugins list` shows what comes from where")

    def suspects(self, name: str, hook: str) -> Iterator[tuple[InstalledPlugin, Failure]]:
        """Failed plugins that may have provided a name by a hook."""
        distribution, _ = _split(name)
        for plugin in self.plugins:
            if distribution in ("", canonicalize_name(plugin.distribution)):
                yield from ((plugin, f) for f in plugin.failures if f.where in ("import", hook))

    # --- models and commands ----------------------------------------------------------------------------------
    def models(self) -> dict[str, Path]:
        """Models that ship in plugins: name and folder."""
        return {name: path for p in self.plugins for name, path in p.models().items()}

    def model(self, name: str) -> Path | None:
        """The folder of a shipped model, ``None`` where no plugin has one of this name; ``PluginError`` where two do."""
        owners = [p for p in self.plugins if name in p.models()]
        if len(owners) > 1:
            claims = " and by ".join(p.distribution for p in owners)
            raise PluginError(f"the model '{name}' is claimed by {claims}", "uninstall one of the two")
        return owners[0].models()[name] if owners else None

    def command_groups(self) -> dict[str, list[InstalledPlugin]]:
        """Command-group names and the plugins behind each: those of one name share a group. Nothing is imported for it."""
        groups: dict[str, list[InstalledPlugin]] = {}
        for plugin in self.plugins:
            groups.setdefault(plugin.name, []).append(plugin)
        return groups

    def commands(self, group: str) -> dict[str, list[tuple[str, click.Command]]]:
        """The commands of a group by name, each with every distribution that has one of that name."""
        commands: dict[str, list[tuple[str, click.Command]]] = {}
        for plugin in self.command_groups().get(group, []):
            for command in plugin.call("cort_commands") or ():
                commands.setdefault(str(command.name), []).append((plugin.distribution, command))
        return commands

    def command(self, group: str, name: str) -> click.Command | None:
        """A command of a group. Raises ``PluginError`` where two distributions claim it, or where there is none and a plugin
        of the group, which may have had it, failed."""
        found = self.commands(group).get(name, [])
        if len(found) > 1:
            owners = " and by ".join(distribution for distribution, _ in found)
            raise PluginError(
                f"the command '{group} {name}' is claimed by {owners}", "uninstall one of the two"
            )
        if found:
            return found[0][1]
        behind = self.command_groups().get(group, [])
        for plugin, failure in self.suspects("", "cort_commands"):
            if plugin in behind:
                raise absent_because(f"the command '{group} {name}' is not there", plugin, failure)
        return None

    def load_all(self) -> None:
        """Asks every plugin for everything, so that all failures are known."""
        for kind in KINDS:
            self.providers(kind)
        for plugin in self.plugins:
            plugin.models()
            plugin.call("cort_commands")


@cache
def default_registry() -> Registry:
    """The registry of this process: installed plugins, and what ``register`` added."""
    return Registry()


def register(cls: C) -> C:
    """Makes a plugin class defined in a script usable by name in a recipe built in Python."""
    return default_registry().register(cls)


def absent_because(text: str, plugin: InstalledPlugin, failure: Failure) -> PluginError:
    """The error for something that is missing because a plugin failed; it carries the original exception."""
    error = PluginError(
        f"{text}: {plugin.distribution} {plugin.release}, which may provide it, failed "
        f"({failure.where}: {failure.reason})",
        failure.fix,
    )
    error.__cause__ = failure.exception
    return error


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


def _split(name: str) -> tuple[str, str]:
    """``dist/name`` as distribution, normalised and perhaps empty, and name."""
    distribution, _, bare = name.rpartition("/")
    return canonicalize_name(distribution), bare


def _class_hash(cls: type) -> str:
    try:
        source = inspect.getsource(cls)
    except (OSError, TypeError):  # typed at a prompt: nothing to read
        source = cls.__qualname__
    return f"0+{hashlib.blake2b(source.encode(), digest_size=4).hexdigest()}"
