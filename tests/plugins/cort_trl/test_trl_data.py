"""Training data in files: the same rows as in memory."""

from __future__ import annotations

from pathlib import Path

from cort_framework.rendering import render
from cort_framework.store import Trajectories, TrajectoryLog
from cort_framework.testing import make_trajectory
from cort_framework.types import Task
from cort_trl.data import rendered, stored
from cort_trl.sft import _packed, training_order


def test_ids_and_masks_in_the_file_are_those_of_the_trajectories(tmp_path: Path) -> None:
    log = TrajectoryLog(tmp_path / "trajectories.jsonl")
    for n in range(40):
        pieces = [("prompt", f"{n}?"), ("hint", "Let us see.")]
        if n % 4:
            pieces += [("model", "x" * (n % 7 + 1)), ("tool", "1"), ("model", f"{n}")]
        log.append([make_trajectory(pieces, Task(f"t{n}", "?"))])
    log.close()
    trajectories = Trajectories.kept(log.path)
    samples, lengths = rendered(trajectories, ["model"], tmp_path / "data" / "samples.arrow")
    expected = [render(t, ["model"]) for t in trajectories]
    expected = [r for r in expected if any(r.mask)]
    assert len(samples) == len(expected) == 30 and list(lengths) == [len(r.input_ids) for r in expected]
    assert samples["input_ids"][:] == [r.input_ids for r in expected]
    assert samples["completion_mask"][:] == [r.mask for r in expected]
    assert samples.cache_files  # mapped, not held

    order = training_order(lengths, 8, 5, seed=1)
    rows = list(_packed(samples.select(order), 8, 3))
    ids = [i for row in rows for i in row["input_ids"]]
    assert len(rows) == 15 and sorted(ids) == sorted(i for n in order for i in expected[n].input_ids)
    trained = sum(sum(expected[n].mask) for n in order)
    assert sum(label != -100 for row in rows for label in row["labels"]) == trained
    packed = stored(iter(rows), tmp_path / "rows.arrow", ("input_ids", "labels", "seq_lengths"))
    assert packed[:] == {name: [row[name] for row in rows] for name in packed.column_names}
