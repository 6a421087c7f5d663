"""What a plan says that its stages take, on the small world of the pipeline's tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pupil import Pupil, Teach, recipe, registry

from cort_framework.errors import TaskError
from cort_framework.forecast import Forecast, StageForecast, forecast
from cort_framework.interfaces import PluginConfig
from cort_framework.machine.footprint import Architecture, Device, Footprint, Need, Work
from cort_framework.recipe import make_plan
from cort_framework.recipe.settings import PROMPTS

SHAPE = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 4000,
}
GPU = Device("a GPU", 1_000_000, gpu=True)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Work]]:
    """The engine takes 100 kB a trajectory at once and 1,000 bytes while it sleeps, the trainer 500 kB; both as asked."""
    works: dict[str, list[Work]] = {"engine": [], "trainer": []}

    def engine(self: Any, work: Work) -> Footprint:
        works["engine"].append(work)
        if work.model is None:
            return Footprint()
        store = Need("store", 100_000 * work.at_once, "awake", "seconds")
        return Footprint(memory=(Need("weights", 1_000, "always"), store, Need("logits", 5_000)))

    def trainer(self: Any, work: Work) -> Footprint:
        works["trainer"].append(work)
        counts = {"trajectories": 16} if self.makes else {}
        if work.model is None:
            return Footprint(**counts)
        held = (Need("optimizer", 400_000, "awake", "rate"), Need("activations", 100_000, "working"))
        return Footprint(trained_tokens=7, memory=held, disk=(Need("checkpoint", 9),), **counts)

    async def sleep(self: Any) -> None: ...

    monkeypatch.setattr(Pupil, "footprint", engine)
    monkeypatch.setattr(Pupil, "sleep", sleep)
    monkeypatch.setattr(Teach, "footprint", trainer)
    monkeypatch.setattr(Teach, "makes", False, raising=False)
    return works


def looked_at(
    folder: Path, *stages: str, shape: bool = True, run: Path | None = None, **changes: Any
) -> Forecast:
    made = recipe(folder, *stages, **changes)
    if shape:
        (folder / "base-3" / "config.json").write_text(json.dumps({**SHAPE, "knows": 3}))
    return forecast(make_plan(made, registry()), run, GPU)


def named(found: Forecast, name: str) -> StageForecast:
    return next(s for s in found.stages if s.name == name)


def test_counts_are_tasks_times_samples_and_lengths_are_bounded_by_bytes(tmp_path: Path, asked: Any) -> None:
    found = looked_at(tmp_path, rollout={"engine": "pupil", "max_tokens": 100})
    assert found.tasks == {"test": 10, "hard": 5, "train": 8}
    before, make, sft, rft = (named(found, name) for name in ("before", "make", "sft", "rft"))
    assert (before.trajectories, before.made_tokens) == (30, 3000)
    assert (make.trajectories, sft.trajectories, rft.trajectories) == (32, 0, 16)
    template = len(PROMPTS["tool"].replace("{problem}", "").encode())
    assert before.longest == template + 64 + len("What is 100+100?") + 100
    assert asked["trainer"][0].sequences == 2, "synthesize keeps its target, and sft trains on that"
    assert asked["trainer"][0].longest == make.longest


def test_phases_are_not_added_but_what_sleeps_beside_a_training_is(tmp_path: Path, asked: Any) -> None:
    found = looked_at(tmp_path, "make", "sft", rollout={"engine": "pupil", "concurrency": 3})
    assert named(found, "make").memory_bytes == 1_000 + 300_000 + 5_000
    assert named(found, "sft").memory_bytes == 500_000 + 1_000


def test_rollouts_in_a_training_hold_their_store_beside_it(
    tmp_path: Path, asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Teach, "makes", True)
    found = looked_at(tmp_path, "rl", rollout={"engine": "pupil", "concurrency": 3})
    rl = named(found, "rl")
    assert rl.trajectories == 16 and asked["engine"][0].sequences == 16
    assert rl.memory_bytes == 400_000 + 1_000 + 300_000 + 100_000, "activations outweigh logits"


def test_an_engine_that_sleeps_while_a_trainer_works_leaves_it_the_memory(
    tmp_path: Path, asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Config(PluginConfig):
        placement: str = "colocate"

    monkeypatch.setattr(Teach, "makes", True)
    monkeypatch.setattr(Teach, "Config", Config)
    found = looked_at(tmp_path, "rl", rollout={"engine": "pupil", "concurrency": 3})
    assert named(found, "rl").memory_bytes == 400_000 + 1_000 + 300_000 + 5_000, (
        "rollouts outweigh the training"
    )
    assert not asked["engine"][0].lent
    found = looked_at(
        tmp_path, "rl", rollout={"engine": "pupil", "concurrency": 3}, rl__options={"placement": "shared"}
    )
    assert asked["engine"][1].lent
    found = looked_at(
        tmp_path, "rl", rollout={"engine": "pupil", "concurrency": 3}, rl__options={"placement": "separate"}
    )
    assert named(found, "rl").memory_bytes == 400_000 + 100_000, "each has GPUs of its own"


def test_what_does_not_fit_names_the_settings_that_change_it(
    tmp_path: Path, asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Teach, "makes", True)
    sizes = {3: "yes", 4: "yes", 5: "no"}
    for concurrency, fits in sizes.items():
        rl = named(looked_at(tmp_path, "rl", rollout={"engine": "pupil", "concurrency": concurrency}), "rl")
        assert rl.fits == fits
        changes = [part.setting for part in rl.change]
        assert changes == (["engines.pupil.seconds", "stage.rl.options.rate"] if fits == "no" else [])


def test_processes_share_the_memory_of_a_machine_but_each_has_a_gpu() -> None:
    part: Any = [Need("weights", 400)]
    fields: dict[str, Any] = dict.fromkeys(
        ("trajectories", "longest", "made_tokens", "trained_tokens", "made_before", "disk")
    )

    def stage(device: Device, processes: int) -> StageForecast:
        from cort_framework.forecast import Part

        parts = [Part("trainer", need, "") for need in part]
        return StageForecast(
            **fields, name="s", kind="sft", memory=parts, processes=processes, device=device, unknown=()
        )

    memory = Device("memory", 1000)
    assert [stage(memory, n).fits for n in (1, 2, 3)] == ["yes", "yes", "no"]
    gpus = Device("GPU", 420, gpu=True, count=2)
    assert stage(gpus, 2).fits == "tight" and stage(gpus, 3).fits == "no"


def test_without_the_shape_of_the_model_memory_is_blank_and_the_reason_is_given(
    tmp_path: Path, asked: Any
) -> None:
    found = looked_at(tmp_path, "before", "make", "sft", shape=False)
    for stage in found.stages:
        assert stage.memory is None and stage.memory_bytes is None and stage.fits is None
        assert any("model_type" in reason for reason in stage.unknown)
    assert named(found, "before").trajectories == 30, "what does not depend on it is known"


def test_a_task_set_that_cannot_be_read_leaves_its_counts_blank(
    tmp_path: Path, asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_plan(recipe(tmp_path, "before", "rft", "after"), registry())
    (tmp_path / "base-3" / "config.json").write_text(json.dumps(SHAPE))

    source = made.tasks["train"].cls
    tasks = source.tasks

    def only_the_others(self: Any) -> Any:
        if self.config.start == 0:
            raise TaskError("no network", "plug it in")
        return tasks(self)

    monkeypatch.setattr(source, "tasks", only_the_others)
    found = forecast(made, None, GPU)
    rft = named(found, "rft")
    assert found.tasks["train"] is None and rft.trajectories is None and rft.made_tokens is None
    assert rft.memory_bytes is not None, "it depends on what is done at once"
    assert any("no network" in reason for reason in rft.unknown)
    assert named(found, "after").trajectories == 20


def test_a_plugin_that_says_nothing_leaves_its_figures_blank(tmp_path: Path) -> None:
    found = looked_at(tmp_path, "before", "make", "sft")
    assert named(found, "before").memory is None and named(found, "before").made_tokens == 30 * 1024
    assert any("engine 'pupil' does not say" in reason for reason in named(found, "before").unknown)
    assert any("trainer 'teach' does not say" in reason for reason in named(found, "sft").unknown)


def test_what_was_made_before_is_told_as_it_was(tmp_path: Path, asked: Any) -> None:
    (tmp_path / "run" / "make").mkdir(parents=True)
    state = {"result": {"summary": {"tokens": 1234}}}
    (tmp_path / "run" / "make" / "stage.json").write_text(json.dumps(state))
    found = looked_at(tmp_path, "before", "make", run=tmp_path / "run")
    assert (named(found, "make").made_before, named(found, "before").made_before) == (1234, None)


def test_a_model_made_from_nothing_is_known_to_those_after_it(
    tmp_path: Path, asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number format that a trainer saves is that which the next stage's engine reads."""
    shape = Architecture(1, 8, 16, 2, 2, 4, 50, 300, tied=True)

    def trainer(self: Any, work: Work) -> Footprint:
        return Footprint(model=shape, memory=(Need("all", 1, "awake"),), disk=(Need("checkpoint", 1),))

    monkeypatch.setattr(Teach, "footprint", trainer)
    found = looked_at(tmp_path, "make", "sft", "middle")
    assert [work.model == shape for work in asked["engine"]] == [False, True]
    assert named(found, "middle").longest == 300, "no trajectory is longer than what the model reads"
