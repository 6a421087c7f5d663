"""Training data in files that are mapped into memory: what a process holds does not grow with the number of samples."""

from __future__ import annotations

import shutil
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cort_framework as cort
from cort_framework.rendering import render

FORMATS = {"input_ids": "int32", "completion_mask": "int8", "labels": "int32", "seq_lengths": "int32"}
"""Of the columns that there may be."""


@contextmanager
def own_folder(parent: Path) -> Iterator[Path]:
    """A folder for this one of the processes that train together, as long as it is needed. What a killed process has left
    there is removed first."""
    from accelerate import PartialState

    state = PartialState()
    folder = parent / str(state.process_index)
    for left in parent.glob("*"):
        if left == folder or int(left.name) >= state.num_processes:
            shutil.rmtree(left, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # the others have theirs in it
            parent.rmdir()


def rendered(
    trajectories: Iterable[cort.Trajectory], train_on: Sequence[cort.Author], file: Path
) -> tuple[Any, array[int]]:
    """Ids and masks of those that have a token to train on, as a ``datasets.Dataset``, and how long each is."""
    lengths = array("I")

    def rows() -> Iterator[dict[str, list[int]]]:
        for trajectory in trajectories:
            sample = render(trajectory, train_on)
            if any(sample.mask[1:]):  # nothing predicts the first
                lengths.append(len(sample.input_ids))
                yield {"input_ids": sample.input_ids, "completion_mask": sample.mask}

    return stored(rows(), file, ("input_ids", "completion_mask")), lengths


def stored(rows: Iterable[Mapping[str, Sequence[int]]], file: Path, columns: Sequence[str]) -> Any:
    """The rows, each column a list of integers, as a ``datasets.Dataset`` in an Arrow file that is written as they come."""
    from datasets import Dataset, Features, List, Value
    from datasets.arrow_writer import ArrowWriter

    file.parent.mkdir(parents=True, exist_ok=True)
    features = Features({name: List(Value(FORMATS[name])) for name in columns})
    with ArrowWriter(path=str(file), features=features) as writer:
        for row in rows:
            writer.write({name: row[name] for name in columns})
        writer.finalize()
    return Dataset.from_file(str(file))
