"""A small world for the pipeline's tests: sums, a scripted pupil who learns by the number of samples, and what judges it.

A module of its own, so that a test can run the same pipeline in a process that it kills.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from functools import cache
from pathlib import Path
from typing import Any

from scripted import PythonHere, python

from cort_framework import (
    Checkpoint,
    Filter,
    HintInjector,
    PluginConfig,
    Recipe,
    RewardFunction,
    Sampling,
    Task,
    TaskSource,
    TrainContext,
    Trainer,
    Trajectory,
    Verdict,
    Weights,
)
from cort_framework.display import SilentDisplay
from cort_framework.pipeline import RunReport, run
from cort_framework.recipe import make_plan
from cort_framework.registry import Registry
from cort_framework.stages import cort_executors, cort_stages
from cort_framework.testing import ScriptedEngine, says
from cort_framework.types import Hint


class Sums(TaskSource):
    """``n + n`` for ``count`` numbers from ``start``, or as a file says, one a line."""

    name = "sums"

    class Config(PluginConfig):
        count: int = 8
        start: int = 0
        file: str | None = None
        ids: str = "sum"

    config: Config

    def tasks(self) -> list[Task]:
        c = self.config
        numbers = map(int, Path(c.file).read_text().split()) if c.file else range(c.start, c.start + c.count)
        return [Task(f"{c.ids}-{n}", f"What is {n}+{n}?", str(2 * n)) for n in numbers]


class Pupil(ScriptedEngine):
    """Right where ``n % 10`` is below what its weights know. Names the prompt in its noise: odd samples write more."""

    name = "pupil"
    knows = 0
    break_at: str | None = None
    """Tasks whose prompt holds this fail by the engine's fault."""
    kill_after: int | None = None
    """Generations until the process is killed."""
    asked = 0

    class Config(PluginConfig):
        seconds: float = 0.0

    async def load_weights(self, weights: Weights) -> None:
        assert weights.path is not None
        self.knows = json.loads((Path(weights.path) / "config.json").read_text())["knows"]
        self.version = weights.version

    async def generate(self, ids: Any, sampling: Sampling) -> Any:
        type(self).asked += 1
        if self.kill_after is not None and self.asked > self.kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.break_at is not None and self.break_at in self.tokenizer.decode(ids):
            raise OSError("the engine broke")
        await asyncio.sleep(self.config.seconds)
        return await super().generate(ids, sampling)

    def write(self, prompt: str, response: str) -> str:
        found = re.search(r"(\d+)\+", prompt)
        assert found is not None
        n = int(found[1])
        answer = 2 * n if n % 10 < self.knows else 2 * n + 1
        return says(f"<think>\n{python(f'print({answer})')}", f"</think>\\boxed{{{answer}}}")(
            prompt, response
        )


class Answer(RewardFunction):
    name = "answer"

    async def score(self, trajectory: Trajectory) -> float | None:
        return float(f"\\boxed{{{trajectory.task.answer}}}" in trajectory.final_text)


class Right(Filter):
    name = "right"

    def judge(self, trajectory: Trajectory) -> Verdict:
        return Verdict(trajectory.rewards["answer"].value == 1, "the answer is wrong")


class Nothing(Filter):
    """Keeps nothing."""

    name = "nothing"

    def judge(self, trajectory: Trajectory) -> Verdict:
        return Verdict(False, "as a matter of principle", (0, 1))


class Okay(HintInjector):
    name = "okay"

    def inject(self, trajectory: Trajectory) -> Hint | None:
        return None if trajectory.response else Hint("Okay.\n")


class Teach(Trainer):
    """A checkpoint that knows as many more sums as there were samples, or as the rollouts that it made were right."""

    name = "teach"
    trained: list[str] = []

    class Config(PluginConfig):
        rate: float = 1.0
        fail: bool = False

    config: Config

    def train(self, context: TrainContext) -> Checkpoint:
        self.trained.append(context.folder.name)
        if self.config.fail:
            raise FloatingPointError("the loss is nan")
        knows = json.loads((Path(context.model) / "config.json").read_text())["knows"]
        gained = len(context.trajectories)
        if context.rollout is not None and context.load_weights is not None:
            from cort_framework import RolloutRequest

            context.load_weights(Weights(context.model, version=1))
            made = context.rollout([RolloutRequest(t, s) for t in context.tasks for s in range(2)])
            assert [t.task for t in made] == [t for t in context.tasks for _ in range(2)]
            assert all(t.turns[1].weights_version == 1 for t in made)
            gained = sum(t.reward > 0 for t in made)
        folder = context.folder / "checkpoint"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(
            json.dumps({"knows": min(10, knows + int(gained * self.config.rate))})
        )
        return Checkpoint(folder)


ALL = (Sums, Pupil, Answer, Right, Nothing, Okay, Teach, PythonHere, *cort_stages(), *cort_executors())


@cache
def registry() -> Registry:
    registry = Registry(plugins=())
    for cls in ALL:
        registry.register(cls)
    return registry


def base(folder: Path, knows: int = 3) -> str:
    """A model folder to start from."""
    path = folder / f"base-{knows}"
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({"knows": knows}))
    return str(path)


STAGES: dict[str, dict[str, Any]] = {
    "before": {"kind": "evaluate", "system": "base", "tasks": ["test", "hard"], "samples": 2},
    "make": {"kind": "synthesize", "tasks": "train", "target": 2, "hints": ["okay"], "filters": ["right"]},
    "sft": {"kind": "sft", "data": ["make"], "trainer": "teach"},
    "middle": {"kind": "evaluate", "system": "sft", "tasks": ["test", "hard"], "samples": 2},
    "rft": {"kind": "rft", "tasks": "train", "samples": 2, "filters": ["right"], "trainer": "teach"},
    "rl": {"kind": "rl", "tasks": "train", "trainer": "teach"},
    "after": {"kind": "evaluate", "system": "rl", "tasks": ["test"], "samples": 2},
}


def recipe(folder: Path, *stages: str, **changes: Any) -> Recipe:
    """The recipe of the stages named, all by default; ``make__target=3`` changes a key of a stage, ``seed=1`` one of the
    recipe."""
    tables = {name: {"name": name, **STAGES[name]} for name in stages or STAGES}
    top: dict[str, Any] = {}
    for key, value in changes.items():
        stage, _, name = key.rpartition("__")
        (tables[stage] if stage else top)[name] = value
    return Recipe.model_validate(
        {
            "schema": 1,
            "name": "world",
            "model": base(folder),
            "tasks": {
                "train": {"source": "sums"},
                "test": {"source": "sums", "start": 100, "count": 10},
                "hard": {"source": "sums", "start": 205, "count": 5},
            },
            "rollout": {"engine": "pupil", "tools": {"python": {}}},
            "hints": {"okay": {}},
            "filters": {"right": {}, "nothing": {}},
            "rewards": {"answer": {}},
            "stage": list(tables.values()),
            **top,
        }
    )


def go(folder: Path, *stages: str, from_stage: str | None = None, **changes: Any) -> RunReport:
    """Run it in ``folder / "run"``."""
    plan = make_plan(recipe(folder, *stages, **changes), registry())
    return run(plan, folder / "run", from_stage=from_stage, display=SilentDisplay())
