"""How good a detector is: its precision and recall on labelled spans, with intervals, by language and by phenomenon."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cort_hint_engineering.labelled import LabelledSpan

ALIKE = 0.4
"""Share of the wording that two items of one phenomenon have in common when they are one passage."""


@dataclass(frozen=True)
class Measured:
    """An item, and what a detector found in it."""

    item: LabelledSpan
    found: Sequence[tuple[int, int]]
    passage: int
    """Items that differ by their numbers or their surroundings alone are one passage."""

    @property
    def hit(self) -> bool:
        return any(self.item.hit_by(span) for span in self.found)

    @property
    def false(self) -> bool:
        """Something was found where nothing is: anything in a negative, and in a positive what does not meet the fault."""
        fault = self.item.span
        return any(fault is None or b <= fault[0] or a >= fault[1] for a, b in self.found)


@dataclass(frozen=True)
class Share:
    """``right`` of ``total`` items, which are ``passages`` independent ones."""

    right: int
    total: int
    passages: int

    @property
    def value(self) -> float | None:
        return self.right / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % by Wilson's score, with the passages as the number of observations."""
        if self.value is None:
            return None
        n, p, z = self.passages, self.value, 1.959964
        middle, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, (middle - spread) / (1 + z * z / n)), min(1.0, (middle + spread) / (1 + z * z / n))


@dataclass(frozen=True)
class Figures:
    """Of a set of items of one kind."""

    precision: Share
    recall: Share
    positives: int
    negatives: int
    false: int
    """Items in which something was found that is no fault."""


def measured(items: Sequence[LabelledSpan], found: Iterable[Sequence[tuple[int, int]]]) -> list[Measured]:
    """Each item with the findings for it, and the passage that it belongs to."""
    known: list[tuple[tuple[str, str, bool], set[str]]] = []
    rows = []
    for item, spans in zip(items, found, strict=True):
        group, wording = (item.kind, item.phenomenon, item.span is not None), _wording(item)
        passage = next((n for n, (g, w) in enumerate(known) if g == group and _alike(wording, w)), len(known))
        if passage == len(known):
            known.append((group, wording))
        rows.append(Measured(item, spans, passage))
    return rows


def figures(rows: Sequence[Measured]) -> Figures:
    positives = [row for row in rows if row.item.span is not None]
    hits = [row for row in positives if row.hit]
    false = [row for row in rows if row.false]
    claimed = len({row.passage for row in hits}) + len({row.passage for row in false})
    return Figures(
        precision=Share(len(hits), len(hits) + len(false), claimed),
        recall=Share(len(hits), len(positives), len({row.passage for row in positives})),
        positives=len(positives),
        negatives=len(rows) - len(positives),
        false=len(false),
    )


def _wording(item: LabelledSpan) -> set[str]:
    letters = re.sub(r"[\d\W_]+", "", (item.fault or item.response).lower())
    return {letters[n : n + 4] for n in range(max(1, len(letters) - 3))}


def _alike(a: set[str], b: set[str]) -> bool:
    return len(a & b) >= ALIKE * min(len(a), len(b))
