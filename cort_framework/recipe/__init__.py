"""A recipe: TOML -> profile -> ``--set`` -> checked settings (``settings``) -> a plan (``planner``).

Every fault is reported at once, each with its TOML path, its line and the nearest known key.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cort_framework.errors import RequestError
from cort_framework.recipe.plan import Plan, PlannedStage
from cort_framework.recipe.planner import make_plan, plan_problems
from cort_framework.recipe.settings import (
    PROMPTS,
    Recipe,
    RewardTable,
    RolloutSettings,
    StageTable,
    TaskTable,
    validated,
)
from cort_framework.recipe.tables import (
    Key,
    Problem,
    Source,
    Table,
    explain,
    merge,
    nearest,
    parse_override,
    read_toml,
    refuse,
)

__all__ = [
    "PROMPTS",
    "Plan",
    "PlannedStage",
    "Recipe",
    "RewardTable",
    "RolloutSettings",
    "StageTable",
    "TaskTable",
    "find_recipe",
    "load_recipe",
    "make_plan",
    "shipped_recipes",
]

_CORE = Path(__file__).parent.parent
RECIPE_FOLDERS = (_CORE / "recipes", _CORE.parent / "recipes")
"""In a wheel, and in a checkout."""


def find_recipe(name_or_path: str | Path) -> Path:
    """A recipe's file, by path or by the name of one that ships with the framework. Raises ``RequestError``."""
    path = Path(name_or_path).expanduser()
    shipped = shipped_recipes()
    name = path.name.removesuffix(".toml")
    if str(name_or_path) in (name, path.name) and name in shipped and not os.path.isfile(path):
        return shipped[name]
    if os.path.exists(path):
        return path
    if name in shipped:
        raise RequestError(
            f"there is no file {path}", f"the recipe {name} ships with the framework: use its name alone"
        )
    raise RequestError(
        f"there is no recipe {name_or_path}{nearest(name, sorted(shipped))}", "give a path or a name"
    )


def shipped_recipes() -> dict[str, Path]:
    """Name and file of each recipe that ships with the framework."""
    folder = next((f for f in RECIPE_FOLDERS if f.is_dir()), None)
    return {p.stem: p for p in sorted(folder.glob("*.toml"))} if folder else {}


def load_recipe(
    name_or_path: str | Path, profile: str | None = None, overrides: Sequence[str] = ()
) -> Recipe:
    """Reads a recipe, puts a profile and ``--set`` overrides (``"stage.rl.options.lr=5e-7"``) over it, and checks it.

    Raises ``RequestError`` (no such file, not text, not TOML) and ``RecipeError`` with all faults at once.
    """
    path = find_recipe(name_or_path)
    text, data = read_toml(path)
    profiles = data.pop("profile", {})
    if not isinstance(profiles, dict) or not all(isinstance(table, dict) for table in profiles.values()):
        raise RequestError(f"{path}: `profile` holds tables: [profile.NAME]")
    source = Source(path, text, profile)
    problems: list[Problem] = []
    stages = _stages_by_name(data)
    source.stages = list(stages)
    if profile is not None:
        if profile not in profiles:
            raise RequestError(f"{path} has no profile {profile!r}{nearest(profile, list(profiles))}")
        source.profile_table = profiles[profile]
        rest, named = _split_stages(source.profile_table, f"{path}: [profile.{profile}.stage]")
        problems += _unknown_stages(named, stages, ("profile", profile, "stage"))
        data = merge(data, rest)
        stages = {name: merge(table, named.get(name, {})) for name, table in stages.items()}
    for argument in overrides:
        keys, value = parse_override(argument)
        for part in reversed(keys):
            value = {part: value}
        rest, named = _split_stages(value, f"--set {argument}")
        data = merge(data, rest)
        stages = {name: merge(table, named.get(name, {})) for name, table in stages.items()}
        place: Key = tuple(keys)
        if named:
            problems += _unknown_stages(named, stages, ("stage",))
            known = keys[1] in stages
            place = ("stage", source.stages.index(keys[1]), *keys[2:]) if known else ("stage", keys[1])
        source.overrides[place] = argument
    if stages:
        data["stage"] = list(stages.values())
    return _checked(data, source, problems)


# --- loading, in parts ------------------------------------------------------------------------------------------
def _checked(data: Table, source: Source, problems: list[Problem]) -> Recipe:
    try:
        recipe = validated(Recipe, data)
    except ValidationError as error:
        faults = explain(error, Recipe, data)
        problems += faults + _problems_beyond(data, faults)
    if problems:
        raise refuse(source, problems)
    recipe._source = source
    return recipe


def _problems_beyond(data: Table, problems: Sequence[Problem]) -> list[Problem]:
    """What else is wrong: the faulty keys are taken out and the rest is planned."""
    rest = deepcopy(data)
    for problem in problems:
        *parents, last = problem.key or ("",)
        table: Any = rest
        for part in parents:
            table = table[part]
        if not isinstance(table, dict) or isinstance(table.get(last, {}), dict):
            return []  # a whole table is faulty: what lies behind it cannot be judged
        del table[last]
    try:
        recipe = validated(Recipe, rest)
    except ValidationError:
        return []
    return plan_problems(recipe)


def _stages_by_name(data: Table) -> dict[str, Table]:
    """Taken out of ``data``; left in it, to be complained of, where they are not tables with names of their own."""
    stages = data.get("stage")
    if not isinstance(stages, list) or not all(
        isinstance(s, dict) and isinstance(s.get("name"), str) for s in stages
    ):
        return {}
    named = {s["name"]: s for s in stages}
    if len(named) < len(stages):
        return {}
    del data["stage"]
    return named


def _split_stages(layer: Mapping[str, Any], where: str) -> tuple[Table, dict[str, Table]]:
    """What a profile or ``--set`` says of the recipe, and of each stage by its name."""
    named = layer.get("stage", {})
    if not isinstance(named, dict) or not all(isinstance(table, dict) for table in named.values()):
        raise RequestError(f"{where}: a stage's keys are addressed by its name: stage.NAME.KEY")
    return {key: value for key, value in layer.items() if key != "stage"}, named


def _unknown_stages(named: Mapping[str, Table], stages: Mapping[str, Table], at: Key) -> list[Problem]:
    return [
        Problem((*at, name), f"no stage is called {name!r}{nearest(name, list(stages))}")
        for name in named
        if name not in stages
    ]
