"""Canaries over whole runs: a scripted model's rollouts in collections and in RL, evaluations, the recipe and the run's folder."""

from __future__ import annotations

import io
import itertools
import json
import re
from pathlib import Path
from typing import Any, Literal

import pytest
from pupil import ALL, Pupil, base, recipe
from rich.console import Console
from scripted import python

from cort_framework import (
    Checkpoint,
    PluginConfig,
    RewardFunction,
    RolloutRequest,
    TrainContext,
    Trainer,
    Trajectory,
    Weights,
)
from cort_framework.cli import main
from cort_framework.display import Display
from cort_framework.errors import StageFailed
from cort_framework.guards.canaries import Canaries
from cort_framework.pipeline import RunReport, run
from cort_framework.recipe import make_plan
from cort_framework.registry import Registry
from cort_framework.store import read_trajectories
from cort_framework.testing import says


class Scribe(Pupil):
    """Always right, and each time by a program of its own; or in a bad manner."""

    name = "scribe"

    count = itertools.count()

    class Config(PluginConfig):
        seconds: float = 0.0
        manner: Literal["well", "by hand", "failing", "alike", "printing", "endless"] = "well"

    def write(self, prompt: str, response: str) -> str:
        found = re.search(r"(\d+)\+", prompt)
        assert found is not None
        manner, total = self.config.manner, 2 * int(found[1])
        code = {"failing": "1/0", "alike": "print('4')", "printing": f"print(r'\\boxed{{{total}}}')"}
        program = "<think>\n" + python(code.get(manner, f"print({total})  # {next(self.count)}"))
        if manner == "by hand":
            return says(f"<think>\n</think>\\boxed{{{total}}}")(prompt, response)
        answer = {"printing": "</think>See above.", "endless": "and so on, " * 99}
        return says(program, answer.get(manner, f"</think>\\boxed{{{total}}}"))(prompt, response)


class Flattery(RewardFunction):
    """Grows with each update."""

    name = "flattery"

    async def score(self, trajectory: Trajectory) -> float:
        return float(trajectory.turns[1].weights_version or 0)


class Forget(Trainer):
    """Six steps of RL, after which the pupil knows nothing."""

    name = "forget"

    def train(self, context: TrainContext) -> Checkpoint:
        assert context.rollout is not None and context.load_weights is not None
        for step in range(1, 7):
            context.load_weights(Weights(context.model, version=step))
            context.rollout([RolloutRequest(t, step) for t in context.tasks])
            context.reporter.metrics(step=step, loss=0.1, entropy=0.5 if step == 1 else 0.001)
        folder = context.folder / "checkpoint"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text('{"knows": 0}')
        return Checkpoint(folder)


def registry() -> Registry:
    made = Registry(plugins=())
    for cls in (*ALL, Scribe, Flattery, Forget):
        made.register(cls)
    return made


def go(folder: Path, *stages: str, shown: io.StringIO | None = None, **changes: Any) -> RunReport:
    count = changes.pop("count", 20)
    changes["tasks"] = {
        name: {"source": "sums", "count": count, "ids": name, "start": 100 * number}
        for number, name in enumerate(("train", "test", "hard"))
    }
    display = Display(Console(file=shown or io.StringIO(), width=200, color_system=None), interval=1000)
    return run(make_plan(recipe(folder, *stages, **changes), registry()), folder / "run", display=display)


def with_manner(manner: str) -> dict[str, Any]:
    return {
        "rollout": {"engine": "scribe", "tools": {"python": {}}, "max_tokens": 300},
        "engines": {"scribe": {"manner": manner}},
    }


def signs(folder: Path) -> list[tuple[str, str]]:
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return [(line["stage"], line["canary"]) for line in lines if "canary" in line]


# --- collections ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("manner", "found"),
    [
        ("well", set()),
        ("by hand", {"tool_use"}),
        ("failing", {"code_success", "same_code"}),
        ("alike", {"same_code"}),
        ("printing", {"printed_answer", "same_code"}),
        ("endless", {"truncation"}),
    ],
)
def test_a_collection_shows_what_its_model_does(tmp_path: Path, manner: str, found: set[str]) -> None:
    shown = io.StringIO()
    stage = {"filters": []} if manner in ("printing", "endless") else {"filters": ["right"]}
    changes = {f"make__{key}": value for key, value in stage.items()}
    go(
        tmp_path,
        "before",
        "make",
        count=40,
        make__target=30,
        before__tasks=["test"],
        shown=shown,
        **changes,
        **with_manner(manner),
    )
    assert {name for stage, name in signs(tmp_path) if stage == "before"} == found
    assert {name for stage, name in signs(tmp_path) if stage == "make"} == found - {"same_code"}
    told = [line.split()[1].rstrip(":") for line in shown.getvalue().splitlines() if "canary" in line]
    assert sorted(told) == sorted([*found, *(found - {"same_code"})])


def test_a_system_without_tools_shows_no_lack_of_them(tmp_path: Path) -> None:
    go(tmp_path, "before", before__tools=[], **with_manner("by hand"))
    go(tmp_path, "before", before__rollout={"max_tool_calls": 0}, **with_manner("by hand"))
    assert not signs(tmp_path)


def test_a_collection_is_stopped_after_a_look_and_goes_on_when_it_is_told_to(tmp_path: Path) -> None:
    forty = {"count": 40, "before__tasks": ["test"], **with_manner("by hand")}
    stopping = {"tool_use": {"action": "stop"}}
    with pytest.raises(StageFailed, match=r"canary tool_use: 0\.0% of 64 trajectories called a tool"):
        go(tmp_path, "before", canaries=stopping, **forty)
    assert signs(tmp_path) == [("before", "tool_use")]
    made = list(read_trajectories(tmp_path / "run" / "before" / "trajectories.jsonl"))
    assert len(made) == 64
    Scribe.asked = 0
    report = go(tmp_path, "before", canaries={"tool_use": {"action": "warn"}}, **forty)
    assert [r["accuracy"] for r in report.results] == [1.0]
    assert Scribe.asked == 80 - 64


def test_what_a_canary_leaves_out_is_not_among_the_data(tmp_path: Path) -> None:
    changes = with_manner("alike")
    leaving = {"same_code": {"action": "filter"}}
    shown = io.StringIO()
    with pytest.raises(StageFailed, match=r"kept none of 40 .*40 by canary same_code.*ran the same code"):
        go(tmp_path, "rft", canaries=leaving, rft__trainer="teach", shown=shown, **changes)
    assert "canary same_code: in 100.0% of 20 tasks" in shown.getvalue()
    report = go(tmp_path, "rft", canaries=leaving, rft__trainer="teach", **with_manner("well"))
    assert report.stages[0].result.summary["kept"] == 40


def test_only_what_a_canary_leaves_out_makes_a_stage_another_one(tmp_path: Path) -> None:
    def cached(**canaries: Any) -> bool:
        return go(tmp_path, "before", canaries=canaries, **with_manner("well")).stages[0].cached

    assert not cached()
    assert cached(tool_use={"action": "stop", "least": 0.5}, entropy={"action": "off"})
    assert not cached(tool_use={"action": "filter"})


# --- RL and what comes of it ------------------------------------------------------------------------------------
RL: dict[str, Any] = {
    "count": 10,
    "rl__trainer": "forget",
    "rewards": {"answer": {}, "flattery": {}},
    "rollout": {"engine": "pupil", "tools": {"python": {}}},
    "after__tasks": ["test", "hard"],
}


def test_a_reward_that_rises_while_the_accuracy_falls_is_a_sign(tmp_path: Path) -> None:
    shown = io.StringIO()
    go(tmp_path, "before", "rl", "after", model=base(tmp_path, 8), shown=shown, **RL)
    assert [name for stage, name in signs(tmp_path) if stage == "after" and name != "same_code"] == [
        "evaluation",
        "evaluation",
    ]
    assert ("rl", "entropy") in signs(tmp_path)
    text = "canary evaluation: the reward rose from 3.3 to 5.3, the accuracy on test fell by 80.0%"
    assert shown.getvalue().count(text) == 1


def test_a_stage_of_its_own_may_be_stopped_by_it_and_keeps_what_it_made(tmp_path: Path) -> None:
    stopping = {"evaluation": {"action": "stop"}}
    with pytest.raises(StageFailed, match=r"the accuracy on test fell by 80\.0%"):
        go(tmp_path, "before", "rl", "after", model=base(tmp_path, 8), after__canaries=stopping, **RL)
    Pupil.asked = 0
    with pytest.raises(StageFailed, match=r"the accuracy on test fell by 80\.0%"):
        go(tmp_path, "before", "rl", "after", model=base(tmp_path, 8), after__canaries=stopping, **RL)
    assert Pupil.asked == 0
    report = go(tmp_path, "before", "rl", "after", model=base(tmp_path, 8), **RL)
    assert [r["accuracy"] for r in report.results] == [0.8, 0.8, 0.0, 0.0]


@pytest.mark.parametrize(
    "changes",
    [
        {"before__tools": []},  # another system
        {"before__model": "other"},  # another model
        {"before__tasks": ["train"]},  # other tasks
        {"after__model": "before-rl"},  # not what RL made
    ],
)
def test_nothing_is_compared_with_what_it_did_not_begin_with(tmp_path: Path, changes: dict[str, Any]) -> None:
    changes = {
        key: base(tmp_path, 9) if value in ("other", "before-rl") else value for key, value in changes.items()
    }
    go(tmp_path, "before", "rl", "after", model=base(tmp_path, 8), **{**RL, **changes})
    assert "evaluation" not in {name for _, name in signs(tmp_path)}


# --- the recipe -------------------------------------------------------------------------------------------------
RECIPE = """
schema = 1
name = "guarded"
model = "tiny"

[tasks.train]
source = "tiny"
size = 4

[canaries.tool_use]
action = "stop"

[canaries.evaluation]
action = "%s"

[[stage]]
name = "rl"
kind = "rl"
tasks = "train"
canaries.truncation = { action = "filter", %s = 0.3 }
"""


def test_faults_of_a_canary_are_told_with_their_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "guarded.toml"
    path.write_text(RECIPE % ("filter", "raise"))
    assert main(["recipes", "validate", str(path)]) == 2
    told = capsys.readouterr().err
    assert "line 14: canaries.evaluation.action: input should be 'off', 'warn' or 'stop'" in told
    assert "line 20: stage.rl.canaries.truncation.raise: unknown key; did you mean 'rise'?" in told
    path.write_text((RECIPE % ("warn", "rise")).replace("canaries.tool_use", "canaries.tools_use"))
    assert main(["recipes", "validate", str(path)]) == 2
    assert "canaries.tools_use: unknown key; did you mean 'tool_use'?" in capsys.readouterr().err


def test_the_schema_describes_every_canary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "schema"]) == 0
    definitions = json.loads(capsys.readouterr().out)["$defs"]
    names = definitions["Canaries"]["properties"]
    assert set(names) == set(Canaries.model_fields)
    for name in names.values():
        table = definitions[name["$ref"].rpartition("/")[2]]
        assert table["description"] and table["properties"]["action"]["enum"]
        assert all(key["description"] for key in table["properties"].values())
