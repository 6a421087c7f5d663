"""A whole recipe with ``executor = "ray"``, on a cluster that begins and ends with its run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import cort_framework as cort

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

RECIPE = """
schema = 1
name = "over-a-cluster"
model = "tiny"

[tasks.train]
source = "tiny"
size = 10

[tasks.test]
source = "tiny"
split = "test"
size = 6

[rollout]
max_tokens = 500
max_tool_calls = 3
check_every = 32
concurrency = 8

[rollout.tools.python]

[engines.transformers]
threads = 1

[executors.ray]
address = "local"
workers = 2

[hints.opening]

[hints.delayed-computation]

[hints.result-distrust]

[rewards.answer]

[rewards.code-success]
weight = 0.1

[filters.correct]

[filters.used-code]

[[stage]]
name = "before"
kind = "evaluate"
system = "base"
tasks = ["test"]
samples = 2

[[stage]]
name = "synthesize"
kind = "synthesize"
tasks = "train"
target = 3
attempts = 2
hints = ["opening", "delayed-computation", "result-distrust"]
filters = ["correct", "used-code"]

[[stage]]
name = "rft"
kind = "rft"
tasks = "train"
samples = 2
data = ["synthesize"]
filters = ["correct"]
options = { epochs = 1, batch_size = 8, learning_rate = 1e-4 }

[[stage]]
name = "rl"
kind = "rl"
tasks = "train"
rollout = { temperature = 1.0, top_p = 1.0, max_tokens = 200 }

[stage.options]
placement = "disk"
steps = 2
prompts_per_step = 2
num_generations = 4
zero_variance = "keep"
learning_rate = 1e-4

[[stage]]
name = "after"
kind = "evaluate"
system = "rl"
tasks = ["test"]
"""
STAGES = ("before", "synthesize", "rft", "rl", "after")


def timeless(record: Any) -> Any:
    """All of it but the seconds."""
    if isinstance(record, dict):
        return {key: timeless(value) for key, value in record.items() if key != "seconds"}
    return [timeless(value) for value in record] if isinstance(record, list) else record


def trajectories(run: Path, stage: str) -> dict[str, dict[str, Any]]:
    """What is on disk, by id; versions that a rewind cut back are among them."""
    lines = (run / stage / "trajectories.jsonl").read_text().splitlines()
    made = [json.loads(line) for line in lines]
    found = {t["id"]: timeless(t) for t in made}
    assert len(found) == len(made)
    return found


def test_a_recipe_over_a_cluster_gives_what_it_gives_on_one_machine_task_by_task(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    here, there = tmp_path / "local", tmp_path / "ray"
    for executor in ("local", "ray"):
        recipe = cort.load_recipe(tmp_path / "recipe.toml", overrides=[f"rollout.executor={executor}"])
        cort.run(recipe, tmp_path / executor)
        assert not ray.is_initialized()

    for stage in STAGES:
        ours, theirs = trajectories(there, stage), trajectories(here, stage)
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert ours[name] == theirs[name]
    results = [timeless(json.loads((run / "results.json").read_text())) for run in (there, here)]
    assert results[0] == results[1]
    for trained in ("rft", "rl"):
        weights = [(run / trained / "checkpoint" / "model.safetensors").read_bytes() for run in (there, here)]
        assert weights[0] == weights[1]

    authors = {turn["author"] for t in trajectories(there, "synthesize").values() for turn in t["turns"]}
    assert authors == {"prompt", "model", "tool", "hint"}
