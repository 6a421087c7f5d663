"""``cort run``: a recipe from its first stage to the closing table."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console, Group
from rich.markup import escape
from rich.rule import Rule
from rich.table import Table

from cort_framework.cli.options import echo_json, json_option, recipe_options
from cort_framework.cli.plan import show_plan
from cort_framework.cli.show import coloured, header, legend, near, number, results_table, stdout, table
from cort_framework.display import Display
from cort_framework.evaluation import is_right
from cort_framework.pipeline import RunReport, run_folder
from cort_framework.pipeline import run as run_plan
from cort_framework.recipe import Plan, load_recipe, make_plan
from cort_framework.runs.keys import standings
from cort_framework.store import read_trajectories
from cort_framework.types import Trajectory

EXAMPLE = "What is 27 x 43?"
LONGEST_EXAMPLE = 200
REASONS = 6
"""Of a stage, that are shown."""
"""Characters: a longer problem is no command to try."""


@click.command()
@click.argument("recipe")
@recipe_options
@click.option(
    "--dry-run", is_flag=True, help="Show what would run and what it would take; nothing is started."
)
@click.option(
    "--gpu-gib",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="With --dry-run: plan for a GPU of N GiB, whatever is here.",
)
@click.option(
    "--explain-cache",
    is_flag=True,
    help="Show which stages are done, which would run again and why; nothing is started.",
)
@json_option
@click.option("--from", "from_stage", metavar="STAGE", help="Run this stage and all after it again.")
@click.option(
    "--run-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the run lives; runs/<name> by default.",
)
def run(
    recipe: str,
    profile: str | None,
    overrides: Sequence[str],
    dry_run: bool,
    gpu_gib: float | None,
    explain_cache: bool,
    as_json: bool,
    from_stage: str | None,
    run_dir: Path | None,
) -> None:
    """Run RECIPE, a path or the name of one that ships with the framework.

    What is done already is not done again: the same command goes on where a run was stopped.
    """
    plan = make_plan(load_recipe(recipe, profile, overrides))
    if dry_run:
        return show_plan(plan, run_dir, gpu_gib, as_json)
    if explain_cache:
        return show_standings(plan, run_dir, from_stage, as_json)
    if as_json or gpu_gib is not None:
        raise click.UsageError("--json goes with --dry-run or --explain-cache, --gpu-gib with --dry-run")
    display = Display()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # as a scheduler ends a job
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a script has started it in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        report = run_plan(plan, run_dir, from_stage=from_stage, display=display)
    except KeyboardInterrupt:
        again = go_on_command(recipe, profile, overrides, run_dir)
        display.note(escape(f"stopped; what was made so far is kept. To go on from there: {again}"))
        raise
    show_report(report, stdout())


def go_on_command(recipe: str, profile: str | None, overrides: Sequence[str], run_dir: Path | None) -> str:
    """Without ``--from``, which would make again what was made since."""
    options = ["--profile", profile] if profile else []
    options += [part for override in overrides for part in ("--set", override)]
    options += ["--run-dir", str(run_dir)] if run_dir else []
    return shlex.join(["cort", "run", recipe, *options])


def show_standings(plan: Plan, run_dir: Path | None, from_stage: str | None, as_json: bool) -> None:
    """What a run would do with each stage, and why."""
    found = standings(plan, run_folder(plan, run_dir), from_stage)
    if as_json:
        return echo_json([asdict(standing) for standing in found])
    rows = [
        (s.stage, s.state, "\n".join([*s.because[:REASONS], *(["…"] if s.because[REASONS:] else [])]))
        for s in found
    ]
    stdout().print(table(("stage", "", "because"), rows, names=3))


# --- after ------------------------------------------------------------------------------------------------------
def show_report(report: RunReport, console: Console) -> None:
    """One sample trajectory, the closing tables, where the checkpoint is and what to try next."""
    sample = good_sample(report)
    if sample is not None:
        console.print(Group(Rule("one trajectory", style="dim"), header(sample), legend()))
        console.print(coloured(sample), soft_wrap=True)
        console.print(Rule(style="dim"))
    if report.results:
        console.print(results_table(report.results))
    console.print(stage_table(report))
    console.print(f"results: {near(report.folder / 'results.json')}")
    if report.checkpoint is not None:
        console.print(f"checkpoint: {near(report.checkpoint)}")
    console.print(f"look closer: cort trace view {shlex.quote(near(report.folder))}", soft_wrap=True)
    if report.checkpoint is not None:
        console.print(f"try: {solve_command(report, sample)}", soft_wrap=True)


def good_sample(report: RunReport) -> Trajectory | None:
    """The shortest right trajectory with a tool call that worked, of the last evaluation that has one."""
    for stage in reversed(report.stages):
        if stage.result.report and stage.result.trajectories is not None:
            trajectories = read_trajectories(stage.result.trajectories, logprobs=False)
            best = min(
                (t for t in trajectories if t.calls and is_right(t)),
                key=lambda t: (any(c.result and c.result.error for c in t.calls), t.response_tokens),
                default=None,
            )
            if best is not None:
                return best
    return None


def stage_table(report: RunReport) -> Table:
    """Seconds, tokens and the other figures of each stage."""
    rows = []
    for stage in report.stages:
        summary = dict(stage.result.summary)
        tokens = summary.pop("tokens", None)
        rest = ", ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in summary.items()
        )
        seconds = f"{stage.seconds:.1f}" + (" (before)" if stage.cached else "")
        rows.append((stage.name, stage.kind, rest, seconds, number(tokens)))
    total = sum(stage.seconds for stage in report.stages)
    rows.append(
        (
            "total",
            "",
            "",
            f"{total:.1f}",
            number(sum(s.result.summary.get("tokens", 0) for s in report.stages)),
        )
    )
    return table(("stage", "kind", "figures", "seconds", "tokens"), rows, names=3)


def solve_command(report: RunReport, sample: Trajectory | None) -> str:
    """The command that answers one problem with the run's last checkpoint."""
    assert report.checkpoint is not None
    problem = sample.task.prompt if sample is not None else EXAMPLE
    if len(problem) > LONGEST_EXAMPLE or "\n" in problem:
        problem = EXAMPLE
    return shlex.join(["cort", "solve", "--model", near(report.checkpoint), problem])
