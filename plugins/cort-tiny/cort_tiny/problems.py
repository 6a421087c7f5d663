"""Problems drawn from a seed, in splits that share no instance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from random import Random
from typing import Literal

from cort_tiny.families import LARGE, OUT_OF_RANGE, Family, Parameters

Split = Literal["train", "test", "test-out"]

TEST_BUCKETS = 2  # of ten: a fifth of every family's instances is kept for the in-range test

# The levels of the tasks that are in range, family by family, set so that the base solves some of each by hand; three tasks in
# ten have numbers that nobody would work with by hand.
TASK_LEVELS: dict[str, dict[int, float]] = {
    "product": {2: 0.5, 3: 0.2, LARGE: 0.3},
    "modular-power": {2: 0.4, 3: 0.3, LARGE: 0.3},
    "multiples": {2: 0.4, 3: 0.3, LARGE: 0.3},
    "divisors": {1: 0.3, 2: 0.4, LARGE: 0.3},
    "recurrence": {2: 0.4, 3: 0.3, LARGE: 0.3},
    "base-conversion": {2: 0.4, 3: 0.3, LARGE: 0.3},
    "power-sum": {2: 0.5, 3: 0.2, LARGE: 0.3},
    "digit-sum": {1: 0.2, 2: 0.4, 3: 0.1, LARGE: 0.3},
}


@dataclass(frozen=True)
class Problem:
    """One instance of a family at a level."""

    family: Family
    level: int
    parameters: Parameters

    @property
    def answer(self) -> int:
        return self.family.answer(self.parameters)


def is_test(family: Family, parameters: Parameters) -> bool:
    """Whether an instance belongs to the in-range test: a hash of what identifies it decides, once and for all."""
    identity = f"{family.name}:{','.join(map(str, family.identity(parameters)))}"
    return sha256(identity.encode()).digest()[0] % 10 < TEST_BUCKETS


def draw(rng: Random, family: Family, split: Split, levels: Mapping[int, float] | None = None) -> Problem:
    """Draw one problem of `split`; `levels` weighs the levels (by default those of the tasks, `TASK_LEVELS`)."""
    levels = levels or TASK_LEVELS[family.name]
    level = OUT_OF_RANGE if split == "test-out" else rng.choices(list(levels), list(levels.values()))[0]
    while True:
        parameters = family.sample(rng, level)
        if split == "test-out" or is_test(family, parameters) == (split == "test"):
            return Problem(family, level, parameters)
