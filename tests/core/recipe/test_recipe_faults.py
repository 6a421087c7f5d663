"""What is wrong with a recipe is said, all of it at once, at its place."""

from __future__ import annotations

import contextlib
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_world import GOOD, PLUGINS

from cort_framework.errors import RecipeError, RequestError
from cort_framework.recipe import find_recipe, load_recipe, make_plan
from cort_framework.recipe.tables import to_toml
from cort_framework.registry import Registry


def problems(path: Path, *overrides: str, profile: str | None = None) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        make_plan(load_recipe(path, profile, overrides))
    return caught.value.problems


def test_all_faults_are_shown_at_once_in_the_order_of_the_file(write: Any) -> None:
    text = GOOD.replace('name = "small"', 'nam = "small"\nname = "small"').replace(
        "size = 5", 'size = "five"'
    )
    text = text.replace("max_tokens = 100", "max_tokens = -1").replace('use = "prize"', 'use = "price"')
    text = text.replace("options.lr = 2e-5", "options.rl = 2e-5").replace('"measure"', '"measrue"')
    assert problems(write(text)) == [
        "line 3: nam: unknown key; did you mean 'name'?",
        "line 9: tasks.train.size: input should be a valid integer, not 'five'",
        "line 13: rollout.max_tokens: input should be greater than or equal to 1, not -1",
        "line 17: rewards.right: no reward-function 'price' is installed (did you mean 'prize'?)",
        "line 30: stage.first.options.rl: unknown key; did you mean 'lr'?",
        "line 34: stage.look.kind: no stage 'measrue' is installed (did you mean 'measure'?)",
    ]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("stage", "stages"), "line 24: stages: unknown key; did you mean 'stage'?"),
        (
            ('tasks = "train"', 'tasks = "trian"'),
            "line 27: stage.first.tasks: no [tasks] table is called 'trian'; did you mean 'train'?",
        ),
        (
            ('small = "train"', 'small = "tr"'),
            "line 34: stage.look.tasks: no [tasks] table is called 'tr'; did you mean 'train'?",
        ),
        (
            ('["right"]', '["wrong"]'),
            "line 28: stage.first.rewards: no [rewards] table is called 'wrong'; known: right",
        ),
        (
            ('tasks = "train"', 'data = ["look"]'),
            "line 27: stage.first.data: no earlier stage is called 'look'",
        ),
        (
            ("[rollout.tools.pen]", "tools.pen.use = 3"),
            "line 14: rollout.tools.pen.use: input should be a plugin's name",
        ),
        (('use = "prize"', "use = 3"), "line 17: rewards.right.use: input should be a valid string, not 3"),
        (
            ('kind = "measure"', 'kind = "measure"\nmodel = "zero"\n[[stage]]\nname = "x"\nkind = "measure"'),
            "line 34: stage.look.model: there is no model 'zero'",
        ),
        (
            ("[stage.rollout]", '[[stage]]\nname = "x"\nkind = "measure"\nmodel = "look"\n[stage.rollout]'),
            "line 39: stage.x.model: stage 'look' makes no checkpoint",
        ),
        (
            ('tasks = "train"', 'taks = "train"'),
            "line 27: stage.first.taks: unknown key; did you mean 'tasks'?",
        ),
        (
            ('tasks = "train"', 'trainr = "train"'),
            "line 27: stage.first.trainr: unknown key; did you mean 'trainer'?",
        ),
        (
            ('prompt = "natural"', 'prompt = "nature"'),
            "line 38: stage.look.rollout.prompt: no prompt is called 'nature'; did you mean 'natural'?",
        ),
        (
            ('prompt = "natural"', "top_p = 1.5"),
            "line 38: stage.look.rollout.top_p: input should be less than or equal to 1, not 1.5",
        ),
        (
            ('prompt = "natural"', "top_k = 1"),
            "line 38: stage.look.rollout.top_k: unknown key; did you mean 'top_p'?",
        ),
        (
            ('kind = "measure"', 'kind = "measure"\nmodel = "frist"'),
            "line 34: stage.look.model: there is no model 'frist'",
        ),
        (
            ('kind = "measure"', 'kind = "measure"\noptions.x = 1'),
            "line 34: stage.look.options: stage kind 'measure' has no trainer to give options to",
        ),
        (
            ('kind = "learn"', 'kind = "learn"\ntrainer = "gradent"'),
            "line 27: stage.first.trainer: no trainer 'gradent' is installed",
        ),
        (('name = "look"', 'name = "first"'), "two stages are called first"),
        (('name = "look"', 'name = "../x"'), 'line 32: stage."../x".name: string should match'),
        (('name = "look"\n', ""), "line 31: stage.1.name: this key is required"),
        (('model = "owner/model"', 'model = "./nowhere"'), "line 4: model: there is no model './nowhere'"),
        (('model = "owner/model"', 'model = "/"'), "line 4: model: the folder / holds no model"),
        (('model = "owner/model"\n', ""), "line 23: stage.first: there is no model to start from"),
        (
            ('engine = "silent"', 'engine = "silnt"'),
            "line 11: rollout.engine: no engine 'silnt' is installed",
        ),
        (
            ("weight = 0.5", "weight = nan"),
            "line 18: rewards.right.weight: input should be a finite number, not nan",
        ),
        (
            ("weight = 0.5", "weight = true"),
            "line 18: rewards.right.weight: input should be a valid number, not True",
        ),
        (
            ("    1,\n", '    "1",\n'),
            "line 19: rewards.right.limits.0: input should be a valid integer, not '1'",
        ),
        (
            ("max_tokens = 100", "call_timeout_s = 500"),
            "line 10: rollout: call_timeout_s (500) is longer than turn_timeout_s",
        ),
        (("schema = 1", "schema = 2"), "line 2: schema: input should be 1, not 2"),
        (("schema = 1", "prompts.mine = 'hello'"), "line 2: prompts: prompt 'mine' has no {problem} in it"),
        (("[rollout.tools.pen]", "tools = 3"), "line 14: rollout.tools: input should be an object, not 3"),
    ],
)
def test_a_fault_is_shown_with_its_line_its_path_and_the_nearest_known(
    write: Any, change: tuple[str, str], complaint: str
) -> None:
    shown = problems(write(GOOD.replace(*change)))
    assert any(complaint in line for line in shown), shown


def test_a_fault_in_a_profile_or_in_set_is_shown_there(write: Any) -> None:
    text = GOOD.replace("options.epochs = 3", 'options.epochs = "x"').replace(
        "rollout.max_tokens = 4000", "rollout.max = 1"
    )
    path = write(text + "\n[profile.big.stage.frist]\n")
    assert problems(path, "stage.look.rollout.temperature=-1", "stage.lock.tasks=1", profile="big") == [
        "--set stage.lock.tasks=1: no stage is called 'lock'; did you mean 'look'?",
        "--set stage.look.rollout.temperature=-1: input should be greater than or equal to 0, not -1",
        "line 41: profile.big.rollout.max: unknown key; did you mean 'max_hints'?",
        "line 45: profile.big.stage.first.options.epochs: input should be a valid integer, not 'x'",
        "line 47: profile.big.stage.frist: no stage is called 'frist'; did you mean 'first'?",
    ]


@pytest.mark.parametrize("override", ["", "=1", "seed", "stage=1", "stage.first=2", "a b=1"])
def test_a_malformed_set_is_refused(write: Any, override: str) -> None:
    with pytest.raises(RequestError, match="--set"):
        load_recipe(write(GOOD), overrides=[override])


def test_an_unknown_profile_is_refused_with_the_nearest(write: Any) -> None:
    with pytest.raises(RequestError, match="did you mean 'big'"):
        load_recipe(write(GOOD), "bigg")


@pytest.mark.parametrize(
    "content",
    [
        b"name = ",
        b"\xff\xfe\x00",
        b"a = 1\na = 2",
        b"[[[",
        b"",
        b"schema = 1",
        b"stage = 3",
        b"stage = [1]",
        b"profile = 1",
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(RequestError) as caught:
        load_recipe(path)
    assert caught.value.exit_code == 2


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is a folder"):
        load_recipe(tmp_path)
    with pytest.raises(RequestError, match="there is no recipe"):
        load_recipe(tmp_path / "nothing.toml")


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@settings(max_examples=60, deadline=None)
def test_no_file_raises_anything_but_a_request_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(content)
    with pytest.raises(RequestError):
        load_recipe(path)


keys = st.sampled_from(
    ["name", "stage", "kind", "profile", "x", "rollout", "tools", "use", "tasks", "source", "options"]
)
junk = st.recursive(
    st.sampled_from([1, "x", "measure", "learn", True, -0.5]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(keys, junk, max_size=4), st.sampled_from([None, "x"]), st.lists(keys, max_size=3))
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_tables_in_no_order_raise_anything_but_a_request_error(
    write: Any, table: dict[str, Any], profile: str | None, override: list[str]
) -> None:
    path = write(to_toml(tomllib.loads(GOOD) | table))
    with contextlib.suppress(RequestError):
        make_plan(load_recipe(path, profile, [f"{'.'.join(override)}=1"] if override else []))


def test_a_plan_that_fails_carries_the_plugin_s_own_exception(site: Any, write: Any) -> None:
    site.install("broken-plugin")
    recipe = load_recipe(write(GOOD.replace("tools.pen", "tools.broken")))
    broken = Registry()
    for cls in PLUGINS:
        broken.register(cls)
    with pytest.raises(RecipeError, match=r"outside-broken 0\.3") as caught:
        make_plan(recipe, broken)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    assert "a-module-that-nobody-has>=3" in (caught.value.hint or "")


def test_a_name_too_long_for_any_file_is_refused_as_another_would_be(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no recipe"):
        find_recipe("x" * 5000)
    file = tmp_path / "r.toml"
    file.write_text(GOOD.replace("model = ", f'model = "{"y" * 5000}" # ', 1))
    with pytest.raises(RecipeError, match="there is no model"):
        make_plan(load_recipe(file))
