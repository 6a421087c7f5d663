"""The benchmark of streaming runs, every operation of it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import stream


def test_a_filtered_file_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    size, head, row = stream.table([80], ["filter"], tmp_path)
    assert size.startswith("80 trajectories: ") and head.startswith("operation")
    assert re.fullmatch(r"filter +\d+\.\d\d +\d+\.\d +\d+ +-?\d+\.\d", row)


@pytest.mark.slow
def test_every_operation_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["stream.py", "--size", "160", "--size", "80", "--folder", str(tmp_path)]
    )
    stream.main()
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()[3:]] == list(stream.OPERATIONS)


def test_samples_of_a_task_lie_anywhere_and_none_is_missing(tmp_path: Path) -> None:
    stream.write(tmp_path / "t.jsonl", 800)
    found = [(t.task.id, t.sample) for t in stream.read_trajectories(tmp_path / "t.jsonl")]
    assert len(set(found)) == 800
    assert (
        max(abs(found.index(("task-0000007", s)) - found.index(("task-0000007", 0))) for s in range(8)) > 200
    )
