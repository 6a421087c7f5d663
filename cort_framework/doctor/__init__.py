"""Whether all that is installed works on this machine, and what a recipe needs: each finding with what mends it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import distributions
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from cort_framework.errors import CortError, PluginError
from cort_framework.guards.calls import run_plugin_on_each
from cort_framework.interfaces import HealthCheck, HealthContext, HealthReport
from cort_framework.recipe.plan import Plan
from cort_framework.registry import Registry, check_requirements
from cort_framework.registry.discovery import CORE, KINDS, Provider


@dataclass(frozen=True)
class Finding:
    """One report, and the distribution that it comes from or is about."""

    distribution: str
    report: HealthReport


def examine(context: HealthContext, registry: Registry) -> Iterator[Finding]:
    """What the core finds, then each plugin's own checks. With a recipe, what it makes no use of is a warning at worst."""
    installed = Packages()
    used = installed.behind(_used(context.plan)) if context.plan is not None else None
    for finding in _findings(context, registry, installed):
        idle = used is not None and canonicalize_name(finding.distribution) not in used
        if idle and finding.report.state == "broken":
            detail = f"{finding.report.detail} (the recipe makes no use of {finding.distribution})"
            finding = replace(finding, report=replace(finding.report, state="warning", detail=detail))
        if finding.report.state == "good":
            finding = replace(finding, report=replace(finding.report, fix=""))  # what is well needs none
        yield finding


def _findings(context: HealthContext, registry: Registry, installed: Packages) -> Iterator[Finding]:
    plugins = {CORE, *(p.distribution for p in registry.plugins)}
    listed = [*_plugins(registry), *installed.disagreements(plugins, _optional(registry))]
    yield from sorted(listed, key=lambda finding: finding.distribution == CORE)
    checks = registry.providers("health-check")
    for provider in sorted(checks, key=lambda p: p.distribution != CORE):
        yield from (Finding(provider.distribution, report) for report in _run(provider, context))


def _used(plan: Plan) -> set[str]:
    """The distributions whose plugins are in the plan."""
    sections = (plan.tasks, plan.tools, plan.hints, plan.filters, plan.rewards, plan.engines, plan.executors)
    resolved = [r for section in sections for r in section.values()]
    resolved += [r for s in plan.stages for r in (s.stage, s.trainer) if r is not None]
    return {CORE, *(r.distribution for r in resolved)}


def _optional(registry: Registry) -> dict[str, str]:
    """What classes require beyond what their distributions do: the package, and the distribution of the class."""
    found: dict[str, str] = {}
    for provider in (p for kind in KINDS for p in registry.providers(kind)):
        for text in provider.cls.requires:
            with suppress(InvalidRequirement):
                found.setdefault(canonicalize_name(Requirement(text).name), provider.distribution)
    return found


# --- plugins ----------------------------------------------------------------------------------------------------
def _plugins(registry: Registry) -> Iterator[Finding]:
    """Those that do not load, that clash, or whose classes lack what they require."""
    registry.load_all()
    for plugin in registry.plugins:
        for failure in plugin.failures:
            text = f"failed ({failure.where}: {failure.reason})"
            yield Finding(
                plugin.distribution, HealthReport(f"plugin {plugin.name}", "broken", text, failure.fix)
            )
    for kind in KINDS:
        provided = registry.providers(kind)
        for name in registry.names(kind):
            found = [p for p in provided if p.name == name]
            if len(found) > 1 and kind != "health-check":
                owners = " and by ".join(p.distribution for p in found)
                fix = f'in a recipe: use = "{found[0].distribution}/{name}"; or uninstall the other'
                report = HealthReport(f"{kind} {name}", "warning", f"is claimed by {owners}", fix)
                yield Finding(found[0].distribution, report)
            for provider in found:
                try:
                    check_requirements(provider.cls, f"{kind} '{name}'")
                except PluginError as error:  # a recipe that names it is refused
                    report = HealthReport(f"{kind} {name}", "warning", error.message, error.hint or "")
                    yield Finding(provider.distribution, report)
    count = len({p.distribution for p in registry.plugins})
    text = f"{count} distributions, {len(registry.plugins)} plugins"
    yield Finding(CORE, HealthReport("plugins", "good", text))


def _run(provider: Provider, context: HealthContext) -> Iterable[HealthReport]:
    """What one check says; where it fails, that."""
    cls = provider.cls
    assert issubclass(cls, HealthCheck)
    try:
        check_requirements(cls, f"health check '{cls.name}'")
        check = cls()
        check.distribution = provider.distribution
        done = run_plugin_on_each("health check", check, _Checked(check), [context], cls.timeout_s)
        answer: Any = asyncio.run(done)[0]
        if isinstance(answer, CortError):
            raise answer
        return list(answer)
    except PluginError as error:
        return [HealthReport(cls.name, "warning", error.message, error.hint or "")]
    except (Exception, SystemExit) as error:
        text, hint = (error.message, error.hint) if isinstance(error, CortError) else (repr(error), None)
        fix = hint or f"the fault is in the plugin {provider.distribution}"
        return [HealthReport(cls.name, "broken", text, fix)]


class _Checked:
    """The check's method, whose reports are looked at where its faults are attributed."""

    def __init__(self, check: HealthCheck) -> None:
        self._check = check

    def __call__(self, context: HealthContext) -> list[HealthReport]:
        reports = list(self._check.check(context))
        if wrong := [r for r in reports if not isinstance(r, HealthReport)]:
            raise TypeError(f"it has to give HealthReports, not {wrong[0]!r}")
        return reports


# --- versions ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Package:
    name: str
    version: str
    needs: tuple[Requirement, ...]
    """Without extras: who wants those says so itself, and then names what they add."""


class Packages:
    """What is installed, as far as its metadata says. Of two of one name, the first on the path is what is imported."""

    def __init__(self) -> None:
        self._by_name: dict[str, _Package] = {}
        self._twice: dict[str, str] = {}
        for distribution in distributions():
            metadata = distribution.metadata  # read once: reading it is what takes the time
            name, version = metadata["Name"], metadata["Version"]
            if name is None or version is None:  # it was left behind half removed
                continue
            package = _Package(name, version, tuple(_needs(metadata.get_all("Requires-Dist"))))
            if self._by_name.setdefault(canonicalize_name(name), package).version != package.version:
                self._twice[canonicalize_name(name)] = package.version

    def behind(self, names: Iterable[str]) -> set[str]:
        """These distributions and all that they require, however far."""
        found: set[str] = set()
        waiting = [canonicalize_name(name) for name in names]
        while waiting:
            if (name := waiting.pop()) not in found:
                found.add(name)
                needs = self._by_name[name].needs if name in self._by_name else ()
                waiting += [canonicalize_name(needed.name) for needed in needs]
        return found

    def disagreements(self, names: set[str], optional: Mapping[str, str] = {}) -> Iterator[Finding]:
        """What is behind the named distributions and is not met is broken. A warning is what is not met of ``optional``
        packages (for each, whose plugin may use it), other packages that want another version of one of all these, and two
        versions of one package. One line says how many agree where all do."""
        behind, quiet = self.behind(names), True
        beside = self.behind(optional) - behind
        owners: Mapping[str, set[str]] = {name: self.behind([name]) for name in names}
        for name, package in self._by_name.items():
            for needed in package.needs:
                wrong = self._unmet(needed)
                target = canonicalize_name(needed.name)
                there = target in self._by_name and target in behind | beside
                if wrong is None or not (name in behind | beside or there):
                    continue
                quiet = False
                title = f"{package.name} {package.version}"
                text = f"needs {needed.name}{needed.specifier}, but {wrong}"
                fix = f'pip install "{needed.name}{needed.specifier}"'
                if name in behind:
                    owner = min((o for o in names if name in owners[o]), key=lambda o: len(owners[o]))
                    yield Finding(owner, HealthReport(title, "broken", text, fix))
                elif name in beside:
                    owner = next(o for wanted, o in optional.items() if name in self.behind([wanted]))
                    yield Finding(owner, HealthReport(title, "warning", text, fix))
                else:
                    fix = f"pip install -U {package.name}, or pip uninstall it"
                    yield Finding(CORE, HealthReport(title, "warning", text, fix))
        for name in sorted((behind | beside) & set(self._twice)):
            quiet = False
            text = f"is there as {self._by_name[name].version}, which is used, and as {self._twice[name]}"
            yield Finding(CORE, HealthReport(name, "warning", text, f"pip install --force-reinstall {name}"))
        if quiet:
            text = f"{len((behind | beside) & set(self._by_name))} packages agree"
            yield Finding(CORE, HealthReport("versions", "good", text))

    def _unmet(self, needed: Requirement) -> str | None:
        found = self._by_name.get(canonicalize_name(needed.name))
        if found is None:
            return "it is not installed"
        try:
            agrees = needed.url is not None or needed.specifier.contains(found.version, prereleases=True)
        except InvalidVersion:
            agrees = False
        return None if agrees else f"{found.version} is installed"


def _needs(texts: Iterable[str] | None) -> Iterator[Requirement]:
    for text in texts or ():
        with suppress(InvalidRequirement):
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                yield needed
