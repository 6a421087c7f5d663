"""The plan: a recipe with every name resolved to a class and its settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cort_framework.guards.canaries import Canaries
from cort_framework.recipe.settings import LaunchSettings, Recipe, RolloutSettings
from cort_framework.recipe.tables import Table
from cort_framework.registry import Resolved


@dataclass(frozen=True)
class PlannedStage:
    """One stage, ready to run."""

    name: str
    stage: Resolved
    trainer: Resolved | None
    engine: Resolved
    executor: Resolved
    rollout: RolloutSettings
    """The recipe's, with the stage's own over it."""
    launch: LaunchSettings
    """The processes that its trainer runs in."""
    canaries: Canaries
    model: str | None
    """A folder or hub id to start from; ``None`` where ``model_from`` says which stage makes it."""
    model_from: str | None
    """The earlier stage whose checkpoint it starts from."""
    uses: Mapping[str, tuple[str, ...]]
    """For each of tasks, tools, hints, filters, rewards and data: the keys that the stage's Config refers to. Where the
    Config has such a field and it is ``None``: all of the recipe's. A mapping refers by its values where they are
    strings, else by its keys."""
    table: Table
    """All that decides what the stage makes, as JSON: the basis of its cache key."""


@dataclass(frozen=True)
class Plan:
    """A recipe with every name resolved. Making one starts nothing."""

    recipe: Recipe
    model: str | None
    tasks: Mapping[str, Resolved]
    tools: Mapping[str, Resolved]
    hints: Mapping[str, Resolved]
    filters: Mapping[str, Resolved]
    rewards: Mapping[str, Resolved]
    weights: Mapping[str, float]
    """Each reward's factor."""
    engines: Mapping[str, Resolved]
    """The engines that stages use."""
    executors: Mapping[str, Resolved]
    stages: Sequence[PlannedStage]

    @property
    def preload(self) -> tuple[str, ...]:
        """Modules that a Python kernel imports because some tool of the recipe asks for it."""
        return tuple(dict.fromkeys(module for tool in self.tools.values() for module in tool.cls.preload))

    def stage(self, name: str) -> PlannedStage:
        return next(s for s in self.stages if s.name == name)

    def to_json(self) -> str:
        """``plan.json``: the recipe as it stands, and each stage's resolved table."""
        recipe = self.recipe.model_dump(mode="json")
        return json.dumps(
            {"recipe": recipe, "model": self.model, "stages": [s.table for s in self.stages]},
            ensure_ascii=False,
            indent=2,
        )
