"""Why a stage is made again, and that what a stage has left is what it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pupil import Teach, base, go, recipe, registry
from test_pipeline import killed

from cort_framework import RequestError
from cort_framework.errors import StageFailed
from cort_framework.recipe import make_plan
from cort_framework.runs.keys import Standing, differences, standings

MAKES = ("make", "sft", "middle")


def why(folder: Path, *stages: str, from_stage: str | None = None, **changes: Any) -> list[Standing]:
    plan = make_plan(recipe(folder, *(stages or MAKES), **changes), registry())
    return standings(plan, folder / "run", from_stage)


def test_each_stage_says_what_it_waits_for_and_what_has_changed(tmp_path: Path) -> None:
    assert why(tmp_path) == [
        Standing("make", "runs", ("it has not run yet",)),
        Standing("sft", "runs", ("stage make runs first",)),
        Standing("middle", "runs", ("stage sft runs first",)),
    ]
    assert not (tmp_path / "run").exists()
    go(tmp_path, *MAKES)
    assert [s.state for s in why(tmp_path)] == ["done"] * 3
    changed = why(tmp_path, sft__options={"rate": 2.0}, middle__samples=3)
    assert [s.state for s in changed] == ["done", "runs", "runs"]
    assert changed[1].because == ("trainer.config.rate was 1.0, is 2.0",)
    assert changed[2].because == ("stage sft runs first", "stage.config.samples was 2, is 3")
    forced = why(tmp_path, from_stage="sft")
    assert [(s.state, s.because[:1]) for s in forced] == [
        ("done", ()),
        ("runs", ("--from sft",)),
        ("runs", ("stage sft runs first",)),
    ]
    with pytest.raises(RequestError, match="there is no stage 'stf'"):
        why(tmp_path, from_stage="stf")


def test_inputs_that_changed_are_named(tmp_path: Path) -> None:
    file = tmp_path / "numbers"
    file.write_text("0 1 2 3")
    sets = {"train": {"source": "sums", "file": str(file)}}
    go(tmp_path, "make", tasks=sets)
    file.write_text("0 1 2 4")
    (Path(base(tmp_path)) / "extra.bin").write_bytes(b"x")
    (make,) = why(tmp_path, "make", tasks=sets)
    assert sorted(make.because) == ["model has changed", "task set train has changed"]


def test_a_version_of_a_plugin_is_part_of_what_a_stage_is_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(tmp_path, "make", "sft")
    rest = [p for p in registry()._registered if p.cls is not Teach]
    mine = registry().resolve("trainer", "teach")
    monkeypatch.setattr(registry(), "_registered", [*rest, replace(mine, version="9.9")])
    make, sft = why(tmp_path, "make", "sft")
    assert make.state == "done" and sft.because == (f'trainer.version was "{mine.version}", is "9.9"',)


def test_a_stage_that_was_killed_goes_on_and_one_that_lost_what_it_made_runs(tmp_path: Path) -> None:
    slowly = killed(tmp_path, 25, "rft")
    assert why(tmp_path, "rft", **slowly) == [Standing("rft", "goes on", ("it was stopped before its end",))]
    go(tmp_path, "rft", **slowly)
    (tmp_path / "run/rft/trajectories.jsonl").unlink()
    (rft,) = why(tmp_path, "rft", **slowly)
    assert rft == Standing("rft", "runs", ("what it made is not there any more",))


def test_differences_are_shown_short_and_by_their_path() -> None:
    old = {"a": {"b": [1], "c": "x" * 99}, "inputs": {"data of stage make": "1", "model": "2"}}
    new = {"a": {"b": [2], "d": None}, "inputs": {"data of stage make": "3", "task set train": "4"}}
    assert list(differences(old, new)) == [
        "a.b was [1], is [2]",
        f'a.c was "{"x" * 58}…, is not there',
        "data of stage make has changed",
        "model is no input any more",
        "task set train is new",
    ]


def test_what_a_stage_left_is_refused_where_it_has_changed_since(tmp_path: Path) -> None:
    go(tmp_path, *MAKES)
    checkpoint = tmp_path / "run/sft/checkpoint/config.json"
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole.replace(b"5", b"4"))
    go(tmp_path, *MAKES)  # nothing is made from it
    with pytest.raises(StageFailed, match="checkpoint of stage 'sft' is not what it was") as failed:
        go(tmp_path, *MAKES, middle__samples=3)
    assert failed.value.hint is not None and "--from sft" in failed.value.hint
    checkpoint.write_bytes(whole)
    go(tmp_path, *MAKES, middle__samples=3)
    made = tmp_path / "run/make/trajectories.jsonl"
    made.write_bytes(made.read_bytes().replace(b"What", b"Whet", 1))
    with pytest.raises(StageFailed, match=r"trajectories\.jsonl of stage 'make' is not what it was"):
        go(tmp_path, *MAKES, sft__options={"rate": 2.0})
    go(tmp_path, *MAKES, sft__options={"rate": 2.0}, from_stage="make")
