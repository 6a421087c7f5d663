"""Task source `tiny`."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from pydantic import Field, field_validator

from cort_framework.interfaces import PluginConfig, TaskSource
from cort_framework.types import Task
from cort_tiny.families import FAMILIES, OUT_OF_RANGE
from cort_tiny.problems import Problem, Split, draw

ENOUGH_TRIES = 200


class TinyTasks(TaskSource):
    """Generated problems, the families in turn; no split shares an instance with another."""

    name = "tiny"

    class Config(PluginConfig):
        """What to draw."""

        split: Split = "train"
        """`train`, `test` (in range, held out of the corpus) or `test-out` (larger than its family's problems there)."""
        size: int = Field(default=100, ge=1)
        """How many tasks."""
        seed: int = Field(default=0, ge=0)
        """The same seed gives the same tasks in the same order; a larger `size` only adds to them."""
        families: tuple[str, ...] = ()
        """Only these families; all of them where empty."""

        @field_validator("families")
        @classmethod
        def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
            for name in names:
                if name not in FAMILIES:
                    raise ValueError(f"there is no family {name!r}; the families are {', '.join(FAMILIES)}")
            return names

    config: Any

    def tasks(self) -> Iterator[Task]:
        """The tasks: instances are distinct until a family's are used up; then they come again in another wording."""
        config = self.config
        rng = Random(f"tasks-{config.split}-{config.seed}")
        families = [FAMILIES[name] for name in config.families or FAMILIES]
        instances: set[tuple[str, tuple[int, ...]]] = set()
        wordings: set[str] = set()
        for number in range(config.size):
            family = families[number % len(families)]
            for attempt in range(2 * ENOUGH_TRIES):
                problem = draw(rng, family, config.split)
                words = rng.choice(family.wordings(problem.parameters))
                instance = (family.name, problem.parameters)
                if instance not in instances or (attempt >= ENOUGH_TRIES and words not in wordings):
                    break
            else:
                raise ValueError(
                    f"the family {family.name} has no more than {number // len(families)} problems of the split "
                    f"{config.split}: ask for a smaller size"
                )
            instances.add(instance)
            wordings.add(words)
            yield _task(problem, words, f"tiny-{config.split}-{config.seed}-{number:05d}")


def _task(problem: Problem, words: str, identifier: str) -> Task:
    level = "out-of-range" if problem.level == OUT_OF_RANGE else str(problem.level)
    return Task(identifier, words, str(problem.answer), {"family": problem.family.name, "level": level})
