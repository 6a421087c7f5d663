"""The run folder: what is done is not done again, what was killed goes on, what changed is made anew."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pupil
import pytest
from pupil import Pupil, Teach, base, go

from cort_framework import RequestError, Task
from cort_framework.errors import PluginFault, StageFailed, TaskError
from cort_framework.pipeline import RunReport
from cort_framework.runs.inputs import content_digest
from cort_framework.store import read_trajectories, write_json

MAKES = ("make", "sft")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setattr(Teach, "trained", [])
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("scratch")))  # of processes that are killed
    monkeypatch.setattr(Pupil, "asked", 0)


def cached(report: RunReport) -> list[str]:
    return [s.name for s in report.stages if s.cached]


def aside(folder: Path) -> list[str]:
    return sorted(p.name.split("~")[0] for p in (folder / "run").glob("*~*"))


# --- from beginning to end --------------------------------------------------------------------------------------
def test_a_recipe_runs_to_its_results(tmp_path: Path) -> None:
    report = go(tmp_path)
    assert [s.name for s in report.stages] == list(pupil.STAGES) and not cached(report)
    assert report.checkpoint == tmp_path / "run" / "rl" / "checkpoint"
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results == report.results
    assert [(r["name"], r["test_set"]) for r in results] == [
        ("base", "test"),
        ("base", "hard"),
        ("sft", "test"),
        ("sft", "hard"),
        ("rl", "test"),
    ]
    assert [r["accuracy"] for r in results] == [0.3, 0.0, 0.5, 0.0, 1.0]
    assert all(r["samples_per_task"] == 2 and r["errors"] == 0 for r in results)
    recipe, plan = (tmp_path / "run" / name for name in ("recipe.toml", "plan.json"))
    assert 'name = "world"' in recipe.read_text()
    assert [s["name"] for s in json.loads(plan.read_text())["stages"]] == list(pupil.STAGES)
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["packages"]["pydantic"] and environment["processor"] and environment["processors"] > 0
    assert (environment["seed"], environment["deterministic"]) == (0, True)
    assert {name.rpartition("/")[2] for name in environment["plugins"]} >= {"evaluate", "sft", "answer"}
    assert all(environment["plugins"].values())
    card = (tmp_path / "run" / "README.md").read_text()
    assert "The last checkpoint is `rl/checkpoint`." in card
    assert "| rl | test | 10 | 2 | 1 |" in card and f"base_model: {json.dumps(base(tmp_path))}" in card
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [m["stage"] for m in metrics if "canary" not in m] == [
        "before",
        "before",
        "middle",
        "middle",
        "after",
    ]


def test_two_runs_of_one_seed_make_the_same_trajectories_and_another_seed_others(tmp_path: Path) -> None:
    def ids(name: str, seed: int) -> list[Any]:
        (tmp_path / name).mkdir()
        go(tmp_path / name, *MAKES, seed=seed)
        return [
            (t.id, t.seed, t.ids) for t in read_trajectories(tmp_path / name / "run/make/trajectories.jsonl")
        ]

    assert ids("a", 1) == ids("b", 1) != ids("c", 2)


# --- what is done, and what has changed -------------------------------------------------------------------------
def test_a_stage_that_is_done_is_not_run_again(tmp_path: Path) -> None:
    first = go(tmp_path)
    asked, trained = Pupil.asked, list(Teach.trained)
    again = go(tmp_path)
    assert cached(again) == list(pupil.STAGES)
    assert (Pupil.asked, Teach.trained) == (asked, trained)
    assert again.results == first.results and again.checkpoint == first.checkpoint
    assert [s.result for s in again.stages] == [s.result for s in first.stages]
    assert aside(tmp_path) == []


def test_a_changed_value_redoes_what_depends_on_it_and_keeps_the_old_folder(tmp_path: Path) -> None:
    old = {s.name: s.key for s in go(tmp_path, "before", "make", "sft", "middle").stages}
    new = go(tmp_path, "before", "make", "sft", "middle", sft__options={"rate": 2.0})
    assert cached(new) == ["before", "make"]
    assert aside(tmp_path) == ["middle", "sft"]
    kept = tmp_path / "run" / f"sft~{old['sft'][:8]}"
    assert json.loads((kept / "checkpoint" / "config.json").read_text())["knows"] == 5
    assert json.loads((tmp_path / "run/sft/checkpoint/config.json").read_text())["knows"] == 7
    assert json.loads((kept / "stage.json").read_text())["status"] == "done"


@pytest.mark.parametrize(
    ("change", "redone"),
    [
        ({"seed": 1}, ["before", "make", "sft"]),
        ({"make__target": 3}, ["make", "sft"]),
        (
            {"rollout": {"engine": "pupil", "max_tokens": 900, "tools": {"python": {}}}},
            ["before", "make", "sft"],
        ),
        ({"filters": {"right": {}}}, []),
        ({"report_to": ["tensorboard"], "max_error_rate": 0.5}, []),
    ],
    ids=str,
)
def test_exactly_what_depends_on_a_value_is_redone(tmp_path: Path, change: Any, redone: list[str]) -> None:
    go(tmp_path, "before", "make", "sft")
    again = go(tmp_path, "before", "make", "sft", **change)
    assert [s.name for s in again.stages if not s.cached] == redone


def test_a_changed_task_file_or_model_is_a_changed_input(tmp_path: Path) -> None:
    file = tmp_path / "numbers"
    file.write_text("0 1 2 3")
    sets = {"train": {"source": "sums", "file": str(file)}}
    go(tmp_path, *MAKES, tasks=sets)
    file.write_text("0 1 2 4")
    assert cached(go(tmp_path, *MAKES, tasks=sets)) == []
    assert cached(go(tmp_path, *MAKES, tasks=sets)) == list(MAKES)
    (Path(base(tmp_path)) / "extra.bin").write_bytes(b"x")
    assert cached(go(tmp_path, *MAKES, tasks=sets)) == []


def test_the_digest_of_a_model_is_of_names_and_contents(tmp_path: Path) -> None:
    one, other = Path(base(tmp_path, 1)), Path(base(tmp_path, 2))
    assert content_digest(one) != content_digest(other)
    (other / "config.json").write_text((one / "config.json").read_text())
    assert content_digest(one) == content_digest(other)
    (other / "config.json").rename(other / "c.json")
    assert content_digest(one) != content_digest(other)


def test_a_stage_whose_checkpoint_has_gone_is_run_again(tmp_path: Path) -> None:
    go(tmp_path, *MAKES)
    (tmp_path / "run/sft/checkpoint/config.json").unlink()
    (tmp_path / "run/sft/checkpoint").rmdir()
    assert cached(go(tmp_path, *MAKES)) == ["make"]


def test_from_a_stage_on_everything_runs_again(tmp_path: Path) -> None:
    go(tmp_path, "before", *MAKES)
    again = go(tmp_path, "before", *MAKES, from_stage="make")
    assert cached(again) == ["before"] and aside(tmp_path) == ["make", "sft"]
    go(tmp_path, "before", *MAKES, from_stage="make")
    assert aside(tmp_path) == ["make", "make", "sft", "sft"]
    with pytest.raises(RequestError, match="there is no stage 'mkae'"):
        go(tmp_path, *MAKES, from_stage="mkae")


def test_a_stage_may_start_from_an_earlier_one_or_another_model(tmp_path: Path) -> None:
    report = go(
        tmp_path, "make", "sft", "middle", "after", middle__model=base(tmp_path, 9), after__model="sft"
    )
    assert [r["accuracy"] for r in report.results] == [0.9, 0.8, 0.5]


# --- killed -----------------------------------------------------------------------------------------------------
KILLED = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import pupil
pupil.Pupil.kill_after = {after}
pupil.go(Path({folder!r}), *{stages!r}, **{changes!r})
"""
SLOWLY: dict[str, Any] = {
    "rollout": {"engine": "pupil", "concurrency": 2, "tools": {"python": {}}},
    "engines": {"pupil": {"seconds": 0.03}},
}


def script(folder: Path, after: int, *stages: str, **changes: Any) -> str:
    tests = str(Path(__file__).parent)
    changes = {**SLOWLY, **changes}
    return KILLED.format(tests=tests, after=after, folder=str(folder), stages=stages, changes=changes)


def killed(folder: Path, after: int, *stages: str) -> dict[str, Any]:
    """The same pipeline in another process, killed at its ``after``-th generation. Returns what it changed of the recipe."""
    done = subprocess.run(
        [sys.executable, "-c", script(folder, after, *stages)], capture_output=True, text=True
    )
    assert done.returncode == -9, done.stderr
    return SLOWLY


def test_a_collection_that_was_killed_goes_on_from_the_samples_that_it_has(tmp_path: Path) -> None:
    killed(tmp_path, 25, "rft")
    path = tmp_path / "run/rft/trajectories.jsonl"
    before = {t.id: t.to_json() for t in read_trajectories(path)}
    assert 5 <= len(before) < 16 and not (tmp_path / "run/results.json").exists()
    report = go(tmp_path, "rft", **SLOWLY)
    assert Pupil.asked == 2 * (16 - len(before))
    after = list(read_trajectories(path))
    assert [t.id for t in after] == [f"sum-{n}/{s}" for n in range(8) for s in range(2)]
    for trajectory in after:
        trajectory.verdicts.clear()
        assert before.get(trajectory.id, trajectory.to_json()) == trajectory.to_json()
    whole = tmp_path / "whole"
    whole.mkdir()
    go(whole, "rft", **SLOWLY)
    for one, other in zip(after, read_trajectories(whole / "run/rft/trajectories.jsonl"), strict=True):
        assert (one.id, one.seed, one.ids) == (other.id, other.seed, other.ids)
    assert report.stages[0].result.summary["kept"] == 6 and aside(tmp_path) == []


def test_a_synthesis_that_was_killed_keeps_the_samples_that_it_would_have_kept(tmp_path: Path) -> None:
    killed(tmp_path, 5, "make")
    go(tmp_path, "make", **SLOWLY)
    made = list(read_trajectories(tmp_path / "run/make/trajectories.jsonl"))
    assert [t.id for t in made if t.kept] == ["sum-0/0", "sum-1/0"]


def test_a_second_run_in_the_same_folder_is_refused_and_disturbs_nothing(tmp_path: Path) -> None:
    endless = script(tmp_path, 10_000, "rft", engines={"pupil": {"seconds": 100.0}})
    process = subprocess.Popen([sys.executable, "-c", endless], stderr=subprocess.PIPE, text=True)
    try:
        while not (tmp_path / "run/rft/trajectories.jsonl").exists():
            assert process.poll() is None, process.stderr.read()  # type: ignore[union-attr]
            time.sleep(0.02)
        with pytest.raises(RequestError, match="another run is at work in"):
            go(tmp_path, *MAKES)
        assert not (tmp_path / "run/make").exists()
    finally:
        process.kill()
        process.wait()
    go(tmp_path, *MAKES)


def test_a_stage_that_was_stopped_is_not_moved_aside(tmp_path: Path) -> None:
    with pytest.raises(PluginFault):
        go(tmp_path, *MAKES, sft__options={"fail": True})
    state = json.loads((tmp_path / "run/sft/stage.json").read_text())
    assert state["status"] == "running"
    (tmp_path / "run/sft/training").mkdir()
    with pytest.raises(PluginFault):
        go(tmp_path, *MAKES, sft__options={"fail": True})
    assert (tmp_path / "run/sft/training").exists() and aside(tmp_path) == []


def test_a_folder_that_no_run_made_is_moved_aside(tmp_path: Path) -> None:
    stray = tmp_path / "run/make/notes.txt"
    stray.parent.mkdir(parents=True)
    stray.write_text("mine")
    go(tmp_path, "make")
    assert (tmp_path / "run/make~unknown/notes.txt").read_text() == "mine"


def test_a_damaged_stage_file_makes_the_stage_again(tmp_path: Path) -> None:
    go(tmp_path, "make")
    for text in ("{", "[]", '{"status": "done"}', json.dumps({"key": "x", "status": "done"})):
        (tmp_path / "run/make/stage.json").write_text(text)
        assert cached(go(tmp_path, "make")) == []
    write_json(
        tmp_path / "run/make/stage.json", {**json.loads((tmp_path / "run/make/stage.json").read_text())}
    )
    assert cached(go(tmp_path, "make")) == ["make"]


# --- faults -----------------------------------------------------------------------------------------------------
def test_filters_that_keep_nothing_fail_the_stage_with_the_funnel(tmp_path: Path) -> None:
    filters = ["right", "nothing"]
    with pytest.raises(StageFailed) as failed:
        go(tmp_path, "make", make__filters=filters, make__attempts=2)
    assert failed.value.exit_code == 1
    assert failed.value.message == (
        "stage 'make' kept none of 16 trajectories: 10 by right, 6 by nothing (the first: the answer is wrong)"
    )
    assert failed.value.hint is not None and "cort trace stats" in failed.value.hint
    with pytest.raises(StageFailed, match="kept none of 16 trajectories: 10 by right, 6 by nothing"):
        go(tmp_path, "rft", rft__filters=filters)
    verdicts = [t.verdicts for t in read_trajectories(tmp_path / "run/rft/trajectories.jsonl")]
    assert [v[-1].filter for v in verdicts].count("nothing") == 6


def test_more_errors_than_the_budget_fail_the_stage_and_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pupil, "break_at", "7+7")
    with pytest.raises(StageFailed) as failed:
        go(tmp_path, "rft")
    assert failed.value.message == (
        "2 of 16 trajectories failed, 2 of them with: engine 'pupil' (from pupil) raised OSError: the engine broke"
    )
    made = sum(t.usable for t in read_trajectories(tmp_path / "run/rft/trajectories.jsonl"))
    monkeypatch.setattr(Pupil, "break_at", None)
    monkeypatch.setattr(Pupil, "asked", 0)
    report = go(tmp_path, "rft")
    assert Pupil.asked == 2 * (16 - made) and report.stages[0].result.summary["tried"] == 16
    assert all(t.usable for t in read_trajectories(tmp_path / "run/rft/trajectories.jsonl"))


@pytest.mark.parametrize(
    ("cls", "method", "who"),
    [
        (pupil.Answer, "score", "reward 'answer'"),
        (pupil.Right, "judge", "filter 'right'"),
        (pupil.Okay, "inject", "hint injector 'okay'"),
    ],
)
def test_a_plugin_that_fails_on_too_many_stops_the_stage_early_and_is_named(
    cls: Any, method: str, who: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any, trajectory: Any) -> Any:
        raise OSError("no such table")

    stage = {"rft__samples": 20, "rft__hints": ["okay"]}
    complaint = rf"of 160 .* failed, .*{who} \(from pupil\) raised OSError: no such table"
    with monkeypatch.context() as patched, pytest.raises(StageFailed, match=complaint):
        patched.setattr(cls, method, fail)
        go(tmp_path, "rft", **stage)
    if method != "judge":  # which comes when all of them are there
        assert len(list(read_trajectories(tmp_path / "run/rft/trajectories.jsonl"))) < 120
    assert go(tmp_path, "rft", **stage).stages[0].result.summary["tried"] == 160


def test_errors_within_the_budget_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pupil, "break_at", "0+0")
    report = go(tmp_path, "before", "rft", max_error_rate=0.1, before__tasks=["train"])
    assert report.stages[1].result.summary["kept"] == 4
    (record,) = report.results
    assert (record["errors"], record["accuracy"]) == (
        2,
        2 / 8,
    )  # what failed is not left out of the denominator


def test_a_trainer_that_raises_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        PluginFault, match=r"trainer 'teach' \(from pupil\) raised FloatingPointError: the loss"
    ):
        go(tmp_path, *MAKES, sft__options={"fail": True})


@pytest.mark.parametrize(
    ("train", "complaint"),
    [
        ({"source": "sums", "count": 0}, "the task set 'train' is empty"),
        ({"source": "sums", "file": "twice"}, "the task set 'train' has the id 'sum-4' twice"),
        ({"source": "sums", "file": "letters"}, r"task source 'sums' \(from pupil\) raised ValueError"),
    ],
    ids=str,
)
def test_bad_tasks_are_found_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: Any, complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("twice").write_text("3 4 4")
    Path("letters").write_text("three")
    sets = {"train": train, "test": {"source": "sums"}, "hard": {"source": "sums", "ids": "h"}}
    with pytest.raises((TaskError, PluginFault), match=complaint):
        go(tmp_path, "before", "make", tasks=sets)
    assert Pupil.asked == 0 and not (tmp_path / "run/before").exists()


def test_a_task_that_could_not_be_read_again_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pupil.Sums, "tasks", lambda self: [Task("sum-1", "What is 1+1?", 2)])  # type: ignore[arg-type]
    with pytest.raises(
        PluginFault, match=r"task source 'sums' \(from pupil\) raised TypeError: .* has 2 as answer"
    ):
        go(tmp_path, *MAKES)
    assert not (tmp_path / "run/make").exists()


def test_two_test_sets_that_share_an_id_are_refused(tmp_path: Path) -> None:
    sets = {"test": {"source": "sums"}, "hard": {"source": "sums", "start": 7}}
    with pytest.raises(TaskError, match="two test sets of stage 'before' have a task with the id 'sum-7'"):
        go(tmp_path, "before", tasks=sets)
