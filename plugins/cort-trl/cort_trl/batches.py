"""The trajectories of one step, and those that a checkpoint keeps because they are not trained on yet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cort_framework as cort
from cort_framework.store import read_trajectories, write_json, write_text


@dataclass
class Batch:
    step: int
    version: int
    """Of the weights that they were sampled from: 1 + the steps that those had been trained for."""
    tasks: list[str]
    """Ids of the tasks that were drawn; a group that was resampled has another."""
    groups: list[list[cort.Trajectory]] = field(repr=False)
    figures: dict[str, float]
    seconds: float
    """What it took to load the weights and to roll out."""


def write_batches(folder: Path, rank: int, batches: Sequence[Batch]) -> None:
    """Of one process: ``step-7.rank-0.jsonl`` with the trajectories, and a ``.json`` of the same name with the rest."""
    for batch in batches:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"step-{batch.step}.rank-{rank}.json"
        lines = [t.to_json() + "\n" for group in batch.groups for t in group]
        write_text(file.with_suffix(".jsonl"), "".join(lines))
        write_json(file, {**vars(batch), "groups": [len(group) for group in batch.groups]})


def read_batches(folder: Path, rank: int) -> Iterator[Batch]:
    """What ``write_batches`` wrote, in no order."""
    for file in folder.glob(f"step-*.rank-{rank}.json"):
        rest = json.loads(file.read_text(encoding="utf-8"))
        trajectories = read_trajectories(file.with_suffix(".jsonl"))
        rest["groups"] = [[next(trajectories) for _ in range(size)] for size in rest["groups"]]
        yield Batch(**rest)
