"""What a row of the table is, and how two ways of doing a thing are timed side by side."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import median
from typing import Literal

Measure = Callable[[], Awaitable[float]]
"""Seconds."""


@dataclass(frozen=True)
class Row:
    """One figure beside its baseline. ``met`` is ``None`` where it could not be measured, and ``note`` says why."""

    figure: str
    baseline: str
    target: str
    ours: str
    theirs: str = ""
    ratio: float | None = None
    met: bool | None = None
    note: str = ""


async def side_by_side(
    rounds: int, ours: Measure, theirs: Measure, repeat: int = 4
) -> tuple[list[float], list[float]]:
    """Both in turn, so that what else the machine does meets both: a round is one of theirs and ``repeat`` of ours."""
    mine: list[float] = []
    other: list[float] = []
    for _ in range(rounds):
        other.append(await theirs())
        mine.extend([await ours() for _ in range(repeat)])
    return mine, other


def compare(
    figure: str,
    baseline: str,
    times: tuple[list[float], list[float]],
    limit: float,
    kind: Literal["faster", "of the time", "more"] = "faster",
    note: str = "",
) -> Row:
    """A row of two lists of seconds, by their medians: at least ``limit`` times faster (or more a second), or at most
    ``limit`` times the time."""
    ours, theirs = (median(seconds) for seconds in times)
    if kind == "of the time":
        ratio, target = ours / theirs, f"≤ {limit:g}×"
        met = ratio <= limit
    else:
        ratio, target = theirs / ours, f"≥ {limit:g}×"
        met = ratio >= limit
    show = rate if kind == "more" else milliseconds
    return Row(figure, baseline, target, show(times[0]), show(times[1]), ratio, met, note)


def milliseconds(seconds: list[float]) -> str:
    """Median, and the least in brackets."""
    return f"{median(seconds) * 1e3:.1f} [{min(seconds) * 1e3:.1f}] ms"


def rate(seconds: list[float]) -> str:
    return f"{1 / median(seconds):.1f} a second"
