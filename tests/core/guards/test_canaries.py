"""What a canary's sign is, from trajectories and from a trainer's metrics, and what each action does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cort_framework import (
    Outcome,
    Reward,
    Task,
    ToolCall,
    ToolResult,
    Trajectory,
    Turn,
)
from cort_framework.errors import StageFailed
from cort_framework.guards.canaries import Canaries, Count, only_printed, programs
from cort_framework.guards.lookout import FEWEST, LOOK_EVERY, WINDOW, Lookout, reward_trend
from cort_framework.recipe import load_recipe
from cort_framework.recipe.settings import Recipe, validated


class Told:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.notes: list[str] = []

    def progress(self, description: str, total: int | None = None) -> Any:
        raise NotImplementedError

    def metrics(self, **values: float | int | str) -> None:
        self.lines.append(values)

    def note(self, text: str) -> None:
        self.notes.append(text)

    @property
    def signs(self) -> list[Any]:
        return [line["canary"] for line in self.lines if "canary" in line]


def trajectory(
    task: str = "t",
    code: str | None = "print(4)",
    output: str = "4",
    outcome: Outcome = Outcome.OK,
    answer: str = "So it is \\boxed{4}.",
    reward: float = 1.0,
    stop: Any = "eos",
    **fields: Any,
) -> Trajectory:
    turns = [Turn("prompt", (1,), "What is 2+2?")]
    if code is not None:
        turns.append(Turn("model", (2,), f"```python\n{code}\n```\n"))
        result = ToolResult(outcome, output)
        turns.append(
            Turn("tool", (3,), f"```output\n{output}\n```\n", call=ToolCall("python", code), result=result)
        )
    turns.append(Turn("model", (4,), answer))
    rewards = {"answer": Reward(reward)}
    return Trajectory(
        f"{task}/0", Task(task, "What is 2+2?", "4"), turns=turns, rewards=rewards, stop_reason=stop, **fields
    )


def canaries(**tables: Any) -> Canaries:
    return validated(Canaries, tables)


def batch(*made: Trajectory, times: int = FEWEST) -> list[Trajectory]:
    return [*made] * times


# --- signs of a collection --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("sign", "made"),
    [
        ("tool_use", [trajectory(code=None)]),
        ("code_success", [trajectory(outcome=Outcome.PROGRAM_ERROR)]),
        ("printed_answer", [trajectory(output="\\boxed{4}", answer="See above.")]),
        (
            "truncation",
            [trajectory(stop="length"), trajectory("u", "print(5)"), trajectory("u", stop="length")],
        ),
    ],
)
def test_each_sign_is_told_once_to_the_person_and_each_time_in_the_metrics(
    sign: str, made: Sequence[Trajectory]
) -> None:
    told = Told()
    lookout = Lookout("rl", canaries(same_code={"action": "off"}), told)
    for one in batch(*made, times=2 * LOOK_EVERY):
        lookout.collected(one)
    lookout.look()
    assert set(told.signs) == {sign} and len(told.signs) > 1
    assert [note.partition(":")[0] for note in told.notes] == [f"canary {sign}"]
    assert {line["action"] for line in told.lines} == {"warn"}


def test_a_good_collection_and_a_small_one_are_silent() -> None:
    told = Told()
    lookout = Lookout("rl", Canaries(), told)
    for number in range(3 * LOOK_EVERY):
        lookout.collected(trajectory(f"t{number // 2}", f"print({number})"))
    few = Lookout("rl", Canaries(), told)
    for one in batch(trajectory(code=None), times=FEWEST - 1):
        few.collected(one)
    for each in (lookout, few):
        each.look()
    assert not told.lines and not told.notes


def test_what_has_no_tools_need_not_use_them() -> None:
    told = Told()
    lookout = Lookout("rl", Canaries(), told, can_call=False)
    for one in batch(trajectory(code=None)):
        lookout.collected(one)
    lookout.look()
    assert not told.signs


def test_the_same_code_in_every_group_is_a_sign_and_in_one_group_of_two_is_none() -> None:
    for different in (False, True):
        told = Told()
        lookout = Lookout("rl", Canaries(), told)
        for number in range(16):
            lookout.collected(trajectory(f"t{number}", "print( 4)"))
            lookout.collected(
                trajectory(f"t{number}", "print(5)" if different and number % 2 else "print(\n4)")
            )
        lookout.look()
        assert told.signs == ([] if different else ["same_code"])


def test_a_group_is_alike_only_while_all_of_it_is_and_only_if_it_ran_code() -> None:
    def alike(*codes: str | None) -> tuple[float, float]:
        count = Count()
        for code in codes:
            count.add(trajectory(code=code))
        return count.sums["alike"], count.sums["groups"]

    assert alike("a") == (0, 0)
    assert alike("a", "a", "a") == (1, 1)
    assert alike("a", "a", "b", "a") == (0, 1)
    assert alike("a", "b", "b") == (0, 1)
    assert alike(None, None) == (0, 1)
    assert alike(None, "a", "a") == (0, 1)
    assert alike("a", None, "a") == (0, 1)


def test_an_answer_is_only_printed_where_the_models_own_words_do_not_hold_it() -> None:
    assert only_printed(trajectory(output="\\boxed{4}", answer="Done."))
    assert only_printed(trajectory(output="4", answer="As printed."))  # and it was rewarded as right
    assert not only_printed(trajectory(output="4", answer="As printed.", reward=0.0))
    assert not only_printed(trajectory(output="\\boxed{4}", answer="So it is 4."))
    assert not only_printed(trajectory(output="\\boxed{4}", answer="So it is \\boxed{4}."))
    assert only_printed(trajectory(output="\\boxed{4}", answer="In 14 of 41 cases."))
    assert not only_printed(trajectory(code=None, answer="Nothing."))


def test_a_trajectory_in_which_the_machinery_failed_counts_for_nothing() -> None:
    count = Count()
    count.add(trajectory(error="the kernel died"))
    assert not count.sums["seen"]


def test_programs_are_compared_without_their_white_space() -> None:
    assert programs(trajectory(code="x = 1\nprint(x)")) == programs(trajectory(code="x = 1\n\n  print(x)\n"))
    assert programs(trajectory(code="x=1")) != programs(trajectory(code="x=2"))


# --- signs of RL ------------------------------------------------------------------------------------------------
def some(share: float, **fields: Any) -> list[Trajectory]:
    """A batch of which this share calls a tool."""
    return [trajectory(f"t{n}", "print(4)" if n < share * 20 else None, **fields) for n in range(20)]


def test_tool_use_that_falls_to_less_than_half_of_what_it_was_is_a_sign(tmp_path: Path) -> None:
    told = Told()
    lookout = Lookout("rl", Canaries(), told, state=tmp_path / "canaries.json")
    for step, share in enumerate([0.8] * 6 + [0.3] * 4):
        lookout.batch(some(share))
        assert bool(told.signs) == (step == 9), step
    assert told.notes == ["canary tool_use: 30.0% of 80 trajectories called a tool, 80.0% at first"]


def test_truncation_that_rises_is_a_sign_long_before_it_is_half(tmp_path: Path) -> None:
    told = Told()
    lookout = Lookout("rl", Canaries(), told, state=tmp_path / "canaries.json")
    for cut in [1] * 4 + [6] * 4:
        lookout.batch([trajectory(f"t{n}", f"{n}", stop="length" if n < cut else "eos") for n in range(20)])
    assert set(told.signs) == {"truncation"} and told.lines[-1]["value"] == 0.3


def test_a_stage_that_goes_on_knows_how_it_began_and_what_was_said(tmp_path: Path) -> None:
    told = Told()
    for share in [0.8] * WINDOW + [0.3] * (WINDOW + 1):
        lookout = Lookout("rl", Canaries(), told, state=tmp_path / "canaries.json")
        lookout.batch(some(share))
        lookout.metrics({"entropy": share})
    assert told.signs == ["tool_use"] * 2 and len(told.notes) == 1


def test_a_state_that_is_damaged_is_as_none(tmp_path: Path) -> None:
    state = tmp_path / "canaries.json"
    for text in ("", "[]", '{"batches": {"first": 3}}', "{", "\x00"):
        state.write_text(text)
        lookout = Lookout("rl", Canaries(), Told(), state=state)
        assert not lookout.state.batches.batches and reward_trend(state) is None


def test_the_entropy_of_a_policy_that_collapses_is_a_sign_and_that_of_sft_is_none(tmp_path: Path) -> None:
    for state in (tmp_path / "canaries.json", None):
        told = Told()
        lookout = Lookout("rl", Canaries(), told, state=state)
        for entropy in [0.5] * WINDOW + [0.0] * 9 + [0.04] * WINDOW:
            lookout.metrics({"entropy": entropy, "loss": 0.1})
        assert told.signs == (["entropy"] if state else [])


def test_a_gap_between_log_probs_is_a_sign() -> None:
    told = Told()
    lookout = Lookout("rl", Canaries(), told)
    lookout.metrics({"logprob_gap_mean": 0.01, "logprob_gap": 0.9})
    lookout.metrics({"logprob_gap_mean": 0.2})
    assert told.signs == ["logprob_gap"] and told.lines[0]["value"] == 0.2


@pytest.mark.parametrize("values", [{"loss": math.nan}, {"loss": 0.0, "grad_norm": math.inf}])
def test_a_loss_that_is_no_number_stops_the_stage_unless_the_recipe_says_otherwise(values: Any) -> None:
    told = Told()
    with pytest.raises(StageFailed, match=r"canary loss: (loss is nan|grad_norm is inf) at step 7") as caught:
        Lookout("rl", Canaries(), told).metrics({"step": 7, **values})
    assert "--set stage.rl.canaries.loss.action=warn" in (caught.value.hint or "")
    assert told.signs == ["loss"] and not told.notes
    Lookout("rl", canaries(loss={"action": "warn"}), told).metrics(values)
    assert len(told.notes) == 1
    Lookout("rl", canaries(loss={"action": "off"}), told).metrics(values)
    assert told.signs == ["loss"] * 2


def test_metrics_that_are_no_numbers_are_passed_on_and_looked_at_no_further() -> None:
    told = Told()
    Lookout("rl", Canaries(), told).reporting().metrics(loss="unknown", entropy="?", step=1)
    assert told.lines == [{"loss": "unknown", "entropy": "?", "step": 1}]


# --- actions ----------------------------------------------------------------------------------------------------
def test_stop_ends_the_stage_and_every_sign_of_that_look_is_written_first() -> None:
    told = Told()
    lookout = Lookout("rl", canaries(tool_use={"action": "stop"}, truncation={"most": 0.1}), told)
    for one in batch(trajectory(code=None, stop="length")):
        lookout.collected(one)
    with pytest.raises(StageFailed, match=r"canary tool_use: 0\.0% of 32 trajectories called a tool"):
        lookout.look()
    assert told.signs == ["tool_use", "truncation"]


def test_filter_gives_what_shows_a_sign_one_verdict_and_leaves_the_rest_alone() -> None:
    acting = canaries(tool_use={"action": "filter"}, truncation={"action": "filter"})
    made = [trajectory("a"), trajectory("a", code=None, stop="length"), trajectory("b", stop="length")]
    for _ in range(2):
        Lookout("rl", acting, Told()).leave_out(made)
    assert [[v.filter for v in t.verdicts] for t in made] == [[], ["canary tool_use"], ["canary truncation"]]
    assert [t.kept for t in made] == [True, False, False]
    untouched = trajectory(code=None)
    assert not Lookout("rl", Canaries(), Told()).leave_out([untouched]) and untouched.kept


def test_a_group_that_ran_the_same_code_is_left_out_as_a_whole() -> None:
    lookout = Lookout("rl", canaries(same_code={"action": "filter"}), Told())
    made = [trajectory("a"), trajectory("a"), trajectory("b"), trajectory("b", "print(5)"), trajectory("c")]
    assert not lookout.leave_out(made, whole=False)
    assert lookout.leave_out(made) == made[:2]


# --- the recipe -------------------------------------------------------------------------------------------------
def test_what_has_no_trajectory_to_leave_out_cannot_filter() -> None:
    assert (
        validated(Recipe, {"schema": 1, "name": "x", "stage": [{"name": "a", "kind": "rl"}]}).canaries
        == Canaries()
    )
    for name in Canaries.model_fields:
        table = {name: {"action": "filter"}}
        if name in ("evaluation", "entropy", "loss", "logprob_gap"):
            with pytest.raises(ValueError, match="'off', 'warn' or 'stop'"):
                canaries(**table)
        else:
            assert canaries(**table).sieves == (name,)


def test_a_recipe_keeps_its_canaries_through_toml(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(
        'schema = 1\nname = "x"\ncanaries.loss.action = "warn"\n[[stage]]\nname = "a"\nkind = "rl"\ntasks = "t"\n'
        'canaries.truncation = { action = "filter", most = 0.25 }\n[tasks.t]\nsource = "tiny"\n'
        '[profile.strict.canaries.tool_use]\naction = "stop"\n'
    )
    loaded = load_recipe(path, "strict", ["canaries.entropy.least=0.1"])
    assert loaded.canaries == canaries(
        loss={"action": "warn"}, tool_use={"action": "stop"}, entropy={"least": 0.1}
    )
    path.write_text(loaded.to_toml())
    assert load_recipe(path) == loaded and loaded.stage[0].canaries["truncation"]["most"] == 0.25
