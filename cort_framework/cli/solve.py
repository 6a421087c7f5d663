"""``cort solve``: one problem, live, with the tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from cort_framework.cli.options import recipe_options, system_options
from cort_framework.cli.show import STYLES, stdout, visible
from cort_framework.cli.trace import token_table
from cort_framework.errors import CortError, PluginError, RequestError
from cort_framework.evaluation import last_boxed
from cort_framework.executor import open_tools
from cort_framework.interfaces import HintInjector, RolloutRequest
from cort_framework.recipe import Plan, Recipe, load_recipe, make_plan
from cort_framework.recipe.settings import validated
from cort_framework.recipe.tables import nearest
from cort_framework.registry import default_registry
from cort_framework.rollout import RolloutSetup, rollout
from cort_framework.runtime import Runtime
from cort_framework.types import Task, Trajectory, Weights

LOOK_EVERY = 8
"""Tokens between two looks at the growing trajectory, where no hint injector decides that."""


DEFAULT_RECIPE = "cort_math"


def recipe_of_model(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--recipe``: as ``recipe``, for ``find_recipe_of``."""
    text = f"Where engine, tools and settings come from; that of the run that made the model, or {DEFAULT_RECIPE}."
    return click.option("--recipe", help=text)(command)


def find_recipe_of(model: str | None, recipe: str | None) -> str:
    """The recipe that was asked for, or that of the run whose stage made the checkpoint, or the default."""
    if recipe is not None:
        return recipe
    own = Path(model or "").expanduser().resolve().parent.parent / "recipe.toml"
    return str(own) if model and own.is_file() else DEFAULT_RECIPE


@click.command()
@click.argument("problem")
@click.option("--model", help="A checkpoint folder, a hub id or a model's name; the recipe's own by default.")
@recipe_of_model
@recipe_options
@click.option("--engine", help="Another engine.")
@system_options
@click.option("--temperature", type=float, help="0 takes the likeliest token.")
@click.option("--max-tokens", type=int, help="Response tokens at most.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--raw", is_flag=True, help="Show the tokens afterwards: id, text, author, mask, log-probability."
)
def solve(
    problem: str,
    model: str | None,
    recipe: str | None,
    profile: str | None,
    overrides: Sequence[str],
    engine: str | None,
    prompt: str | None,
    tools: Sequence[str],
    hints: Sequence[str],
    temperature: float | None,
    max_tokens: int | None,
    seed: int,
    raw: bool,
) -> None:
    """Solve PROBLEM while you watch: prompt, model, tool and hint each in a colour of its own."""
    changes = {"engine": engine, "prompt": prompt, "temperature": temperature, "max_tokens": max_tokens}
    settings = {name: value for name, value in changes.items() if value is not None}
    plan = solving_plan(
        load_recipe(find_recipe_of(model, recipe), profile, overrides), model, settings, tools, hints
    )
    console = stdout()
    live = Live(console)
    with Runtime(plan.recipe.seed, plan.recipe.deterministic, _preload(plan)) as runtime:
        stage = plan.stages[0]
        click.echo(f"loading {stage.model}", err=True)
        opened = runtime.engine(stage.engine, Weights(stage.model))
        setup = RolloutSetup(
            opened,
            open_tools((plan.tools[name] for name in stage.uses["tools"]), stage.rollout, runtime),
            stage.rollout,
            plan.recipe.prompts[stage.rollout.prompt],
            seed,
            [runtime.plugin(plan.hints[name], HintInjector) for name in stage.uses["hints"]],
            observe=live.show,
        )
        request = RolloutRequest(Task("solve", problem))
        final = runtime.call(rollout(request, setup), stage.rollout.batch_timeout_s, "the rollout")[-1]
        live.show(final)
        console.print()
        if raw:
            console.print(token_table(final, opened.tokenizer))
    if final.error is not None:
        raise CortError(final.error, "the text above is what there was until then")
    answer = last_boxed(final.final_text)
    if answer is None:
        answer = f"none; it ended by {final.stop_reason}"
    console.print(Text.assemble("answer: ", (visible(answer), "bold")), soft_wrap=True)
    click.echo(f"{final.response_tokens} tokens, {len(final.calls)} calls, {final.seconds:.1f} s", err=True)


def hints_named(recipe: Recipe, names: Sequence[str]) -> list[str]:
    """Keys of the recipe's hint injectors. The name of a plugin, `hint-engineering`, stands for all that it gives the recipe.

    Raises ``RequestError``.
    """
    givers: dict[str, list[str]] = {}
    for key, table in recipe.hints.items():
        with suppress(PluginError):  # a plan complains of it
            provider = default_registry().resolve("hint-injector", str(table.get("use", key)))
            givers.setdefault(provider.distribution.removeprefix("cort-"), []).append(key)
    found: list[str] = []
    for name in names:
        keys = [name] if name in recipe.hints else givers.get(name.removeprefix("cort-"), [])
        if not keys:
            known = [*recipe.hints, *givers]
            raise RequestError(
                f"the recipe has no hint {name!r}{nearest(name, known)}",
                None if known else "give it [hints] tables",
            )
        found += keys
    return list(dict.fromkeys(found))


def solving_plan(
    recipe: Recipe, model: str | None, settings: dict[str, Any], tools: Sequence[str], hints: Sequence[str]
) -> Plan:
    """The recipe with one evaluation in place of its stages. Raises ``RequestError``."""
    data = recipe.model_dump(mode="json")
    known = list(recipe.rollout.tools)
    chosen = [] if tools == ("none",) else list(tools) or known
    for name in chosen:
        if name not in known:
            raise RequestError(f"the recipe has no tool {name!r}{nearest(name, known)}")
    hints = hints_named(recipe, hints)
    if not recipe.tasks:
        raise RequestError("the recipe has no task set", "name a recipe with [tasks] tables")
    task_set = next(iter(recipe.tasks))
    data["rollout"] |= settings if hints else {**settings, "check_every": LOOK_EVERY}
    data["rollout"]["tools"] = {name: data["rollout"]["tools"][name] for name in chosen}
    data["hints"] = {name: data["hints"][name] for name in hints}
    data |= {"filters": {}, "rewards": {}, "tasks": {task_set: data["tasks"][task_set]}}
    data["stage"] = [
        {
            "name": "solve",
            "kind": "evaluate",
            "system": "solve",
            "tasks": [task_set],
            "tools": chosen,
            "hints": list(hints),
        }
    ]
    if model is not None:
        data["model"] = model
    return make_plan(validated(Recipe, data))


def _preload(plan: Plan) -> tuple[str, ...]:
    return tuple(dict.fromkeys(m for tool in plan.tools.values() for m in tool.cls.preload))


class Live:
    """Prints what a growing trajectory has gained since the last look."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._id: str | None = None
        self._turns: list[int] = []
        """Characters of each turn that are on the screen."""

    def show(self, trajectory: Trajectory) -> None:
        if self._id is not None and trajectory.id != self._id:
            note = f"\n[cut back: {trajectory.discarded_tokens} tokens discarded]\n"
            self._console.print(Text(note, "dim"), end="")
            kept = trajectory.turns[:-1] if trajectory.turns[-1].author == "hint" else trajectory.turns
            self._turns = [len(turn.text) for turn in kept]
        self._id = trajectory.id
        self._turns += [0] * (len(trajectory.turns) - len(self._turns))
        for position, turn in enumerate(trajectory.turns):
            fresh = turn.text[self._turns[position] :]
            if fresh:
                self._console.print(Text(visible(fresh), STYLES[turn.author]), end="", soft_wrap=True)
                self._turns[position] = len(turn.text)
