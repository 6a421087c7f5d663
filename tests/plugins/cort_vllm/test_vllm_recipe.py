"""The main recipe with vLLM as its engine: weights go to it by way of the disk, after every step."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

import cort_framework as cort

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

STEPS = 4
SMALLER = [
    "tasks.train.size=24",
    "tasks.in-range.size=4",
    "tasks.out-of-range.size=4",
    "stage.synthesize.target=4",
    "stage.sft.options.epochs=6",
    "stage.rft.samples=2",
    f"stage.rl.options.steps={STEPS}",
    "stage.rl.options.prompts_per_step=4",
    "stage.rl.options.num_generations=4",
]


def test_the_miniature_is_trained_on_what_vllm_sampled_from_the_newest_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vllm")
    from cort_vllm.engine import VllmEngine

    loads: list[tuple[str, int]] = []
    policies: list[cort.Generation] = []
    load = VllmEngine.load_weights

    async def watched(engine: Any, weights: cort.Weights) -> None:
        await load(engine, weights)
        assert 0 < engine.load_gap < 1e-4  # the proof was made, and holds
        assert weights.path is not None
        loads.append((Path(weights.path).parent.name, weights.version))
        prompt = engine.tokenizer.encode("Find the product of 146 and 27.")
        policies.append(await engine.generate(prompt, cort.Sampling(1.0, 1.0, 16, seed=1)))

    monkeypatch.setattr(VllmEngine, "load_weights", watched)
    run = tmp_path / "run"
    report = cort.run(cort.load_recipe("cort_math", "vllm", SMALLER), run)

    # every checkpoint reached the engine, and every step's policy
    base, *after = loads
    assert base[1] == 0
    assert after == [("sft", 0), ("rft", 0), *(("rl", n) for n in range(1, STEPS + 1)), ("rl", 0)]
    # RL begins with the checkpoint of RFT; every other load is of another policy than the one before
    unchanged = [same(one, two) for one, two in itertools.pairwise(policies)]
    assert unchanged == [False, False, True, *[False] * STEPS]

    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    # the trainer reads again, with its own weights of that step, what vLLM sampled with those that it was given
    gaps = [line["logprob_gap"] for line in lines if "logprob_gap" in line]
    assert len(gaps) == STEPS
    assert max(gaps) < 1e-3

    made = [json.loads(line) for line in (run / "rl" / "trajectories.jsonl").read_text().splitlines()]
    assert len(made) == STEPS * 4 * 4
    stamps = {turn["weights_version"] for t in made for turn in t["turns"] if turn["author"] == "model"}
    assert stamps == set(range(1, STEPS + 1))
    assert {r["name"] for r in report.results} >= {"natural", "sft", "rft", "rl"}


def test_a_step_of_rl_sends_its_weights_to_vllm_and_writes_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vllm")
    from cort_tiny import base_path
    from cort_vllm.engine import VllmEngine

    loads: list[tuple[bool, int]] = []
    policies: list[cort.Generation] = []
    load = VllmEngine.load_weights

    async def watched(engine: Any, weights: cort.Weights) -> None:
        await load(engine, weights)
        assert 0 < engine.load_gap < 1e-4
        loads.append((weights.module is not None, weights.version))
        prompt = engine.tokenizer.encode("Find the product of 146 and 27.")
        policies.append(await engine.generate(prompt, cort.Sampling(1.0, 1.0, 16, seed=1)))

    monkeypatch.setattr(VllmEngine, "load_weights", watched)
    recipe = cort.Recipe(
        name="rl-first",
        deterministic=False,
        model=str(base_path()),
        tasks={"train": {"source": "tiny", "size": 8}},
        rollout={"engine": "vllm", "max_tokens": 300, "temperature": 1.0, "top_p": 1.0},
        engines={"vllm": {"eager": True, "kv_cache_gb": 0.2}},
        rewards={"length": {"target": 1, "limit": 300}},
        stage=[
            {
                "name": "rl",
                "kind": "rl",
                "tasks": "train",
                "options": {
                    "placement": "separate",
                    "steps": 3,
                    "prompts_per_step": 2,
                    "num_generations": 4,
                    "learning_rate": 1e-4,
                    "micro_batch": 2,
                },
            }
        ],
    )
    cort.run(recipe, tmp_path / "run")
    assert [one for one in loads if one[0]] == [(True, 1), (True, 2), (True, 3)]
    sent = [policy for (module, _), policy in zip(loads, policies, strict=True) if module]
    assert [same(one, two) for one, two in itertools.pairwise(sent)] == [False, False]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    gaps = [line["logprob_gap"] for line in lines if "logprob_gap" in line]
    assert len(gaps) == 3 and max(gaps) < 1e-3
    assert not (tmp_path / "run" / "rl" / "policy").exists()


def same(one: cort.Generation, two: cort.Generation) -> bool:
    """The same draw from the same prompt, with log-probs that rounding alone can tell apart."""
    gaps = (abs(a - b) for a, b in zip(one.logprobs, two.logprobs, strict=False))
    return one.ids == two.ids and max(gaps) < 1e-5


def test_a_recipe_that_wants_equal_runs_is_told_that_vllm_makes_none(tmp_path: Path) -> None:
    recipe = cort.load_recipe("cort_math", "vllm", [*SMALLER, "deterministic=true"])
    with pytest.raises(cort.CortError, match="bit for bit"):
        cort.run(recipe, tmp_path / "run")


def test_what_is_for_the_server_alone_is_refused_before_anything_starts() -> None:
    settings = ["engines.vllm.url='http://127.0.0.1:8000'", "engines.vllm.tensor_parallel=2"]
    with pytest.raises(
        cort.CortError, match=r"eager, kv_cache_gb, max_batch, tensor_parallel is for the server"
    ):
        cort.run(cort.load_recipe("cort_math", "vllm", settings))
