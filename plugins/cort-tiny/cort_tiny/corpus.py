"""The corpus of the base: a mixture of texts, drawn from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from random import Random

from cort_tiny.families import FAMILIES, LARGE, Family
from cort_tiny.literacy import chemistry, literacy
from cort_tiny.problems import draw
from cort_tiny.texts import NATURAL_REQUEST, PROGRAM_REQUEST, TOOL_REQUEST, Text, natural, program, with_tool

HABITS = {
    "natural": (natural, NATURAL_REQUEST),
    "tool": (with_tool, TOOL_REQUEST),
    "program": (program, PROGRAM_REQUEST),
}
CORPUS_LEVELS = {1: 0.3, 2: 0.5, 3: 0.2}
TOOL_LEVELS = {1: 0.15, 2: 0.3, 3: 0.15, LARGE: 0.4}
LONGEST = 1600  # characters of a response; most tokens are a single character


@dataclass(frozen=True)
class Mixture:
    """Shares of the kinds of text; they add up to one."""

    natural: float = 0.36
    tool: float = 0.32
    program: float = 0.22
    literacy: float = 0.08
    chemistry: float = 0.02


def texts(seed: int, mixture: Mixture = Mixture()) -> Iterator[Text]:
    """Texts without end; problems of the in-range test never occur."""
    rng = Random(f"corpus-{seed}")
    families = cycle(FAMILIES.values())
    kinds = ("natural", "tool", "program", "literacy", "chemistry")
    shares = [getattr(mixture, kind) for kind in kinds]
    while True:
        kind = rng.choices(kinds, shares)[0]
        if kind == "literacy":
            yield literacy(rng)
        elif kind == "chemistry":
            yield chemistry(rng)
        else:
            yield _solution(rng, next(families), kind)


def _solution(rng: Random, family: Family, kind: str) -> Text:
    while True:
        levels = CORPUS_LEVELS if kind == "natural" else TOOL_LEVELS
        problem = draw(rng, family, "train", levels)
        words = rng.choice(family.wordings(problem.parameters))
        write, request = HABITS[kind]
        habit, response = write(rng, problem)
        if len(response) <= LONGEST:
            return Text(habit, family.name, f"{words}\n{request}", response)
