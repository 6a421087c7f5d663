"""Reward ``chemistry``: the answers to the task source ``molecules``."""

from __future__ import annotations

import re
from collections import Counter

from cort_framework import RewardFunction, Trajectory
from cort_framework.evaluation import last_boxed

_WRAPPER = re.compile(r"\\(?:text|mathrm|mathbf|textbf|texttt|ce)\s*\{([^{}]*)\}")
_NUMBER = re.compile(r"[-+−]?\d{1,30}(?:\.\d{1,30})?")
_ELEMENT = re.compile(r"([A-Z][a-z]?)(\d{0,6})")


class ChemistryReward(RewardFunction):
    """1 where the last ``\\boxed{}`` after the thinking is the task's answer, else 0.

    The task's ``answer_kind`` says how they are compared: a ``number`` to within its ``tolerance``, a unit allowed behind
    it; a ``formula`` by its atoms, in whatever order; a ``text`` by its characters. A trajectory that did not come to its
    end scores 0. Does not apply to a task without an answer.
    """

    name = "chemistry"

    async def score(self, trajectory: Trajectory) -> float | None:
        task = trajectory.task
        if task.answer is None:
            return None
        given = last_boxed(trajectory.final_text) if trajectory.finished else None
        if not given:
            return 0.0
        kind = task.metadata.get("answer_kind", "text")
        tolerance = float(task.metadata.get("tolerance", 0.0))
        return float(same(task.answer, given, kind, tolerance))


def same(gold: str, given: str, kind: str, tolerance: float = 0.0) -> bool:
    """Whether an answer is the reference. Raises ``ValueError`` for a kind that is not known."""
    given = plain(given)
    if kind == "number":
        found = _NUMBER.match(given)
        return found is not None and abs(float(found[0].replace("−", "-")) - float(gold)) <= tolerance + 1e-9
    if kind == "formula":
        return atoms(gold) == atoms(re.sub(r"[\s_{}]", "", given)) is not None
    if kind == "text":
        return given == gold
    raise ValueError(f"a task's answer_kind is number, formula or text, not {kind!r}")


def plain(text: str) -> str:
    """Without what LaTeX needs around it."""
    text = _WRAPPER.sub(r"\1", text.strip().strip("$"))
    return re.sub(r"\\([#_%&$])", r"\1", text).strip().strip("`").strip()


def atoms(formula: str) -> Counter[str] | None:
    """How many of each element, an amount that is not written being one; ``None`` for what is no formula."""
    if not formula or _ELEMENT.sub("", formula):
        return None
    total: Counter[str] = Counter()
    for element, amount in _ELEMENT.findall(formula):
        total[element] += int(amount) if amount else 1
    return total
