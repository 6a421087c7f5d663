"""The stage kinds, each on the small world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pupil import Pupil, Teach, base, go, registry

from cort_framework import Hint, HintInjector, Trajectory
from cort_framework.errors import RecipeError, StageFailed
from cort_framework.store import read_trajectories

RIGHT = {"kind": "synthesize", "tasks": "train", "hints": ["okay"], "filters": ["right"]}


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Teach, "trained", [])
    monkeypatch.setattr(Pupil, "asked", 0)


def made(folder: Path, stage: str) -> list[Trajectory]:
    return list(read_trajectories(folder / "run" / stage / "trajectories.jsonl"))


# --- synthesize -------------------------------------------------------------------------------------------------
def test_synthesis_keeps_one_sample_a_task_until_the_target_is_reached(tmp_path: Path) -> None:
    report = go(tmp_path, "make", make__target=2)
    trajectories = made(tmp_path, "make")
    assert [t.id for t in trajectories] == [f"sum-{n}/0" for n in range(4)]  # in batches of twice the target
    assert [t.id for t in trajectories if t.kept] == ["sum-0/0", "sum-1/0"]
    third, fourth = trajectories[2:]
    assert [(v.filter, v.keep) for v in third.verdicts] == [("right", True), ("target", False)]
    assert [v.filter for v in fourth.verdicts] == ["right"]
    assert all(t.turns[1].author == "hint" for t in trajectories)
    summary = report.stages[0].result.summary
    assert (summary["kept"], summary["tried"], summary["rewinds in kept"]) == (2, 4, 0)
    assert summary["tokens"] == sum(t.generated_tokens for t in trajectories)


def test_synthesis_without_filters_keeps_no_more_than_the_target(tmp_path: Path) -> None:
    go(tmp_path, "make", make__target=3, make__filters=[])
    assert [t.id for t in made(tmp_path, "make") if t.kept] == [f"sum-{n}/0" for n in range(3)]


def test_synthesis_tries_the_tasks_again_that_have_no_sample_yet(tmp_path: Path) -> None:
    report = go(tmp_path, "make", make__target=5, make__attempts=3)
    ids = [t.id for t in made(tmp_path, "make")]
    assert ids == [f"sum-{n}/0" for n in range(8)] + [f"sum-{n}/{s}" for s in (1, 2) for n in range(3, 8)]
    assert report.stages[0].result.summary["kept"] == 3


class Back(HintInjector):
    """Goes back to the start once."""

    name = "back"

    def inject(self, trajectory: Trajectory) -> Hint | None:
        return None if "Again." in trajectory.response else Hint("Again.\n", 0) if trajectory.calls else None


REWINDS: dict[str, Any] = {"hints": {"okay": {}, "back": {}}}


def test_versions_that_were_cut_back_are_on_disk_and_are_no_samples(tmp_path: Path) -> None:
    registry().register(Back)
    report = go(tmp_path, "make", "sft", **REWINDS, make__hints=["back"])
    trajectories = made(tmp_path, "make")
    assert [t.id for t in trajectories[:2]] == ["sum-0/0", "sum-0/0~1"]
    assert [t.stop_reason for t in trajectories[:2]] == ["rewound", "eos"]
    assert trajectories[0].verdicts == [] and trajectories[0].rewards == {}
    assert report.stages[0].result.summary["rewinds in kept"] == 2
    assert report.stages[1].result.summary["samples"] == 2


# --- rft, sft ---------------------------------------------------------------------------------------------------
def test_rejection_fine_tuning_trains_on_what_passed_and_on_the_samples_from_before(tmp_path: Path) -> None:
    report = go(tmp_path, "make", "rft", rft__data=["make"])
    summary = report.stages[1].result.summary
    assert (summary["kept"], summary["tried"]) == (6, 16)
    assert (
        tmp_path / "run/rft/checkpoint/config.json"
    ).read_text() == '{"knows": 10}'  # 3 + 2 + 6, at most 10
    assert all(t.turns[1].author != "hint" for t in made(tmp_path, "rft"))


def test_fine_tuning_counts_its_samples_and_wants_some(tmp_path: Path) -> None:
    report = go(tmp_path, "make", "sft")
    kept = [t for t in made(tmp_path, "make") if t.kept]
    assert report.stages[1].result.summary == {"samples": 2, "data tokens": sum(len(t.ids) for t in kept)}
    with pytest.raises(RecipeError, match="data"):
        go(tmp_path, "sft", sft__data=["sft"])


def test_fine_tuning_on_a_stage_that_makes_no_trajectories_is_refused(tmp_path: Path) -> None:
    stages = [
        {"name": "sft", "kind": "sft", "data": ["make"], "trainer": "teach"},
        {"name": "more", "kind": "sft", "data": ["sft"], "trainer": "teach"},
    ]
    with pytest.raises(Exception, match=r"stage 'sft' makes no trajectories"):
        go(tmp_path, stage=[{"name": "make", "target": 2, **RIGHT}, *stages])


# --- rl ---------------------------------------------------------------------------------------------------------
def test_reinforcement_learning_rolls_out_with_the_weights_that_it_loads(tmp_path: Path) -> None:
    report = go(tmp_path, "rl")
    trajectories = made(tmp_path, "rl")
    assert len(trajectories) == 16 and {t.turns[1].weights_version for t in trajectories} == {1}
    assert all(t.rewards["answer"].value is not None for t in trajectories)
    summary = report.stages[0].result.summary
    assert summary == {"trajectories": 16, "tokens": sum(t.generated_tokens for t in trajectories)}
    assert report.checkpoint is not None and report.checkpoint.parent.name == "rl"


def test_reinforcement_learning_allows_no_rewind(tmp_path: Path) -> None:
    registry().register(Back)
    with pytest.raises(StageFailed, match="asks for a rewind, which RL does not allow"):
        go(tmp_path, "rl", **REWINDS, rl__hints=["back"])


# --- select -----------------------------------------------------------------------------------------------------
SELECT = {"name": "choose", "kind": "select", "tasks": "train", "samples": 2, "least": 1.0, "most": 1.0}
ON_CHOSEN = {
    "name": "learn",
    "kind": "rft",
    "tasks": "choose",
    "samples": 2,
    "filters": ["right"],
    "trainer": "teach",
}


def test_tasks_of_the_asked_difficulty_are_a_set_for_the_stages_after(tmp_path: Path) -> None:
    report = go(tmp_path, stage=[SELECT, ON_CHOSEN])
    assert report.stages[0].result.summary["tasks"] == 3  # the pupil knows 0, 1 and 2
    assert [t.task.id for t in made(tmp_path, "learn")] == [f"sum-{n}" for n in range(3) for _ in range(2)]
    asked = Pupil.asked
    again = go(tmp_path, stage=[SELECT, ON_CHOSEN])
    assert all(stage.cached for stage in again.stages) and Pupil.asked == asked
    wider = go(tmp_path, stage=[{**SELECT, "least": 0.0, "limit": 5}, ON_CHOSEN])
    assert [t.task.id for t in made(tmp_path, "learn")] == [f"sum-{n}" for n in range(5) for _ in range(2)]
    assert wider.stages[0].result.tasks is not None and not wider.stages[1].cached


def test_a_selection_that_changes_nothing_costs_the_stages_after_nothing(tmp_path: Path) -> None:
    go(tmp_path, stage=[SELECT, ON_CHOSEN])
    other = go(tmp_path, stage=[{**SELECT, "least": 0.5}, ON_CHOSEN])  # the same tasks
    assert [stage.cached for stage in other.stages] == [False, True]


def test_a_selection_that_finds_nothing_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(
        StageFailed, match=r"no task with 0\.5 to 0\.5 of its 2 samples right: there are 5 with 0, 3 with 2"
    ):
        go(tmp_path, stage=[{**SELECT, "least": 0.5, "most": 0.5}])


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([ON_CHOSEN, SELECT], "no \\[tasks\\] table is called 'choose'"),
        ([{**SELECT, "name": "train"}], "have one name"),
        ([{**SELECT, "least": 0.5, "most": 0.25}], "least \\(0.5\\) is above most"),
        ([{**SELECT, "samples": 4, "least": 0.125, "most": 0.125}], "of 4 samples no number is a share"),
    ],
)
def test_a_selection_that_cannot_be_is_refused(tmp_path: Path, stages: list[Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        go(tmp_path, stage=stages)


# --- distill ----------------------------------------------------------------------------------------------------
def test_a_student_learns_from_what_a_teacher_has_shown(tmp_path: Path) -> None:
    student = {"kind": "distill", "data": ["make"], "trainer": "teach", "model": base(tmp_path, 5)}
    make = {"name": "make", "target": 2, **RIGHT}
    report = go(tmp_path, stage=[make, {"name": "teach", **student}])
    told = made(tmp_path, "teach")
    shown = [t for t in made(tmp_path, "make") if t.kept]
    assert [[(turn.author, turn.text) for turn in t.turns] for t in told] == [
        [(turn.author, turn.text) for turn in t.turns] for t in shown
    ]
    assert all(turn.logprobs is None for t in told for turn in t.turns)
    assert [t.metadata["tokenised_again_from"] for t in told] == [t.id for t in shown]
    assert report.stages[1].result.summary["samples"] == 2
    assert (tmp_path / "run/teach/checkpoint/config.json").read_text() == '{"knows": 7}'


def test_what_is_too_long_for_the_student_is_left_out(tmp_path: Path) -> None:
    student = {"kind": "distill", "data": ["make"], "trainer": "teach", "max_tokens": 5}
    with pytest.raises(StageFailed, match="of 2 that its data stages kept, none can be told"):
        go(tmp_path, stage=[{"name": "make", "target": 2, **RIGHT}, {"name": "teach", **student}])


# --- evaluate ---------------------------------------------------------------------------------------------------
def test_a_system_without_tools_has_none(tmp_path: Path) -> None:
    report = go(tmp_path, "before", before__tools=[], before__tasks=["test"])
    (record,) = report.results
    assert (record["tool_calls"], record["code_share"], record["accuracy"]) == (0, 0, 0)


def test_hints_and_prompt_are_the_systems_own(tmp_path: Path) -> None:
    go(tmp_path, "before", before__hints=["okay"], before__rollout={"prompt": "natural"})
    for t in made(tmp_path, "before"):
        assert t.turns[1].text == "Okay.\n" and "Please reason step by step" in t.prompt


def test_systems_that_are_compared_meet_the_same_noise(tmp_path: Path) -> None:
    go(tmp_path, "before", "after", after__model=base(tmp_path, 7))
    before = {t.id: t.seed for t in made(tmp_path, "before")}
    after = {t.id: t.seed for t in made(tmp_path, "after")}
    assert after and after == {name: before[name] for name in after}


def test_the_trajectories_stand_in_the_order_of_the_sets_tasks_and_samples(tmp_path: Path) -> None:
    go(tmp_path, "before")
    numbers = [*range(100, 110), *range(205, 210)]
    assert [t.id for t in made(tmp_path, "before")] == [f"sum-{n}/{s}" for n in numbers for s in range(2)]
