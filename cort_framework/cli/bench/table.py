"""For every ``cort bench`` command: what a row of its table is, and how two ways of doing a thing are timed side by side."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Literal

import click

from cort_framework.cli.options import echo_json, echo_table
from cort_framework.errors import CortError

Measure = Callable[[], Awaitable[float]]
"""Seconds."""


@dataclass(frozen=True)
class Row:
    """One figure beside its baseline. ``met`` is ``None`` where there is no target, or where it could not be measured
    and ``note`` says why."""

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


def report(rows: Sequence[Row], as_json: bool = False) -> None:
    """Prints the table. Raises ``CortError``, exit code 1, where a row missed its target."""
    if as_json:
        echo_json([asdict(row) for row in rows])
    else:
        head = ("figure", "baseline", "ours", "baseline's", "ratio", "target", "")
        echo_table(head, [_cells(row) for row in rows])
        for row in rows:
            if row.note:
                click.echo(f"{row.figure}: {row.note}")
    if missed := [row.figure for row in rows if row.met is False]:
        raise CortError(
            f"missed: {'; '.join(missed)}", "a busy machine moves ratios: run the part again by its name"
        )


def _cells(row: Row) -> tuple[str, ...]:
    verdict = {True: "met", False: "MISSED", None: "" if row.ours else "not measured"}[row.met]
    ratio = "" if row.ratio is None else f"{row.ratio:.3g}×"
    return row.figure, row.baseline, row.ours, row.theirs, ratio, row.target, verdict
