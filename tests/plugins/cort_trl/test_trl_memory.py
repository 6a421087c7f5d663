"""The 1.5b profile of `cort_math` by hand arithmetic, and every shipped recipe and profile through the forecast."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import cort_framework as cort
from cort_framework.forecast import StageForecast, forecast
from cort_framework.machine.footprint import Device, Work, from_config
from cort_framework.recipe import shipped_recipes
from cort_framework.registry import Registry
from cort_math.sources import HuggingFaceSource
from cort_trl.sft import SupervisedTrainer

CARD = Device("a card of 80 GiB", 80 << 30, gpu=True)
QWEN_1_5B = json.loads((Path(__file__).parents[2] / "fixtures" / "qwen2.5-1.5b.json").read_text())
"""As published."""
PARAMETERS = 1_543_714_304
SIZES = {"train": 2000, "in-range": 500, "out-of-range": 30}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any model of the hub has the shape of Qwen2.5-1.5B; its data sets have as many problems of 900 bytes as they say."""
    monkeypatch.setattr(
        "cort_framework.machine.footprint._config_file", lambda model: config_of(model, tmp_path)
    )

    def tasks(self: HuggingFaceSource) -> Iterator[cort.Task]:
        name = self.config.dataset
        count = self.config.limit or (500 if "MATH" in name else 30)
        return (cort.Task(f"{name}-{i}", "x" * 900, "1") for i in range(count))

    monkeypatch.setattr(HuggingFaceSource, "tasks", tasks)


def config_of(model: str, folder: Path) -> Path:
    if Path(model).is_dir():
        return Path(model) / "config.json"
    path = folder / "config.json"
    path.write_text(json.dumps(QWEN_1_5B))
    return path


def parts(stage: StageForecast) -> dict[str, int]:
    assert stage.memory is not None
    return {f"{p.owner}: {p.need.what}": p.need.bytes for p in stage.memory}


def test_the_1_5b_profile_takes_what_hand_arithmetic_says(hub: None) -> None:
    found = forecast(cort.make_plan(cort.load_recipe("cort_math", "1.5b")), None, CARD)
    stages = {s.name: s for s in found.stages}
    assert found.tasks == SIZES

    natural = stages["natural"]
    assert natural.made_tokens == 530 * 16_000
    template = len("\nPlease reason step by step, and put your final answer within \\boxed{}.")
    assert natural.longest == 16_000 + 900 + template + 64
    # a token: 28 layers × keys and values × 2 heads × 128 numbers × 2 bytes; 48 slots and a spare one of 18,432 positions
    assert 28 * 2 * 2 * 128 * 2 == 28_672
    assert parts(natural) == {
        "engine: weights": 2 * PARAMETERS,
        "engine: keys and values": 49 * 18_432 * 28_672,
        "engine: keys and values of those that wait for a tool": 8_000 << 20,
        "engine: keys and values while they grow": 49 * 16_384 * 28_672,
    }

    rl = parts(stages["rl"])
    longest = stages["rl"].longest
    assert longest is not None and 16_384 < longest < 18_432
    assert stages["rl"].trajectories == 100 * 128 * 8
    assert stages["rl"].trained_tokens == 102_400 * longest
    assert rl["trainer: weights"] == rl["trainer: gradients"] == 2 * PARAMETERS
    assert rl["trainer: optimizer"] == 2 * rl["trainer: weights"]
    assert rl["trainer: reference model"] == rl["trainer: weights"]
    assert "engine: weights" not in rl, "the engine samples from the trainer's own"
    assert rl["engine: keys and values"] == 49 * 18_432 * 28_672

    sft = parts(stages["sft"])
    # checkpointed: of each layer its input, 1,536 numbers of 2 bytes a token, and three of that at the end
    assert sft["trainer: activations"] == 31 * longest_of(stages, "sft") * 1536 * 2
    assert stages["sft"].trained_tokens == 1_200 * longest_of(stages, "sft"), "30 samples, 40 epochs"
    assert {s.fits for s in found.stages} == {"yes"}


def longest_of(stages: dict[str, StageForecast], name: str) -> int:
    longest = stages[name].longest
    assert longest is not None
    return longest


def test_full_logits_are_never_held_but_a_tile_of_them_is() -> None:
    shape = from_config({**QWEN_1_5B, "torch_dtype": "float32"})
    trainer = SupervisedTrainer(SupervisedTrainer.Config(micro_batch=1, gradient_checkpointing=True))
    work = Work(shape, CARD, sequences=8, longest=4_000)
    found = trainer.footprint(work)
    tile, embedding, hidden = 3_999 * 32_768 * 4, 151_936 * 1536 * 4, 3_999 * 1536 * 4
    logits = [n.bytes for n in found.memory if n.what == "logits"]
    layer = 4_000 * (24 * 1536 + 4 * (2 * 1536 + 2 * 256 + 4 * 8960) + 48)
    assert logits == ([tile + embedding + hidden] if tile + embedding + hidden > 1.4 * layer else [])
    assert logits, "with this vocabulary the output head outweighs a layer"


def test_sharding_shares_weights_and_what_belongs_to_them() -> None:
    shape = from_config(QWEN_1_5B)
    trainer = SupervisedTrainer(SupervisedTrainer.Config(dtype="bfloat16"))

    def held(**launch: object) -> int:
        work = Work(shape, CARD, sequences=8, longest=100, **launch)  # type: ignore[arg-type]
        return sum(n.bytes for n in trainer.footprint(work).memory if n.held == "awake")

    assert held() == 8 * PARAMETERS
    assert held(processes=4) == 10 * PARAMETERS, "gradients travel in buckets of their own"
    assert held(processes=4, sharded=True) == 2 * PARAMETERS


@pytest.fixture
def with_vllm(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """What is installed, and the engine of cort-vllm, which can be planned with where vLLM itself is not there."""
    registry = Registry()
    if "vllm" not in registry.names("engine"):
        monkeypatch.syspath_prepend(Path(__file__).parents[3] / "plugins" / "cort-vllm")
        monkeypatch.delitem(
            sys.modules, "cort_vllm", raising=False
        )  # the folder of its tests may pass for it
        from cort_vllm.engine import VllmEngine

        monkeypatch.setattr(VllmEngine, "requires", ())
        registry.register(VllmEngine)
    return registry


RECIPES = [
    (name, profile)
    for name, path in shipped_recipes().items()
    for profile in (None, *tomllib.loads(path.read_text(encoding="utf-8")).get("profile", {}))
]


@pytest.mark.parametrize(("name", "profile"), RECIPES, ids=str)
def test_every_recipe_and_profile_has_its_plan(
    name: str, profile: str | None, hub: None, with_vllm: Registry
) -> None:
    plan = cort.make_plan(cort.load_recipe(name, profile), with_vllm)
    found = forecast(plan, None, CARD)
    assert [s.name for s in found.stages] == [s.name for s in plan.stages]
    for stage in found.stages:
        assert stage.unknown or (stage.memory is not None and stage.fits is not None), stage.name
        json.dumps(stage.to_json())
