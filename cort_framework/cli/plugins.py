"""``cort plugins``: what is installed, what failed and why, and a new one to start from."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import click

from cort_framework.cli.options import echo_json, echo_table, json_option
from cort_framework.cli.scaffold import SCAFFOLDS, write_plugin
from cort_framework.errors import PluginError
from cort_framework.recipe.tables import nearest
from cort_framework.registry import Registry, absent_because, default_registry
from cort_framework.registry.discovery import KINDS, Provider


@click.group()
def plugins() -> None:
    """List, show and write plugins."""


@plugins.command("list")
@click.option("--kind", type=click.Choice(list(KINDS)), help="Only this kind.")
@json_option
def list_plugins(kind: str | None, as_json: bool) -> None:
    """Everything that is installed, and what failed to load with the line that fixes it."""
    registry = default_registry()
    registry.load_all()
    kinds = [kind] if kind else list(KINDS)
    provided = [p for k in kinds for p in registry.providers(k)]
    clashes = _clashes(provided)
    failed = [
        {
            "plugin": plugin.name,
            "distribution": plugin.distribution,
            "version": plugin.release,
            "where": failure.where,
            "reason": failure.reason,
            "fix": failure.fix,
        }
        for plugin in registry.plugins
        for failure in plugin.failures
    ]
    if as_json:
        listed = [_record(p) | {"clash": (p.kind, p.name) in clashes} for p in provided]
        models = [{"name": n, "path": str(p)} for n, p in registry.models().items()]
        return echo_json({"plugins": listed, "models": models, "failed": failed})
    rows = [(p.kind, p.name, f"{p.distribution} {p.version}", _about(p.cls)) for p in provided]
    rows += [("model", name, str(path), "") for name, path in registry.models().items() if kind is None]
    echo_table(("kind", "name", "from", "about"), rows)
    for (clashing, name), owners in clashes.items():
        _warn(
            f"{clashing} '{name}' is claimed by {' and by '.join(owners)}",
            f'choose with use = "{owners[0]}/{name}"',
        )
    for f in failed:
        _warn(f"{f['distribution']} {f['version']} failed ({f['where']}: {f['reason']})", f["fix"])


@plugins.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """What the plugin class NAME, or each of a distribution's, is and takes in a recipe."""
    registry = default_registry()
    provided = [p for kind in KINDS for p in registry.providers(kind)]
    found = [p for p in provided if name in (p.name, p.distribution, f"{p.distribution}/{p.name}")]
    if not found:
        raise _nothing(registry, name, provided)
    if as_json:
        return echo_json([_record(p) | {"config": p.cls.Config.model_json_schema()} for p in found])
    for provider in found:
        click.secho(f"{provider.kind} {provider.name}", bold=True, nl=False)
        click.echo(f"  from {provider.distribution} {provider.version}")
        click.echo(inspect.cleandoc(provider.cls.__doc__ or "") + "\n")
        for key, info in provider.cls.Config.model_fields.items():
            default = "required" if info.is_required() else repr(info.get_default(call_default_factory=True))
            annotation = info.annotation
            kind = annotation.__name__ if isinstance(annotation, type) else str(annotation)
            click.echo(f"  {key} = {default}  ({kind.replace('typing.', '')})")
            if info.description:
                click.echo("      " + " ".join(info.description.split()))


@plugins.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(list(SCAFFOLDS)), required=True, help="What the plugin is.")
@click.option("--dir", "folder", type=click.Path(path_type=Path), default=".", help="Where its folder goes.")
def new(name: str, kind: str, folder: Path) -> None:
    """Write a small distribution NAME that passes its own tests: the plugin, ready to change."""
    written = write_plugin(name, kind, folder)
    for path in written:
        click.echo(path)
    root = written[0].parent
    click.echo(f'next: pip install -e "{root}" && pytest "{root}"', err=True)


def _record(provider: Provider) -> dict[str, Any]:
    return {
        "kind": provider.kind,
        "name": provider.name,
        "distribution": provider.distribution,
        "version": provider.version,
        "about": _about(provider.cls),
    }


def _about(cls: type) -> str:
    doc = inspect.cleandoc(vars(cls).get("__doc__") or "").partition("\n\n")[0]
    return " ".join(doc.split())


def _clashes(provided: list[Provider]) -> dict[tuple[str, str], list[str]]:
    owners: dict[tuple[str, str], list[str]] = {}
    for provider in provided:
        owners.setdefault((provider.kind, provider.name), []).append(provider.distribution)
    return {key: names for key, names in owners.items() if len(names) > 1}


def _nothing(registry: Registry, name: str, provided: list[Provider]) -> PluginError:
    text = f"no plugin is called {name!r}"
    for plugin in registry.plugins:
        if plugin.failures and name in (plugin.name, plugin.distribution):
            return absent_because(text, plugin, plugin.failures[0])
    return PluginError(
        f"{text}{nearest(name, sorted({p.name for p in provided}))}", "`cort plugins list` shows all"
    )


def _warn(message: str, fix: str) -> None:
    click.echo(f"{click.style('failed:', fg='yellow', bold=True)} {message}\n   fix: {fix}")
