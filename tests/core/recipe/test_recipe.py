"""What a good recipe becomes: layered, resolved, planned."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from small_world import GOOD, Silent

import cort_framework as cort
from cort_framework.errors import RecipeError, RequestError
from cort_framework.recipe import Plan, find_recipe, load_recipe, make_plan
from cort_framework.registry import Registry

RECIPES = sorted((Path(__file__).parents[3] / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_in_the_repository_loads_with_each_of_its_profiles(path: Path) -> None:
    for profile in [None, *tomllib.loads(path.read_text()).get("profile", {})]:
        load_recipe(path, profile)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_says_what_it_is_on_what_it_runs_and_what_to_expect_and_has_its_row(path: Path) -> None:
    text = path.read_text()
    assert [line.split()[1] for line in text.splitlines()[:3]] == ["What:", "Hardware:", "Expected:"]
    (row,) = [
        line for line in (path.parent / "README.md").read_text().splitlines() if f"({path.name})" in line
    ]
    assert [name.strip("`") for name in row.split("|")[3].split()] == sorted(
        tomllib.loads(text).get("profile", {}), key=row.index
    )


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_in_the_repository_has_a_plan_with_what_is_installed(path: Path) -> None:
    assert make_plan(load_recipe(path), Registry()).stages


def test_the_plan_says_what_each_stage_runs_with(write: Any) -> None:
    plan = make_plan(load_recipe(write(GOOD)))
    first, look = plan.stages
    assert first.trainer is not None and first.trainer.config.lr == 2e-5
    assert (first.model, first.model_from) == ("owner/model", None)
    assert (look.model, look.model_from) == (None, "first")
    assert first.rollout.temperature == 0.6 and look.rollout.temperature == 0
    assert look.rollout.max_tokens == 100
    assert first.uses == {"tasks": ("train",), "tools": ("pen",), "rewards": ("right",), "data": ()}
    assert look.uses == {"tasks": ("train",)}
    assert plan.rewards["right"].config.limits == (1, 2)
    assert plan.weights == {"right": 0.5}
    assert look.table["prompt"].endswith("within \\boxed{}.")
    assert json.loads(plan.to_json())["stages"][0]["stage"]["use"] == "small_world/learn"


def test_a_profile_and_set_change_only_what_they_name(write: Any) -> None:
    recipe = load_recipe(
        write(GOOD), "big", ["stage.first.options.lr=5e-7", "stage.look.kind=learn", "seed=3"]
    )
    assert recipe.stage[0].options == {"lr": 5e-7, "epochs": 3}
    assert recipe.stage[1].kind == "learn"
    assert (recipe.seed, recipe.model, recipe.rollout.max_tokens) == (3, "owner/big", 4000)
    assert recipe.rollout.engine == "silent"


def test_a_stage_that_is_skipped_is_not_there_until_a_profile_puts_it_back(write: Any) -> None:
    text = GOOD.replace('name = "first"', 'name = "first"\nskip = true')
    path = write(text + "skip = false\n")
    (look,) = make_plan(load_recipe(path)).stages
    assert (look.name, look.model, look.model_from) == ("look", "owner/model", None)
    first, look = make_plan(load_recipe(path, "big")).stages
    assert (first.name, look.model_from) == ("first", "first")
    with pytest.raises(RecipeError, match="every stage is skipped"):
        make_plan(load_recipe(path, overrides=["stage.look.skip=true"]))
    with pytest.raises(RecipeError, match="the stage of this name is skipped"):
        make_plan(load_recipe(path, overrides=["stage.look.model=first"]))


def test_toml_and_python_objects_make_equal_recipes_and_equal_plans(write: Any) -> None:
    made = cort.Recipe(
        name="small",
        model="owner/model",
        tasks={"train": {"source": "numbers", "size": 5}},
        rollout={"engine": "silent", "max_tokens": 100, "tools": {"pen": {}}},
        rewards={"right": {"use": "prize", "weight": 0.5, "limits": [1, 2]}},
        stage=[
            {
                "name": "first",
                "kind": "learn",
                "tasks": "train",
                "rewards": ["right"],
                "options": {"lr": 2e-5},
            },
            {
                "name": "look",
                "kind": "measure",
                "tasks": {"small": "train"},
                "rollout": {"temperature": 0, "prompt": "natural"},
            },
        ],
    )
    read = load_recipe(write(GOOD))
    assert made == read
    assert make_plan(made).to_json() == make_plan(read).to_json()
    assert [s.table for s in make_plan(made).stages] == [s.table for s in make_plan(read).stages]


def test_a_recipe_written_out_loads_to_an_equal_one(write: Any) -> None:
    for profile in (None, "big"):
        recipe = load_recipe(write(GOOD), profile)
        assert load_recipe(write(recipe.to_toml())) == recipe


def test_a_stage_table_changes_with_what_decides_its_result_and_with_nothing_else(write: Any) -> None:
    def tables(*overrides: str) -> list[Any]:
        return [s.table for s in make_plan(load_recipe(write(GOOD), overrides=overrides)).stages]

    first, look = tables()
    for change in ("rewards.right.weight=2", "stage.first.options.lr=1", "rewards.right.limits=[0, 9]"):
        assert tables(change)[0] != first and tables(change)[1] == look
    for change in ("seed=1", "tasks.train.size=6", "rollout.max_tokens=7", "engines.silent.batch=2"):
        assert tables(change)[0] != first and tables(change)[1] != look
    assert tables("report_to=['tensorboard']", "max_error_rate=0.5") == [first, look]


def test_an_engine_may_have_a_key_of_its_own(write: Any) -> None:
    plan = make_plan(
        load_recipe(write(GOOD), overrides=["rollout.engine=fast", 'engines.fast={use="silent", batch=8}'])
    )
    assert plan.engines["fast"].cls is Silent and plan.engines["fast"].config.batch == 8


def test_a_shipped_recipe_is_found_by_name_and_an_unknown_one_gets_the_nearest() -> None:
    assert find_recipe("cort_math").name == "cort_math.toml"
    with pytest.raises(RequestError, match="did you mean 'cort_math'"):
        find_recipe("cort_maht")


def test_a_folder_with_the_name_of_a_shipped_recipe_does_not_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cort_math").mkdir()
    assert find_recipe("cort_math").is_file()


def test_a_plan_is_made_without_starting_anything(write: Any) -> None:
    assert isinstance(make_plan(load_recipe(write(GOOD))), Plan)
