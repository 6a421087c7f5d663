"""A training in processes of its own, started by a launcher without torch; with it: ``cort_trl/test_trl_launch.py``."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from marching import Marching
from pupil import go, recipe, registry

from cort_framework.display import SilentDisplay
from cort_framework.errors import CortError, PluginFault, RecipeError, RequestError, StageFailed
from cort_framework.pipeline import RunReport, run
from cort_framework.recipe import make_plan
from cort_framework.store import TrajectoryLog, read_trajectories
from cort_framework.training.launch import collect_trajectories
from cort_framework.types import Task, Trajectory

registry().register(Marching)
TWO = {"processes": 2}


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the processes that are started."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))


def march(folder: Path, launch: dict[str, Any] = TWO, **options: Any) -> RunReport:
    return go(folder, "rl", rl__trainer="marching", rl__options=options, launch=launch)


def made(folder: Path) -> list[tuple[str, int]]:
    return [(t.task.id, t.sample) for t in read_trajectories(folder / "run/rl/trajectories.jsonl")]


def everything(steps: int = 3) -> list[tuple[str, int]]:
    """What the tasks and steps ask for, by sample and task."""
    return [(f"sum-{n}", step) for step in range(steps) for n in range(8)]


def test_every_rank_rolls_out_for_itself_and_all_that_they_made_is_in_one_file(tmp_path: Path) -> None:
    report = march(tmp_path)
    assert made(tmp_path) == everything()
    assert not list((tmp_path / "run/rl").glob("trajectories.rank-*"))
    assert report.stages[0].result.summary["trajectories"] == 24
    assert report.checkpoint is not None and (report.checkpoint / "config.json").is_file()
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"], line["world"]) for line in lines] == [
        ("rl", n, 2) for n in (1, 2, 3)
    ]


def test_one_process_and_two_make_the_same_trajectories(tmp_path: Path) -> None:
    contents = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        march(folder, {"processes": processes})
        found = read_trajectories(folder / "run/rl/trajectories.jsonl")
        contents.append(sorted((t.sample, t.task.id, t.ids, t.reward) for t in found))
    assert contents[0] == contents[1]


def test_a_rank_that_is_killed_is_named_and_the_same_command_goes_on_from_the_last_checkpoint(
    tmp_path: Path,
) -> None:
    with pytest.raises(
        StageFailed, match=r"process 1 of 2 of stage 'rl' was ended by SIGKILL \(exit code -9\)"
    ):
        march(tmp_path, trouble=str(int(signal.SIGKILL)))
    assert set(made(tmp_path)) >= set(everything(1))
    assert (tmp_path / "run/rl/training/step").read_text() == "1"
    report = march(tmp_path, trouble=str(int(signal.SIGKILL)))
    assert made(tmp_path) == everything()
    assert report.stages[0].result.summary["trajectories"] == 24


def test_a_step_that_is_made_again_is_in_the_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def whole(folder: Path) -> list[tuple[str, int, tuple[int, ...]]]:
        path = folder / "run/rl/trajectories.jsonl"
        return [(t.task.id, t.sample, t.ids) for t in read_trajectories(path)]

    def full(*_: Any) -> None:
        raise OSError("the disk is full")

    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    march(tmp_path / "whole", {})
    with monkeypatch.context() as patch, pytest.raises(PluginFault, match="the disk is full"):
        patch.setattr(Marching, "saved", full)
        march(tmp_path / "stopped", {})
    assert len(whole(tmp_path / "stopped")) == 8
    report = march(tmp_path / "stopped", {})
    assert whole(tmp_path / "stopped") == whole(tmp_path / "whole")
    assert report.stages[0].result.summary["trajectories"] == 24


def test_what_a_rank_raises_is_raised_here_and_says_which_rank(tmp_path: Path) -> None:
    with pytest.raises(CortError, match="process 1 of stage 'rl': the batch cannot be shared") as caught:
        march(tmp_path, trouble="error")
    assert caught.value.hint == "change it"
    assert "CortError" in (tmp_path / "run/rl/launch/rank-1.log").read_text()


def test_two_machines_train_together(tmp_path: Path) -> None:
    launch = {"machines": 2, "address": "127.0.0.1:29500", "timeout_s": 4000}
    failed: list[BaseException] = []

    def other() -> None:
        try:
            plan = make_plan(
                recipe(tmp_path, "rl", "after", rl__trainer="marching", launch={**launch, "rank": 1}),
                registry(),
            )
            run(plan, tmp_path / "run", display=SilentDisplay())
        except BaseException as error:
            failed.append(error)

    machine = threading.Thread(target=other, daemon=True)
    machine.start()
    go(tmp_path, "rl", "after", rl__trainer="marching", launch=launch)
    machine.join(30)
    assert not machine.is_alive()
    assert not failed
    assert made(tmp_path) == everything()


def test_a_trajectory_that_was_made_again_counts_once_and_the_last_one_stays(tmp_path: Path) -> None:
    def write(name: str, *samples: tuple[int, str]) -> None:
        log = TrajectoryLog(tmp_path / name, remember=False)
        for sample, reason in samples:
            log.append([Trajectory("x", Task("t", "?"), sample, 0, [], reason)])  # type: ignore[arg-type]
        log.close()

    write("trajectories.jsonl", (0, "length"), (1, "length"))
    write("trajectories.rank-0.jsonl", (1, "eos"), (3, "eos"))
    write("trajectories.rank-1.jsonl", (2, "eos"))
    with open(tmp_path / "trajectories.rank-1.jsonl", "a") as file:
        file.write('{"id": "cut o')
    collect_trajectories(tmp_path)
    found = [(t.sample, t.stop_reason) for t in read_trajectories(tmp_path / "trajectories.jsonl")]
    assert found == [(0, "length"), (1, "eos"), (2, "eos"), (3, "eos")]


@pytest.mark.parametrize(
    ("launch", "text"),
    [
        ({"processes": 2, "timeout_s": 60}, "wait 60 s for one another .* may take 3600 s"),
        ({"machines": 2}, "need an address"),
        ({"rank": 1}, "rank 1 is none of 1 machines"),
        ({"fsdp": {}, "deepspeed": {}}, "choose one"),
        ({"process": 2}, "did you mean 'processes'"),
    ],
)
def test_a_launch_that_cannot_work_is_an_error_of_the_recipe(
    tmp_path: Path, launch: dict[str, Any], text: str
) -> None:
    toml = recipe(tmp_path, "rl", rl__trainer="marching").to_toml()
    from cort_framework.recipe import load_recipe

    path = tmp_path / "recipe.toml"
    path.write_text(toml + "\n[launch]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in launch.items()))
    path.write_text(path.read_text().replace("= {}", "= {}"))
    with pytest.raises(RecipeError, match=text):
        make_plan(load_recipe(path), registry())


def test_a_trainer_of_one_process_and_a_step_of_several_batches_are_found_before_anything_runs(
    tmp_path: Path,
) -> None:
    with pytest.raises(RecipeError, match="trainer 'teach' runs in one process only"):
        make_plan(recipe(tmp_path, "rl", launch=TWO), registry())
    with pytest.raises(RecipeError, match="3 batches of rollouts in stage 'rl' may take 10800 s"):
        march(tmp_path, rounds=3)


def test_a_stage_overrides_the_launch_and_the_launch_changes_no_key(tmp_path: Path) -> None:
    def key(**changes: Any) -> str:
        plan = make_plan(recipe(tmp_path, "rl", rl__trainer="marching", **changes), registry())
        return json.dumps(plan.stage("rl").table)

    assert key() == key(launch=TWO) == key(rl__launch=TWO)
    assert key() != key(launch={"fsdp": {}})
    plan = make_plan(
        recipe(tmp_path, "rl", rl__trainer="marching", launch=TWO, rl__launch={"processes": 1}), registry()
    )
    assert not plan.stage("rl").launch.several


def test_a_plugin_that_cannot_be_imported_elsewhere_is_a_clear_error(tmp_path: Path) -> None:
    from pupil import ALL

    from cort_framework.registry import Registry

    class Local(Marching):
        name = "local-one"

    own = Registry(plugins=())
    for cls in (*ALL, Local):
        own.register(cls)
    plan = make_plan(recipe(tmp_path, "rl", rl__trainer="local-one", launch=TWO), own)
    with pytest.raises(RequestError, match="stage 'rl' cannot be sent to other processes"):
        run(plan, tmp_path / "run", display=SilentDisplay())
