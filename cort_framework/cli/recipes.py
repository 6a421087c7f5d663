"""``cort recipes``: what there is, what it says, and whether it is right."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

import click

from cort_framework.cli.options import echo_json, echo_table, json_option, recipe_options
from cort_framework.errors import RequestError
from cort_framework.recipe import Recipe, find_recipe, load_recipe, make_plan, shipped_recipes
from cort_framework.recipe.tables import read_toml


@click.group()
def recipes() -> None:
    """List, show and check recipes."""


@recipes.command("list")
@json_option
def list_recipes(as_json: bool) -> None:
    """Recipes that ship with the framework; run one by its name."""
    records: list[dict[str, Any]] = []
    for name, path in shipped_recipes().items():
        text, data = read_toml(path)
        records.append(
            {
                "name": name,
                "stages": [s.get("name") for s in data.get("stage", [])],
                "profiles": list(data.get("profile", {})),
                "about": _about(text),
                "path": str(path),
            }
        )
    if as_json:
        return echo_json(records)
    rows = [(r["name"], str(len(r["stages"])), " ".join(r["profiles"]) or "-", r["about"]) for r in records]
    echo_table(("name", "stages", "profiles", "about"), rows)


@recipes.command()
@click.argument("recipe")
@recipe_options
@json_option
def show(recipe: str, profile: str | None, overrides: Sequence[str], as_json: bool) -> None:
    """RECIPE as it stands once the profile and --set are applied."""
    loaded = load_recipe(recipe, profile, overrides)
    if as_json:
        echo_json(loaded.model_dump(mode="json"))
    else:
        click.echo(loaded.to_toml(), nl=False)


@recipes.command()
@click.argument("recipe", nargs=-1, required=True)
@recipe_options
def validate(recipe: Sequence[str], profile: str | None, overrides: Sequence[str]) -> int:
    """Check each RECIPE against what is installed; nothing is run.

    Its profiles are checked for their form; --profile checks one against what is installed too.
    """
    wrong = 0
    for name in recipe:
        try:
            plan = make_plan(load_recipe(name, profile, overrides))
            path = find_recipe(name)
            if profile is None:
                for other in tomllib.loads(path.read_text(encoding="utf-8-sig")).get("profile", {}):
                    load_recipe(name, other, overrides)
            click.echo(f"{path}: good, {len(plan.stages)} stages: {' '.join(s.name for s in plan.stages)}")
        except RequestError as error:
            wrong += 1
            click.echo(f"{click.style('error:', fg='red', bold=True)} {error}", err=True)
    return 2 if wrong else 0


@recipes.command()
def schema() -> None:
    """The recipe format as JSON schema, for editors."""
    echo_json(Recipe.model_json_schema())


def _about(text: str) -> str:
    """What the first line of the comment at the top of the file says."""
    first = next(iter(text.splitlines()), "")
    return first.lstrip("# ").removeprefix("What:").strip() if first.startswith("#") else ""
