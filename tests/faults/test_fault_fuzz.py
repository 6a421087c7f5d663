"""Spoilt recipes and spoilt files of trajectories: a clear error or a good run, never a traceback.

``CORT_FUZZ_SEED=10000 pytest -m slow tests/faults/test_fault_fuzz.py`` tries ten thousand others.
"""

from __future__ import annotations

import functools
import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from random import Random

import pupil
import pytest
from fuzzing import spoil_bytes, spoil_values, try_out
from pydantic import ValidationError

from cort_framework import CortError, Reward, Verdict, evaluation
from cort_framework import registry as registry_module
from cort_framework.cli.export import FORMATS, export_row
from cort_framework.cli.show import coloured, header
from cort_framework.cli.trace import stage_stats, token_table
from cort_framework.cli.traces import find_traces
from cort_framework.display import SilentDisplay
from cort_framework.pipeline import run
from cort_framework.recipe import load_recipe, make_plan
from cort_framework.recipe.settings import Recipe
from cort_framework.recipe.tables import to_toml
from cort_framework.store import Trajectories, TrajectoryLog
from cort_framework.testing import sample_trajectories

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

FIRST = int(os.environ.get("CORT_FUZZ_SEED", "0"))
RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
OVERRIDES = (
    "stage.rl.options.lr",
    "rollout.max_tokens",
    "seed",
    "stage",
    "a.b",
    "",
    "stage.sft",
    "profile.x",
    "rollout",
)
VALUES = ("5", "x", "", "[1]", "{a=1}", "nan", "'tiny'", "-1", '"\\u0000"', "{", "1e400")


def campaign(
    name: str, count: int, tried: Callable[..., None], attempt: Callable[[Random], Callable[[], object]]
) -> None:
    """``attempt`` makes, of its seed, something to do; none of what was done may end in a traceback."""
    lost = {}
    for seed in range(FIRST, FIRST + count):
        outcome, why = try_out(attempt(Random(seed)))
        tried(name, outcome)
        if outcome == "lost":
            lost[seed] = why
    if lost:
        first = next(iter(lost.values()))
        pytest.fail(f"{len(lost)} of {count} lost, by their seeds: {list(lost)[:20]}; the first:\n{first}")


def test_ten_thousand_spoilt_recipes_are_planned_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tried: Callable[..., None]
) -> None:
    # what is installed does not change meanwhile, and is read from its metadata at every plan
    monkeypatch.setattr(registry_module, "version", functools.cache(registry_module.version))
    file = tmp_path / "recipe.toml"

    def attempt(rng: Random) -> Callable[[], object]:
        recipe = rng.choice(RECIPES).read_bytes()
        if rng.random() < 0.5:
            file.write_bytes(spoil_bytes(recipe, rng))
        else:
            text = to_toml(spoil_values(tomllib.loads(recipe.decode()), rng))
            file.write_text(text, encoding="utf-8", errors="replace")
        profile = rng.choice(("1.5b", "vllm", "x", "")) if rng.random() < 0.2 else None
        overrides = [f"{rng.choice(OVERRIDES)}={rng.choice(VALUES)}"] if rng.random() < 0.2 else []
        return lambda: make_plan(load_recipe(file, profile, overrides))

    campaign("a spoilt recipe, planned", 10_000, tried, attempt)


def test_spoilt_recipes_that_can_be_planned_run_or_say_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tried: Callable[..., None]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pupil.Teach, "trained", [])
    good = pupil.recipe(tmp_path, "before", "make", "sft", "rl").model_dump(mode="json", by_alias=True)
    numbers = iter(range(10_000))

    def attempt(rng: Random) -> Callable[[], object]:
        while True:
            try:
                recipe = Recipe.model_validate(spoil_values(good, rng))
                plan = make_plan(recipe, pupil.registry())
            except (CortError, ValidationError):  # refused, which is the test above
                continue
            if "000000" not in plan.to_json():  # nor what would go on for as long as it is asked to
                return lambda: run(plan, tmp_path / f"run-{next(numbers)}", display=SilentDisplay())

    campaign("a spoilt recipe, run", 60, tried, attempt)


def test_ten_thousand_spoilt_files_of_trajectories_are_read_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tried: Callable[..., None]
) -> None:
    monkeypatch.setattr(evaluation, "RESAMPLES", 20)
    whole = sample_trajectories()
    whole[2].rewards = {"answer": Reward(1.0), "other": Reward(None, error="it broke")}
    whole[2].verdicts = [Verdict(False, "why: so", (0, 1), "f"), Verdict(True)]
    whole[3].stop_reason, whole[4].parent, whole[4].kept_tokens = "rewound", whole[3].id, 3
    lines = [t.to_json() for t in whole]
    tables = [json.loads(line) for line in lines]
    data = "".join(f"{line}\n" for line in lines).encode()
    file = tmp_path / "stage" / "trajectories.jsonl"
    file.parent.mkdir()

    def attempt(rng: Random) -> Callable[[], object]:
        if rng.random() < 0.5:
            file.write_bytes(spoil_bytes(data, rng))
        else:
            place = rng.randrange(len(lines))
            spoilt = json.dumps(spoil_values(tables[place], rng), ensure_ascii=rng.random() < 0.5)
            text = "".join(f"{line}\n" for line in [*lines[:place], spoilt, *lines[place + 1 :]])
            file.write_text(text, encoding="utf-8", errors="backslashreplace")
        return lambda: read_in_every_way(file)

    campaign("a spoilt file of trajectories", 10_000, tried, attempt)


def read_in_every_way(file: Path) -> None:
    """As a run that goes on does, a training, and every command."""
    with_log(file)
    list(Trajectories.kept(file))
    for trace in find_traces(file):
        stage_stats(trace)
        for t in trace.read():
            for show in (header, coloured, token_table):
                show(t)
            for form in FORMATS:
                export_row(t, form)
        if finals := [t for t in trace.read() if t.stop_reason != "rewound"]:
            evaluation.evaluate(finals, name="a", test_set="b")


def with_log(file: Path) -> None:
    log = TrajectoryLog(file)
    try:
        keys = list(log.keys())
        for key in keys:
            log.line(key)
            log.revise(log.final(key))
        log.errors()
        log.finish(keys)
    finally:
        log.close()
