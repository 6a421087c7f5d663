"""Trajectories on disk, and what a crash leaves of them."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cort_framework import CortError, Task, Trajectory, Verdict
from cort_framework.store import Trajectories, TrajectoryLog, read_trajectories, write_json
from cort_framework.testing import make_trajectory


def made(task: str, sample: int = 0, rewinds: int = 0, text: str = "m") -> list[Trajectory]:
    """A line of descent."""
    line: list[Trajectory] = []
    for n in range(rewinds + 1):
        trajectory = make_trajectory([("prompt", "p"), ("model", f"{text}{n}")], Task(task, "p"))
        name, parent = f"{task}/{sample}", line[-1].id if line else None
        stop = "eos" if n == rewinds else "rewound"
        line.append(
            dataclasses.replace(
                trajectory, id=f"{name}~{n}" if n else name, sample=sample, parent=parent, stop_reason=stop
            )
        )
    return line


LINES = [made("a"), made("a", 1, rewinds=2), made("b", text="é😀\u2028\r\n"), made("b", 1, rewinds=1)]
KEYS = [("a", 0), ("a", 1), ("b", 0), ("b", 1)]


def log_of(path: Path, lines: list[list[Trajectory]]) -> TrajectoryLog:
    log = TrajectoryLog(path)
    for line in lines:
        log.append(line)
    return log


def test_what_was_appended_is_there_again(tmp_path: Path) -> None:
    log_of(tmp_path / "sub" / "t.jsonl", LINES).close()
    log = TrajectoryLog(tmp_path / "sub" / "t.jsonl")
    assert [log.line(key) for key in KEYS] == LINES and len(log) == len(KEYS)
    assert log.final(("a", 1)) == LINES[1][-1] and list(log.finals(KEYS)) == [line[-1] for line in LINES]
    assert ("a", 1) in log and ("c", 0) not in log and log.usable(("a", 1)) and not log.usable(("c", 0))
    with pytest.raises(KeyError):
        log.final(("c", 0))
    assert [t for line in LINES for t in line] == list(read_trajectories(log.path))
    log.close()


def test_a_line_of_descent_that_comes_again_takes_the_place_of_the_old(tmp_path: Path) -> None:
    log_of(tmp_path / "t.jsonl", [made("a", rewinds=2), made("b"), made("a", text="new")]).close()
    log = TrajectoryLog(tmp_path / "t.jsonl")
    assert len(log) == 2 and log.line(("a", 0)) == made("a", text="new") and log.line(("b", 0)) == made("b")
    log.close()


def test_of_decisions_the_last_on_each_sample_counts_and_a_half_line_is_none(tmp_path: Path) -> None:
    def decision(task: str, keep: bool) -> list[Trajectory]:
        *versions, last = made(task, rewinds=1)
        return [*versions, dataclasses.replace(last, verdicts=[Verdict(keep, filter="review")])]

    told = [("a", True), ("b", True), ("a", False), ("c", True), ("b", True)]
    log_of(tmp_path / "t.jsonl", [decision(*each) for each in told]).close()
    with open(tmp_path / "t.jsonl", "ab") as file:
        file.write(b'{"id":"a/0","task":')
    assert [t.task.id for t in Trajectories.decided(tmp_path / "t.jsonl")] == ["c", "b"]


@given(st.data())
def test_a_file_that_was_cut_off_anywhere_loses_only_the_line_of_descent_that_was_cut(
    data: st.DataObject,
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.jsonl"
        log, ends = TrajectoryLog(path), [0]
        for line in LINES:
            log.append(line)
            ends.append(path.stat().st_size)
        log.close()
        size = data.draw(st.integers(0, ends[-1]))
        os.truncate(path, size)
        whole = sum(end <= size for end in ends[1:])
        log = TrajectoryLog(path)
        assert [log.line(key) for key in KEYS[:whole]] == LINES[:whole] and len(log) == whole
        for line in LINES[whole:]:
            log.append(line)
        log.close()
        log = TrajectoryLog(path)
        assert [log.line(key) for key in KEYS] == LINES
        log.finish(KEYS)
        assert list(read_trajectories(path)) == [t for line in LINES for t in line]


def test_finishing_writes_the_asked_order_and_the_later_verdicts(tmp_path: Path) -> None:
    log = log_of(tmp_path / "t.jsonl", LINES)
    for key in KEYS[1:3]:
        final = log.final(key)
        final.verdicts.append(Verdict(False, "late"))
        log.revise(final)
        assert log.final(key) == final and log.line(key)[:-1] == LINES[KEYS.index(key)][:-1]
    log.finish([("b", 0), ("a", 1)])
    first, *rest = read_trajectories(log.path)
    assert first.verdicts == rest[-1].verdicts == [Verdict(False, "late")]
    assert [t.id for t in rest] == ["a/1", "a/1~1", "a/1~2"] and rest[:-1] == LINES[1][:-1]
    assert list(tmp_path.iterdir()) == [log.path]


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    good = made("a")[0].to_json().encode()
    for bad in (b"{", b"5", b"[]", b"{}", b"\xff\xfe", good.replace(b'"author":"model"', b'"ids":[]'), b""):
        path = tmp_path / "t.jsonl"
        path.write_bytes(good + b"\n" + bad + b"\n" + good + b"\n")
        with pytest.raises(CortError, match=r"t\.jsonl, line 2 is no trajectory"):
            TrajectoryLog(path)
        assert path.read_bytes().count(b"\n") == 3


def test_text_that_no_utf8_can_hold_is_kept(tmp_path: Path) -> None:
    line = made("a")
    line[0].metadata["odd"] = "\ud800"
    log = log_of(tmp_path / "t.jsonl", [line])
    assert list(read_trajectories(log.path)) == line
    log.finish([("a", 0)])
    assert list(read_trajectories(log.path)) == line


def test_a_json_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, [1])
    with pytest.raises(TypeError):
        write_json(path, [object()])
    assert path.read_text() == "[\n  1\n]\n" and list(tmp_path.iterdir()) == [path]


def test_what_append_returned_from_survives_a_kill(tmp_path: Path) -> None:
    script = tmp_path / "writer.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "from test_store import TrajectoryLog, made\n"
        "log = TrajectoryLog(Path(sys.argv[1]))\n"
        "n = 0\n"
        "while True:\n"
        "    log.append(made(f't{n}', rewinds=n % 3, text='x' * 5000))\n"
        "    print(n, flush=True)\n"
        "    n += 1\n"
    )
    path = tmp_path / "t.jsonl"
    with subprocess.Popen([sys.executable, script, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(20):
            process.stdout.readline()
        time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        last = int(["19", *process.stdout.read().split()][-1])
    log = TrajectoryLog(path)
    assert len(log) in (last + 1, last + 2)
    for n in range(len(log)):
        assert log.line((f"t{n}", 0)) == made(f"t{n}", rewinds=n % 3, text="x" * 5000)
    log.close()


def test_a_log_that_does_not_remember_writes_all_the_same(tmp_path: Path) -> None:
    for line in LINES:
        log = TrajectoryLog(tmp_path / "t.jsonl", remember=False)
        log.append(line)
        log.close()
    assert list(read_trajectories(tmp_path / "t.jsonl")) == [t for line in LINES for t in line]


def test_a_log_tells_its_keys_by_sample_and_then_by_task(tmp_path: Path) -> None:
    log = TrajectoryLog(tmp_path / "t.jsonl")
    for line in reversed(LINES):
        log.append(line)
    log.append(made('odd "task" ~1', 10))
    assert list(log.keys()) == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ('odd "task" ~1', 10)]
    log.close()
    again = TrajectoryLog(tmp_path / "t.jsonl")
    assert len(list(again.keys())) == len(again) == 5
    again.close()
