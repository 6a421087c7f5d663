"""``cort trace same``: which trajectories of two runs are equal, and where the others begin to differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from cort_framework.cli.options import echo_json, json_option
from cort_framework.cli.show import percent, stdout, table, visible
from cort_framework.cli.traces import Trace, find_traces
from cort_framework.errors import RequestError
from cort_framework.types import Outcome, Trajectory, Turn

TIMELESS = "seconds"
"""What no two runs have in common, of a trajectory and of a call's result."""


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("other", type=click.Path(path_type=Path))
@click.option("--stage", help="Only this stage.")
@click.option(
    "--at-least", type=click.FloatRange(0, 100), metavar="PERCENT", help="Exit code 1 where fewer are equal."
)
@json_option
def same(run: Path, other: Path, stage: str | None, at_least: float | None, as_json: bool) -> int:
    """Count the trajectories that RUN and OTHER have in common, to the last token, log-probability, output and reward; only the
    seconds that they took are left out. With `deterministic = true` all are, for the same recipe and seed on the same
    machine; calls that ran into a time limit may differ all the same, and are counted."""
    records = sameness(find_traces(run, stage), find_traces(other, stage))
    if as_json:
        echo_json(records)
    else:
        rows = [
            (
                r["stage"],
                str(r["trajectories"]),
                str(r["equal"]),
                percent(r["equal_share"], 2),
                str(r["tokens_equal"]),
                str(r["only_in_one"]),
                str(r["timeouts"]),
            )
            for r in records
        ]
        columns = (
            "stage",
            "trajectories",
            "equal",
            "share",
            "equal\ntokens",
            "only in\none",
            "calls that\ntimed out",
        )
        console = stdout()
        console.print(table(columns, rows))
        for r in records:
            if r["first_difference"]:
                console.print(f"{r['stage']}: {r['first_difference']}", soft_wrap=True)
    shares = [r["equal_share"] for r in records]
    return int(at_least is not None and min(shares) < at_least / 100)


def sameness(one: Sequence[Trace], other: Sequence[Trace]) -> list[dict[str, Any]]:
    """A record for each stage that either has. Raises ``RequestError`` where they have none in common."""
    mine, theirs = ({trace.stage: trace for trace in traces} for traces in (one, other))
    if not mine.keys() & theirs.keys():
        raise RequestError(
            "the two have no stage in common",
            f"one has {', '.join(mine)}, the other {', '.join(theirs)}",
        )
    return [_stage(name, mine.get(name), theirs.get(name)) for name in mine | theirs]


def _stage(name: str, one: Trace | None, other: Trace | None) -> dict[str, Any]:
    """Holds two digests for each trajectory, not the trajectories."""
    timeouts = 0
    known: dict[str, tuple[bytes, bytes]] = {}
    for trajectory in one.read() if one else ():
        timeouts += _timeouts(trajectory)
        known[trajectory.id] = _digests(trajectory)
    total, equal, tokens, alone = len(known), 0, 0, 0
    first: str | None = None
    for trajectory in other.read() if other else ():
        timeouts += _timeouts(trajectory)
        mine, theirs = known.pop(trajectory.id, None), _digests(trajectory)
        if mine is None:
            total, alone = total + 1, alone + 1
            continue
        equal += mine == theirs
        tokens += mine[1] == theirs[1]
        if mine != theirs and first is None and one is not None:
            again = next(t for t in one.read(trajectory.id) if t.id == trajectory.id)
            first = f"{trajectory.id} differs {_where(again, trajectory)}"
    return {
        "stage": name,
        "trajectories": total,
        "equal": equal,
        "equal_share": equal / total if total else 1.0,
        "tokens_equal": tokens,
        "only_in_one": alone + len(known),
        "timeouts": timeouts,
        "first_difference": first,
    }


def timeless(trajectory: Trajectory) -> str:
    """The trajectory as JSON, without what it took in time."""
    turns = [
        replace(turn, result=replace(turn.result, seconds=0.0)) if turn.result is not None else turn
        for turn in trajectory.turns
    ]
    return replace(trajectory, turns=turns, seconds=0.0).to_json()


def _digests(trajectory: Trajectory) -> tuple[bytes, bytes]:
    """Of all of it, and of its tokens."""
    parts = timeless(trajectory), json.dumps(trajectory.ids)
    whole, ids = (hashlib.blake2b(part.encode(), digest_size=12).digest() for part in parts)
    return whole, ids


def _timeouts(trajectory: Trajectory) -> int:
    return sum(t.result is not None and t.result.outcome == Outcome.TIMEOUT for t in trajectory.calls)


def _where(one: Trajectory, other: Trajectory) -> str:
    """The first difference, in words."""
    position = 0
    for mine, theirs in zip(one.turns, other.turns, strict=False):
        if mine.ids != theirs.ids or mine.author != theirs.author:
            pairs = enumerate(zip(mine.ids, theirs.ids, strict=False))
            index = next((n for n, (a, b) in pairs if a != b), min(len(mine.ids), len(theirs.ids)))
            return f"from token {position + index} on, by the {mine.author}: {_excerpt(mine, theirs)}"
        position += len(mine.ids)
    if len(one.turns) != len(other.turns):
        return f"from token {position} on, where one of them ends ({one.stop_reason}, {other.stop_reason})"
    gaps = [
        abs(a - b)
        for mine, theirs in zip(one.turns, other.turns, strict=True)
        for a, b in zip(mine.logprobs or (), theirs.logprobs or (), strict=False)
    ]
    if max(gaps, default=0.0):
        return f"in log-probabilities alone, by {max(gaps):.2g} nats at most"
    names = [n for n in vars(one) if n not in (TIMELESS, "turns") and getattr(one, n) != getattr(other, n)]
    return f"in {' and '.join(names) or 'what its calls returned'} alone"


def _excerpt(one: Turn, other: Turn) -> str:
    pairs = enumerate(zip(one.text, other.text, strict=False))
    common = next((n for n, (a, b) in pairs if a != b), min(len(one.text), len(other.text)))
    begin = max(0, common - 10)
    return f"{visible(one.text[begin:][:40])!r} and {visible(other.text[begin:][:40])!r}"
