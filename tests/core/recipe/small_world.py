"""A small world of plugins, registered as a script registers its own, and a recipe that uses all of them."""

from __future__ import annotations

from typing import Any

import cort_framework as cort


class Numbers(cort.TaskSource):
    """Tasks."""

    name = "numbers"

    class Config(cort.PluginConfig):
        size: int = 3

    def tasks(self) -> list[cort.Task]:
        return [cort.Task(str(n), "?", str(n)) for n in range(self.config.size)]


class Pen(cort.Tool):
    """A tool."""

    name = "pen"
    language = "pen"

    def session(self, task: cort.Task, *, trajectory_id: str, seed: int) -> Any:
        raise NotImplementedError


class Prize(cort.RewardFunction):
    """A reward."""

    name = "prize"

    class Config(cort.PluginConfig):
        limits: tuple[int, int] = (0, 1)

    async def score(self, trajectory: cort.Trajectory) -> float:
        return 1.0


class Silent(cort.Engine):
    """An engine."""

    name = "silent"

    class Config(cort.PluginConfig):
        batch: int = 1

    async def load_weights(self, weights: cort.Weights) -> None: ...
    async def generate(self, ids: Any, sampling: cort.Sampling) -> cort.Generation:
        raise NotImplementedError


class Gradient(cort.Trainer):
    """A trainer."""

    name = "gradient"

    class Config(cort.PluginConfig):
        lr: float = 1e-5
        epochs: int = 1

    def train(self, context: cort.TrainContext) -> cort.Checkpoint:
        raise NotImplementedError


class Learn(cort.Stage):
    """Makes a checkpoint."""

    name = "learn"
    produces_checkpoint = True
    default_trainer = "gradient"

    class Config(cort.PluginConfig):
        tasks: str | None = None
        tools: list[str] | None = None
        rewards: list[str] = []
        data: list[str] = []

    def run(self, run: Any) -> cort.StageResult:
        raise NotImplementedError


class Measure(cort.Stage):
    """Makes a report."""

    name = "measure"

    class Config(cort.PluginConfig):
        tasks: dict[str, str] = {}

    def run(self, run: Any) -> cort.StageResult:
        raise NotImplementedError


PLUGINS = (Numbers, Pen, Prize, Silent, Gradient, Learn, Measure)

GOOD = """\
# A small one.
schema = 1
name = "small"
model = "owner/model"

[tasks.train]
source = "numbers"
size = 5

[rollout]
engine = "silent"
max_tokens = 100

[rollout.tools.pen]

[rewards.right]
use = "prize"
weight = 0.5
limits = [
    1,
    2,
]

[[stage]]
name = "first"
kind = "learn"
tasks = "train"
rewards = ["right"]
options.lr = 2e-5

[[stage]]
name = "look"
kind = "measure"
tasks = { small = "train" }

[stage.rollout]
temperature = 0
prompt = "natural"

[profile.big]
rollout.max_tokens = 4000
model = "owner/big"

[profile.big.stage.first]
options.epochs = 3
"""
