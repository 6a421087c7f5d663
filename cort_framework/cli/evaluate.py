"""``cort eval``: a model measured on the task sets of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from cort_framework.cli.compare import difference_table, differences
from cort_framework.cli.options import echo_json, json_option, recipe_options, system_options
from cort_framework.cli.show import near, results_table, stdout
from cort_framework.cli.solve import find_recipe_of, hints_named, recipe_of_model
from cort_framework.display import Display
from cort_framework.errors import RequestError
from cort_framework.pipeline import run
from cort_framework.recipe import Recipe, load_recipe, make_plan
from cort_framework.recipe.settings import validated
from cort_framework.recipe.tables import nearest

BENCHMARKS = "benchmarks"
"""The recipe that says how benchmarks are evaluated, where no other is named."""


@click.command("eval")
@click.option("--model", required=True, help="A checkpoint folder, a hub id or a model's name.")
@recipe_of_model
@recipe_options
@click.option(
    "--tasks",
    multiple=True,
    metavar="NAME",
    help="A task set of the recipe; all that it evaluates on by default.",
)
@click.option(
    "--benchmark",
    "benchmarks",
    metavar="NAMES",
    help=f"Task sets as the recipe evaluates them, by commas: aime24,math500. Of the recipe '{BENCHMARKS}' by default.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    help="Samples a task, the k of avg@k; 1 by default, and what the recipe says for a benchmark.",
)
@system_options
@click.option("--beside", is_flag=True, help="With --hints: also without them, and the difference.")
@click.option(
    "--system", default="model", show_default=True, help="What the system is called in the results."
)
@click.option(
    "--run-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where it is kept; runs/<name>-eval by default.",
)
@json_option
def evaluate(
    model: str,
    recipe: str | None,
    profile: str | None,
    overrides: Sequence[str],
    tasks: Sequence[str],
    benchmarks: str | None,
    samples: int | None,
    prompt: str | None,
    tools: Sequence[str],
    hints: Sequence[str],
    beside: bool,
    system: str,
    run_dir: Path | None,
    as_json: bool,
) -> None:
    """Measure a model: accuracy with its interval, tokens, calls and behaviour, each trajectory kept on disk."""
    if benchmarks and tasks:
        raise RequestError("--benchmark and --tasks both name task sets", "use one of them")
    if beside and not hints:
        raise RequestError("--beside compares a model with and without hints", "name them with --hints")
    found = recipe or BENCHMARKS if benchmarks else find_recipe_of(model, recipe)
    loaded = load_recipe(found, profile, overrides)
    stages: list[dict[str, Any]] = (
        _as_benchmarks(loaded, [name.strip() for name in benchmarks.split(",") if name.strip()])
        if benchmarks
        else [{"name": "evaluate", "kind": "evaluate", "tasks": list(tasks) or _evaluated(loaded)}]
    )
    keys = hints_named(loaded, hints)
    for stage in stages:
        stage |= {"system": system, "hints": keys}
        stage |= {"tools": [] if tuple(tools) == ("none",) else list(tools)} if tools else {}
        stage |= {"samples": samples} if samples else {}
        stage["rollout"] = stage.get("rollout", {}) | ({"prompt": prompt} if prompt else {})
    if beside:
        without = [{**stage, "name": f"{stage['name']}-without", "hints": []} for stage in stages]
        stages = [*without, *({**stage, "system": f"{system} with hints"} for stage in stages)]
    data = loaded.model_dump(mode="json")
    data |= {"name": f"{loaded.name}-eval", "model": model, "filters": {}, "stage": stages}
    report = run(make_plan(validated(Recipe, data)), run_dir, display=Display())
    if as_json:
        echo_json(report.results)
        return
    console = stdout()
    console.print(results_table(report.results))
    if beside:
        console.print(difference_table(differences([report.folder], system)))
        console.print("with hints minus without: mean, and its 95 % interval over tasks", soft_wrap=True)
    console.print(f"look closer: cort trace view {near(report.folder)}", soft_wrap=True)


def _as_benchmarks(recipe: Recipe, names: Sequence[str]) -> list[dict[str, Any]]:
    """The recipe's evaluations of these task sets, with the samples and budgets that it gives each."""
    stages, open_names = [], list(dict.fromkeys(names))
    for table in (
        s.model_dump(mode="json", exclude_unset=True) for s in recipe.stage if s.kind == "evaluate"
    ):
        chosen = [name for name in table["tasks"] if name in open_names]
        open_names = [name for name in open_names if name not in chosen]
        if chosen:
            stages.append(table | {"tasks": chosen})
    if open_names:
        known = _evaluated(recipe)
        raise RequestError(
            f"the recipe '{recipe.name}' evaluates no task set {open_names[0]!r}{nearest(open_names[0], known)}",
            f"it evaluates {', '.join(known)}",
        )
    return stages


def _evaluated(recipe: Recipe) -> list[str]:
    """The task sets that the recipe's own evaluations use, or else all."""
    stages = [s.model_extra or {} for s in recipe.stage if s.kind == "evaluate"]
    return list(dict.fromkeys(name for extra in stages for name in extra.get("tasks", ()))) or list(
        recipe.tasks
    )
