"""Both trainers in two processes that ``torch.distributed.run`` starts: the same weights, and clear ends."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from trl_runs import context
from trl_worlds import Alone, Killed, Slow, Touching, grpo, resolved, sft, train, weights_gap

import cort_framework as cort
from cort_framework.display import SilentDisplay, StageReporter
from cort_framework.errors import StageFailed
from cort_framework.recipe.settings import LaunchSettings
from cort_framework.runtime import Runtime
from cort_framework.store import read_trajectories
from cort_transformers.engine import TransformersEngine
from cort_trl.checkpoints import is_whole
from cort_trl.grpo import GroupRelativeTrainer
from cort_trl.launch import environment
from cort_trl.policy import PolicyTrainer
from cort_trl.world import meet

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For the processes that are started."""
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{HERE.parent}")
    monkeypatch.setenv("CORT_KILLED_ONCE", str(tmp_path / "killed-once"))


def test_the_settings_reach_accelerate_through_its_environment_variables() -> None:
    plain = LaunchSettings(processes=2, devices="0,1", environment={"NCCL_DEBUG": "INFO"})
    assert environment(plain, cores=6) == {
        "OMP_NUM_THREADS": "3",
        "MKL_NUM_THREADS": "3",
        "CUDA_VISIBLE_DEVICES": "0,1",
        "NCCL_DEBUG": "INFO",
    }
    sharded = environment(LaunchSettings(processes=2, fsdp={"offload_params": True}), cores=2)
    assert sharded["ACCELERATE_USE_FSDP"] == "true"
    assert (sharded["FSDP_VERSION"], sharded["FSDP_OFFLOAD_PARAMS"]) == ("2", "true")
    deepspeed = environment(LaunchSettings(processes=2, deepspeed={"zero_stage": 3}), cores=2)
    assert deepspeed["ACCELERATE_USE_DEEPSPEED"] == "true"
    assert deepspeed["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "3"


def test_accelerate_takes_the_fsdp_settings_as_they_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import FullyShardedDataParallelPlugin

    launch = LaunchSettings(processes=2, fsdp={"reshard_after_forward": False, "offload_params": True})
    for name, value in environment(launch, cores=2).items():
        monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is False
    assert "FULL_STATE_DICT" in str(plugin.state_dict_type)
    assert type(plugin.cpu_offload).__name__ == "CPUOffloadPolicy"


def test_a_process_that_finds_no_other_does_not_train_alone(tmp_path: Path, tiny_checkpoint: Path) -> None:
    made = context(tmp_path, tiny_checkpoint, launch=LaunchSettings(processes=2))
    with pytest.raises(cort.CortError, match="one of 1 that train together, but the recipe asked for 2"):
        meet(made)


def test_an_engine_on_the_same_gpu_sleeps_while_the_trainer_works(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    for method in ("load_weights", "sleep", "wake"):
        monkeypatch.setattr(TransformersEngine, method, spy(happened, method))
    monkeypatch.setattr(PolicyTrainer, "_compute_loss", spy(happened, "loss", PolicyTrainer._compute_loss))
    options = {"placement": "colocate", "steps": 2, "prompts_per_step": 2, "micro_batch": 8}
    train(grpo(tmp_path / "colocate", tiny_checkpoint, executor=Touching, **options))
    assert happened == ["load_weights", "sleep", "loss", "wake", "load_weights", "sleep", "loss"]


def spy(happened: list[str], what: str, method: Any = None) -> Any:
    async def managed(self: Any, *arguments: Any) -> None:
        happened.append(what)

    def called(self: Any, *arguments: Any) -> Any:
        happened.append(what)
        return method(self, *arguments)

    return called if method else managed


def test_an_engine_that_sleeps_cannot_sample_ahead() -> None:
    with pytest.raises(ValueError, match="the engine never sleeps"):
        GroupRelativeTrainer.Config(placement="colocate", policy_lag=1)


def test_several_processes_do_not_send_weights_while_others_sample_ahead(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    training = grpo(tmp_path, tiny_checkpoint, 2, placement="separate", policy_lag=1)
    with Runtime() as runtime, pytest.raises(cort.RequestError, match="while the engine still samples for"):
        training.run(runtime, StageReporter(SilentDisplay(), tmp_path / "m", "rl"), several=True)


def test_a_sharded_model_is_not_shared_with_an_engine(tmp_path: Path, tiny_checkpoint: Path) -> None:
    training = replace(grpo(tmp_path, tiny_checkpoint), launch=LaunchSettings(fsdp={}))
    with Runtime() as runtime, pytest.raises(cort.RequestError, match="cannot sample from a part"):
        training.run(runtime, StageReporter(SilentDisplay(), tmp_path / "m", "rl"), several=True)


@pytest.mark.parametrize("kind", ["fsdp", "deepspeed"])
def test_sharding_without_a_gpu_is_refused(tmp_path: Path, tiny_checkpoint: Path, kind: str) -> None:
    made = context(tmp_path, tiny_checkpoint, launch=LaunchSettings(processes=2, **{kind: {}}))
    with pytest.raises(cort.RequestError, match=f"launch.{kind} shards a model over GPUs"):
        meet(made)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("make", [sft, grpo])
def test_one_process_and_two_give_the_same_weights_after_three_steps(
    tiny_checkpoint: Path, tmp_path: Path, make: Any
) -> None:
    one = train(make(tmp_path / "one", tiny_checkpoint))
    two = train(make(tmp_path / "two", tiny_checkpoint, processes=2))
    assert weights_gap(one.path, two.path) < 1e-5
    assert weights_gap(one.path, tiny_checkpoint) > 1e-3
    assert made(tmp_path / "one") == made(tmp_path / "two")
    assert rewards(tmp_path / "two") == pytest.approx(rewards(tmp_path / "one"))


def made(folder: Path) -> list[tuple[str, int]]:
    path = folder / "trajectories.jsonl"
    return sorted((t.task.id, t.sample) for t in read_trajectories(path)) if path.exists() else []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ctrl_c_has_the_ranks_save_their_step_and_the_training_goes_on_to_the_same_weights(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    options = {"steps": 8, "save_every": 100}
    folder = tmp_path / "stopped"

    def interrupt() -> None:
        limit = time.monotonic() + 300
        while not (folder / "metrics.jsonl").exists() and time.monotonic() < limit:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        train(grpo(folder, tiny_checkpoint, 2, executor=Slow, **options))
    (saved,) = (folder / "training").glob("checkpoint-*")
    assert is_whole(saved) and 1 <= int(saved.name.rpartition("-")[2]) < 8
    again = train(grpo(folder, tiny_checkpoint, 2, executor=Slow, **options))
    whole = train(grpo(tmp_path / "whole", tiny_checkpoint, **options))
    assert weights_gap(again.path, whole.path) < 1e-5
    assert made(folder) == made(tmp_path / "whole")


def rewards(folder: Path) -> list[float]:
    """What the metrics say of each step's trajectories, whichever process made them."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["rollout/reward_mean"] for line in lines if "rollout/reward_mean" in line]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_worlds_of_one_are_an_error(tiny_checkpoint: Path, tmp_path: Path) -> None:
    training = sft(tmp_path / "alone", tiny_checkpoint, processes=2)
    options = training.trainer.config.model_dump()
    with pytest.raises(cort.CortError, match="one of 1 that train together, but the recipe asked for 2"):
        train(replace(training, trainer=resolved("trainer", Alone, **options)))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_rank_ends_the_training_and_the_next_one_goes_on_to_the_same_weights(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    options = {"save_every": 1}
    with pytest.raises(StageFailed, match=r"process 1 of 2 .* was ended by SIGKILL \(exit code -9\)"):
        train(grpo(tmp_path / "killed", tiny_checkpoint, 2, executor=Killed, **options))
    assert sorted((tmp_path / "killed" / "training").glob("checkpoint-*"))
    again = train(grpo(tmp_path / "killed", tiny_checkpoint, 2, executor=Killed, **options))
    whole = train(grpo(tmp_path / "whole", tiny_checkpoint, **options))
    assert weights_gap(again.path, whole.path) < 1e-5
    assert made(tmp_path / "killed") == made(tmp_path / "whole")
