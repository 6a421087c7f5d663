"""`tiny-corpus` in a real run of the pipeline, with a real training step after it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

import cort_framework as cort
from cort_framework.store import read_trajectories
from cort_tiny.stages import TinyCorpus

RECIPE = """
schema = 1
name = "a-small-base"

[[stage]]
name = "corpus"
kind = "tiny-corpus"
texts = 24
vocabulary = 400
hidden_size = 32
heads = 2
key_value_heads = 1
layers = 1
intermediate_size = 64

[[stage]]
name = "base"
kind = "sft"
data = ["corpus"]

[stage.options]
train_on = ["prompt", "model"]
max_steps = 1
"""


def test_a_base_is_made_from_nothing_through_the_frameworks_own_trainer(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE, "utf-8")
    report = cort.run(cort.load_recipe(recipe), tmp_path / "run")
    trajectories = list(read_trajectories(tmp_path / "run" / "corpus" / "trajectories.jsonl"))
    tokenizer = AutoTokenizer.from_pretrained(report.checkpoint)
    assert len(trajectories) == 24
    for trajectory in trajectories:
        assert [turn.author for turn in trajectory.turns[:2]] == ["prompt", "model"]
        assert all((t.author == "tool") == t.text.startswith("```output") for t in trajectory.turns)
        assert trajectory.ids[-1] == tokenizer.eos_token_id
        for turn in trajectory.turns:
            assert list(turn.ids) == tokenizer(turn.text, add_special_tokens=False).input_ids
    before = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "corpus" / "checkpoint")
    after = AutoModelForCausalLM.from_pretrained(report.checkpoint)
    assert any((a != b).any() for a, b in zip(before.parameters(), after.parameters(), strict=True))


def test_shares_that_do_not_add_up_and_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValidationError, match="add up to 1"):
        TinyCorpus.Config(natural=0.9)
    with pytest.raises(ValidationError, match="divides"):
        TinyCorpus.Config(heads=7)


def test_the_recipe_of_the_base_describes_the_base_that_ships() -> None:
    from cort_tiny import base_path

    record = json.loads((base_path() / "base.json").read_text("utf-8"))
    recipe = cort.load_recipe("tiny_base")
    texts = [stage.model_extra["texts"] for stage in recipe.stage if stage.kind == "tiny-corpus"]
    trainings = [stage.options for stage in recipe.stage if stage.kind == "sft"]
    assert texts == [leg["texts"] for leg in record["legs"]]
    for key in ("batch_size", "learning_rate"):
        assert [options[key] for options in trainings] == [leg[key] for leg in record["legs"]]
    assert recipe.seed == record["seed"]
