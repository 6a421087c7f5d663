"""Ctrl-C saves; a checkpoint that is not whole is never gone on from; both lead to the weights of an undisturbed training."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from test_trl_grpo import config, engine_rollout, rl_context
from test_trl_sft import same
from trl_runs import EngineRollout, Recorder, context, random_trajectories

import cort_framework as cort
from cort_trl.checkpoints import is_whole
from cort_trl.grpo import GroupRelativeTrainer
from cort_trl.sft import SupervisedTrainer

__all__ = ["engine_rollout"]
MADE = random_trajectories(6)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


class At(Recorder):
    """Does something when a step's metrics come."""

    def __init__(self, step: int, act: Callable[[], None] = interrupt) -> None:
        super().__init__()
        self.step, self.act = step, act
        self.notes: list[str] = []

    def metrics(self, **values: Any) -> None:
        super().metrics(**values)
        if values["step"] == self.step:
            self.act()

    def note(self, text: str) -> None:
        self.notes.append(text)


def sft(folder: Path, base: Path, reporter: Recorder | None = None, **options: Any) -> cort.Checkpoint:
    settings = {"max_steps": 5, "batch_size": 4, "micro_batch": 2, "learning_rate": 1e-3, **options}
    trainer = SupervisedTrainer(SupervisedTrainer.Config(**settings))
    return trainer.train(context(folder, base, reporter, trajectories=MADE))


def saved(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "training").glob("checkpoint-*"))


@pytest.mark.parametrize(
    "options",
    [{}, pytest.param({"lora": {"rank": 4, "dropout": 0.5}}, marks=pytest.mark.slow)],
    ids=["all", "lora"],
)
def test_ctrl_c_saves_the_last_step_and_the_training_goes_on_to_the_same_weights(
    options: dict[str, Any], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    stopped, resumed = At(3), At(0)
    with pytest.raises(KeyboardInterrupt):
        sft(tmp_path / "a", tiny_checkpoint, stopped, **options)
    assert saved(tmp_path / "a") == ["checkpoint-3"] and stopped.notes == ["saved after step 3 of 5"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    again = sft(tmp_path / "a", tiny_checkpoint, resumed, **options)
    assert resumed.column("step") == [4, 5, 5]
    assert same(again.path, sft(tmp_path / "b", tiny_checkpoint, **options).path)
    assert not (tmp_path / "a" / "data").exists()


def test_ctrl_c_in_a_rollout_saves_as_the_step_before_left_it(
    tiny_checkpoint: Path, tmp_path: Path, engine_rollout: EngineRollout
) -> None:
    trainer = GroupRelativeTrainer(config(steps=3, updates_per_step=2))
    batches = 0

    def third(requests: Sequence[cort.RolloutRequest]) -> list[cort.Trajectory]:
        nonlocal batches
        batches += 1
        if batches == 3:
            interrupt()
        return engine_rollout(requests)

    interrupted = rl_context(tmp_path / "a", tiny_checkpoint, third)
    interrupted.load_weights = engine_rollout.load_weights
    with pytest.raises(KeyboardInterrupt):
        trainer.train(interrupted)
    assert saved(tmp_path / "a") == ["checkpoint-4"] and batches == 3
    resumed = At(0)
    again = trainer.train(rl_context(tmp_path / "a", tiny_checkpoint, engine_rollout, resumed))
    assert resumed.column("step")[0] == 5
    whole = trainer.train(rl_context(tmp_path / "b", tiny_checkpoint, engine_rollout))
    assert same(again.path, whole.path)


def test_a_second_ctrl_c_ends_at_once_and_saves_nothing(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def twice() -> None:
        interrupt()
        interrupt()

    with pytest.raises(KeyboardInterrupt):
        sft(tmp_path, tiny_checkpoint, At(3, twice))
    assert saved(tmp_path) == []


def test_a_training_saves_by_the_clock_as_well_and_keeps_the_last(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    found: list[list[str]] = []
    sft(tmp_path, tiny_checkpoint, At(4, lambda: found.append(saved(tmp_path))), save_minutes=1e-9)
    assert found == [["checkpoint-3"]] and saved(tmp_path) == ["checkpoint-5"]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "trainer_state.json", "digests.json"])
def test_a_damaged_checkpoint_is_not_gone_on_from(name: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        sft(tmp_path / "a", tiny_checkpoint, At(4))
    file = tmp_path / "a" / "training" / "checkpoint-4" / name
    assert is_whole(file.parent)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert not is_whole(file.parent)
    resumed = At(0)
    again = sft(tmp_path / "a", tiny_checkpoint, resumed)
    assert resumed.column("step")[0] == 1 and "checkpoint-4 is damaged" in resumed.notes[0]
    if name == "model.safetensors":
        assert same(again.path, sft(tmp_path / "b", tiny_checkpoint).path)
