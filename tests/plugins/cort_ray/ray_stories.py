"""A scripted model that thinks for a while, and jobs for it. Workers import this module, too."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import cort_framework as cort
from cort_framework.executor import RolloutJob
from cort_framework.recipe.settings import RolloutSettings
from cort_framework.registry import Resolved
from cort_framework.testing import ScriptedEngine


class SlowEngine(ScriptedEngine):
    """Says the number in its prompt, after a pause, and leaves a note of who said it."""

    name = "slow"

    class Config(cort.PluginConfig):
        pause_s: float = 0.05
        notes: Path | None = None
        meet: int = 1
        """Processes that have left notes before it goes on."""

    def write(self, prompt: str, response: str) -> str:
        return f"So it is {prompt.split()[-1]}."

    async def generate(self, ids: Sequence[int], sampling: cort.Sampling) -> cort.Generation:
        await asyncio.sleep(self.config.pause_s)
        if self.config.notes is not None:
            with open(self.config.notes / str(os.getpid()), "a") as file:
                file.write(f"{self.tokenizer.decode(ids)!r}\n")
            while len(list(self.config.notes.iterdir())) < self.config.meet:  # the turn has a deadline
                await asyncio.sleep(0.05)
        return await super().generate(ids, sampling)


class BrokenEngine(SlowEngine):
    """Cannot load any weights."""

    name = "broken"

    async def load_weights(self, weights: cort.Weights) -> None:
        raise cort.RequestError("there is no such checkpoint", "look for it")


class Length(cort.RewardFunction):
    """Characters of the response."""

    name = "length-of-text"

    async def score(self, trajectory: cort.Trajectory) -> float:
        return float(len(trajectory.response))


def resolved(kind: str, cls: type[cort.Plugin], **options: object) -> Resolved:
    return Resolved(kind, cls.name, cls, cls.Config(**options), "this test", "0")


def job(
    count: int, engine: type[SlowEngine] = SlowEngine, batch_timeout_s: float = 120, **options: object
) -> RolloutJob:
    return RolloutJob(
        requests=[cort.RolloutRequest(cort.Task(f"t{n}", f"Say {n}"), n % 2) for n in range(count)],
        engine=resolved("engine", engine, **options),
        weights=cort.Weights(path="somewhere"),
        settings=RolloutSettings(
            concurrency=6,
            max_tokens=64,
            call_timeout_s=batch_timeout_s,
            turn_timeout_s=batch_timeout_s,
            trajectory_timeout_s=batch_timeout_s,
            batch_timeout_s=batch_timeout_s,
        ),
        template="{problem}",
        seed=7,
        rewards={"length-of-text": (resolved("reward", Length), 1.0)},
    )
