"""``cort eval``: a model measured on the task sets of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from cort_framework.cli.options import echo_json, json_option, recipe_options
from cort_framework.cli.show import near, results_table, stdout
from cort_framework.cli.solve import find_recipe_of, recipe_of_model
from cort_framework.display import Display
from cort_framework.pipeline import run
from cort_framework.recipe import Recipe, load_recipe, make_plan
from cort_framework.settings import validated


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
    "--samples",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Samples a task: the k of avg@k.",
)
@click.option("--prompt", help="Another prompt template of the recipe: tool, natural.")
@click.option(
    "--tools", multiple=True, metavar="NAME", help="Only these tools of the recipe; `--tools none` for none."
)
@click.option("--hints", multiple=True, metavar="NAME", help="Hint injectors of the recipe to put to work.")
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
    samples: int,
    prompt: str | None,
    tools: Sequence[str],
    hints: Sequence[str],
    system: str,
    run_dir: Path | None,
    as_json: bool,
) -> None:
    """Measure a model: accuracy with its interval, tokens, calls and behaviour, each trajectory kept on disk."""
    loaded = load_recipe(find_recipe_of(model, recipe), profile, overrides)
    stage = {
        "name": "evaluate",
        "kind": "evaluate",
        "system": system,
        "tasks": list(tasks) or _evaluated(loaded),
        "samples": samples,
        "tools": [] if tuple(tools) == ("none",) else list(tools) or None,
        "hints": list(hints),
        "rollout": {"prompt": prompt} if prompt else {},
    }
    data = loaded.model_dump(mode="json")
    data |= {"name": f"{loaded.name}-eval", "model": model, "filters": {}, "stage": [stage]}
    report = run(make_plan(validated(Recipe, data)), run_dir, display=Display())
    if as_json:
        echo_json(report.results)
        return
    console = stdout()
    console.print(results_table(report.results))
    console.print(f"look closer: cort trace view {near(report.folder)}", soft_wrap=True)


def _evaluated(recipe: Recipe) -> list[str]:
    """The task sets that the recipe's own evaluations use, or else all."""
    stages = [s.model_extra or {} for s in recipe.stage if s.kind == "evaluate"]
    return list(dict.fromkeys(name for extra in stages for name in extra.get("tasks", ()))) or list(
        recipe.tasks
    )
