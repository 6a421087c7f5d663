"""A run of the framework with vLLM as its engine: weights go to it by way of the disk, after every step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import cort_framework as cort

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(400)]

RECIPE = """
schema = 1
name = "rl-on-vllm"
model = "tiny"
deterministic = false

[tasks.train]
source = "tiny"
size = 24

[rollout]
engine = "vllm"
temperature = 1.0
top_p = 1.0
max_tokens = 400
max_tool_calls = 2

[rollout.tools.python]

[engines.vllm]
eager = true
kv_cache_gb = 0.1
max_batch = 32

[rewards.answer]
weight = 1.0

[[stage]]
name = "rl"
kind = "rl"
tasks = "train"

[stage.options]
placement = "disk"
steps = 3
prompts_per_step = 4
num_generations = 4
learning_rate = 1e-4
schedule = "constant"
zero_variance = "keep"
save_every = 100

[[stage]]
name = "after"
kind = "evaluate"
system = "rl"
tasks = ["train"]
"""


def test_reinforcement_learning_trains_on_what_vllm_sampled_from_the_newest_weights(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    cort.run(cort.load_recipe(tmp_path / "recipe.toml"), tmp_path / "run")

    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    # the trainer reads again, with its own weights of that step, what vLLM sampled with those that it was given
    gaps = [line["logprob_gap"] for line in lines if "logprob_gap" in line]
    assert len(gaps) == 3
    assert max(gaps) < 1e-3

    files = (tmp_path / "run").glob("rl/*.jsonl")
    made = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    versions = {turn["weights_version"] for t in made for turn in t["turns"] if turn["author"] == "model"}
    assert versions == {1, 2, 3}
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results


def test_a_recipe_that_wants_equal_runs_is_told_that_vllm_makes_none(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("deterministic = false", "deterministic = true"))
    with pytest.raises(cort.CortError, match="bit for bit"):
        cort.run(cort.load_recipe(tmp_path / "recipe.toml"), tmp_path / "run")
