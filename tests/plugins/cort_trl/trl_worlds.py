"""Recorded trajectories, as an executor gives them, and trainings that several processes can be started for."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trl_runs import random_trajectories

import cort_framework as cort
from cort_framework.display import SilentDisplay, StageReporter
from cort_framework.executor import RolloutJob
from cort_framework.recipe.settings import LaunchSettings, RolloutSettings
from cort_framework.registry import Resolved
from cort_framework.runtime import Runtime
from cort_framework.training import Training
from cort_framework.training.launch import launch
from cort_transformers.engine import TransformersEngine
from cort_trl.grpo import GroupRelativeTrainer
from cort_trl.sft import SupervisedTrainer

TASKS = [cort.Task(f"t{i}", f"{i}+1=?") for i in range(8)]
THREE_STEPS = {"learning_rate": 1e-3, "schedule": "constant", "micro_batch": 2, "save_every": 2}


class Recorded(cort.Executor):
    """The same trajectory for a task and sample, whoever asks."""

    name = "recorded"

    def map(self, job: RolloutJob, runtime: Runtime) -> Iterator[list[cort.Trajectory]]:
        for request in job.requests:
            yield [recorded(request, job.weights.version)]


class Touching(Recorded):
    """Uses the engine, as an executor does, for as much as having it ready."""

    name = "touching"

    def map(self, job: RolloutJob, runtime: Runtime) -> Iterator[list[cort.Trajectory]]:
        runtime.engine(job.engine, job.weights)
        yield from super().map(job, runtime)


class Killed(Recorded):
    """Rank 1 is killed in the middle of the third step's rollouts, once."""

    name = "killed"

    def map(self, job: RolloutJob, runtime: Runtime) -> Iterator[list[cort.Trajectory]]:
        once = Path(os.environ["CORT_KILLED_ONCE"])
        for n, line in enumerate(super().map(job, runtime)):
            if os.environ.get("RANK") == "1" and job.weights.version == 3 and n == 3 and not once.exists():
                once.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield line


class Slow(Recorded):
    """Takes half a second for a batch."""

    name = "slow"

    def map(self, job: RolloutJob, runtime: Runtime) -> Iterator[list[cort.Trajectory]]:
        time.sleep(0.5)
        yield from super().map(job, runtime)


class Alone(SupervisedTrainer):
    """Has lost what the launcher told it of the others, as under a launcher that says nothing."""

    name = "alone"

    def train(self, context: cort.TrainContext) -> cort.Checkpoint:
        for variable in (
            "RANK",
            "WORLD_SIZE",
            "LOCAL_RANK",
            "LOCAL_WORLD_SIZE",
            "MASTER_ADDR",
            "MASTER_PORT",
        ):
            os.environ.pop(variable, None)
        return super().train(context)


def recorded(request: cort.RolloutRequest, version: int = 0) -> cort.Trajectory:
    noise = random.Random(f"{request.key}")

    def ids(most: int) -> tuple[int, ...]:
        return tuple(noise.randrange(5, 250) for _ in range(noise.randrange(1, most)))

    def sampled(most: int) -> cort.Turn:
        tokens = ids(most)
        return cort.Turn("model", tokens, "", tuple(noise.uniform(-6, -5) for _ in tokens), version)

    turns = [
        cort.Turn("prompt", ids(9), ""),
        sampled(20),
        cort.Turn("tool", ids(6), ""),
        sampled(9),
    ]
    name = f"{request.task.id}/{request.sample}"
    rewards = {"answer": cort.Reward(noise.random())}
    return cort.Trajectory(name, request.task, request.sample, 0, turns, "eos", rewards=rewards)


def resolved(kind: str, cls: type[Any], **config: Any) -> Resolved:
    return Resolved(kind, cls.name, cls, cls.Config(**config), "tests", "0")


def sft(folder: Path, checkpoint: Path, processes: int = 1, **options: Any) -> Training:
    common = {"max_steps": 3, "batch_size": 8, **THREE_STEPS}
    trainer = resolved("trainer", SupervisedTrainer, **{**common, **options})
    return Training(
        trainer,
        folder,
        str(checkpoint),
        0,
        RolloutSettings(),
        LaunchSettings(processes=processes, threads=1, timeout_s=100),
        trajectories=random_trajectories(20),
    )


def grpo(
    folder: Path,
    checkpoint: Path,
    processes: int = 1,
    executor: type[cort.Executor] = Recorded,
    **options: Any,
) -> Training:
    common = {"steps": 3, "prompts_per_step": 4, "num_generations": 4, **THREE_STEPS}
    trainer = resolved("trainer", GroupRelativeTrainer, **{**common, **options})
    settings = RolloutSettings(temperature=1.0, top_p=1.0, max_tokens=32)
    engine = resolved("engine", TransformersEngine, threads=1)
    job = RolloutJob((), engine, cort.Weights(path=str(checkpoint)), settings, "{problem}", 0)
    return Training(
        trainer,
        folder,
        str(checkpoint),
        0,
        settings,
        LaunchSettings(processes=processes, threads=1, timeout_s=100),
        tasks=TASKS,
        job=job,
        executor=resolved("executor", executor),
    )


def train(training: Training) -> cort.Checkpoint:
    """As the pipeline does: here, or in processes of its own."""
    training.folder.mkdir(parents=True, exist_ok=True)
    reporter = StageReporter(SilentDisplay(), training.folder / "metrics.jsonl", "stage")
    with Runtime() as runtime:
        if training.launch.several:
            return launch(training, runtime, reporter)
        return training.run(runtime, reporter)


def weights_gap(a: Path, b: Path) -> float:
    """The largest difference between two checkpoints' weights."""
    from safetensors.torch import load_file

    first, second = (load_file(folder / "model.safetensors") for folder in (a, b))
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)
