"""``cort doctor``: whether all works here, and what mends what does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from cort_framework.cli.options import echo_json, json_option, recipe_options
from cort_framework.doctor import Finding, examine
from cort_framework.errors import CortError, RequestError
from cort_framework.interfaces import HealthContext, HealthReport, HealthState
from cort_framework.recipe import load_recipe, make_plan
from cort_framework.registry import default_registry
from cort_framework.registry.discovery import CORE

COLOURS: Mapping[HealthState, str] = {"good": "green", "warning": "yellow", "broken": "red"}


@click.command()
@click.option("--recipe", metavar="RECIPE", help="Look at what this recipe needs, too.")
@recipe_options
@click.option("--run-dir", type=click.Path(file_okay=False, path_type=Path), help="Where the run will live.")
@json_option
def doctor(
    recipe: str | None, profile: str | None, overrides: Sequence[str], run_dir: Path | None, as_json: bool
) -> None:
    """Look whether what is installed works on this machine: versions, memory, disk, limits, isolation.

    The walls around tools are tried, not read off. Exit code 1 where something is broken.
    """
    if recipe is None and (profile or overrides):
        raise click.UsageError("--profile and --set go with --recipe")
    found: list[Finding] = []
    plan = None
    if recipe is not None:
        try:
            plan = make_plan(load_recipe(recipe, profile, overrides))
        except RequestError as error:
            found.append(Finding(CORE, HealthReport("recipe", "broken", error.message, error.hint or "")))
    folder = run_dir or (Path("runs") / plan.recipe.name if plan is not None else Path("runs"))
    shown = ""
    for finding in found:
        shown = _show(finding, shown, as_json)
    for finding in examine(HealthContext(folder, plan), default_registry()):
        found.append(finding)
        shown = _show(finding, shown, as_json)
    counts = Counter(finding.report.state for finding in found)
    if as_json:
        checks = [{"distribution": f.distribution, **asdict(f.report)} for f in found]
        echo_json({"counts": {state: counts[state] for state in COLOURS}, "checks": checks})
    else:
        click.echo("\n" + ", ".join(f"{counts[state]} {state}" for state in COLOURS))
    if broken := [finding.report.name for finding in found if finding.report.state == "broken"]:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise CortError(f"broken: {', '.join(broken[:3])}{more}", "each line above has its fix")


def _show(finding: Finding, last: str, as_json: bool) -> str:
    """As soon as it is known; a heading where another distribution begins."""
    if as_json:
        return last
    report = finding.report
    if finding.distribution != last:
        click.secho(("\n" if last else "") + finding.distribution, bold=True)
    click.echo(
        f"  {click.style(f'{report.state:8}', fg=COLOURS[report.state])} {report.name}: {report.detail}"
    )
    if report.fix:
        click.echo(f"  {'':8} fix: {report.fix}")
    return finding.distribution
