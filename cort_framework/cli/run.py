"""``cort run``: a recipe from its first stage to the closing table."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console, Group
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from cort_framework.cli.options import recipe_options
from cort_framework.cli.show import coloured, header, legend, near, number, results_table, stdout, table
from cort_framework.display import Display
from cort_framework.evaluation import is_right
from cort_framework.pipeline import RunReport
from cort_framework.pipeline import run as run_plan
from cort_framework.recipe import Plan, PlannedStage, load_recipe, make_plan
from cort_framework.store import read_trajectories
from cort_framework.types import Trajectory

EXAMPLE = "What is 27 x 43?"
LONGEST_EXAMPLE = 200
"""Characters: a longer problem is no command to try."""


@click.command()
@click.argument("recipe")
@recipe_options
@click.option("--dry-run", is_flag=True, help="Show what would run; nothing is started.")
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
    from_stage: str | None,
    run_dir: Path | None,
) -> None:
    """Run RECIPE, a path or the name of one that ships with the framework.

    What is done already is not done again: the same command goes on where a run was stopped.
    """
    plan = make_plan(load_recipe(recipe, profile, overrides))
    if dry_run:
        stdout().print(plan_summary(plan, run_dir))
        return
    display = Display()
    try:
        report = run_plan(plan, run_dir, from_stage=from_stage, display=display)
    except KeyboardInterrupt:
        display.note("stopped; what was made so far is kept, and the same command goes on from there")
        raise
    show_report(report, stdout())


# --- before -----------------------------------------------------------------------------------------------------
def plan_summary(plan: Plan, run_dir: Path | None = None) -> Group:
    """The plan as tables: task sets, then stages with their models, data and rollout settings."""
    sets = [
        (name, f"{r.cls.name} ({r.distribution})", number(_size(plan, name)))
        for name, r in plan.tasks.items()
    ]
    stages = [(s.name, s.stage.cls.name, _start(plan, s), _data(s), _rollouts(s)) for s in plan.stages]
    return Group(
        Text(
            f"{plan.recipe.name}, seed {plan.recipe.seed}, in {run_dir or Path('runs') / plan.recipe.name}",
            "bold",
        ),
        table(("task set", "source", "tasks"), sets, names=2),
        table(("stage", "kind", "starts from", "data", "rollouts"), stages, names=5),
    )


def _size(plan: Plan, name: str) -> int:
    return sum(1 for _ in plan.tasks[name].build().tasks())


def _start(plan: Plan, stage: PlannedStage) -> str:
    if stage.model_from is not None:
        return f"stage {stage.model_from}"
    return near(Path(stage.model)) if stage.model else "nothing"


def _data(stage: PlannedStage) -> str:
    parts = (
        f"{section} {', '.join(stage.uses.get(section) or ())}"
        for section in ("tasks", "data", "hints", "filters")
    )
    return "; ".join(part for part in parts if not part.endswith(" "))


def _rollouts(stage: PlannedStage) -> str:
    if not stage.uses.get("tasks"):
        return "none"
    s = stage.rollout
    samples = getattr(stage.stage.config, "samples", None)
    tools = "".join(f", tool {name}" for name in stage.uses.get("tools", ()))
    return (
        f"{stage.engine.key} on {s.executor}, prompt {s.prompt}{tools}, temperature {s.temperature:g}, top-p {s.top_p:g}, "
        f"{s.max_tokens} tokens, {s.max_tool_calls} calls"
        + (f", {samples} a task" if samples is not None else "")
    )


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
            found = [t for t in read_trajectories(stage.result.trajectories) if t.calls and is_right(t)]
            if found:
                return min(
                    found,
                    key=lambda t: (any(c.result and c.result.error for c in t.calls), t.response_tokens),
                )
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
