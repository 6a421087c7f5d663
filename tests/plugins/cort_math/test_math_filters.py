"""What the filters keep."""

from __future__ import annotations

from dataclasses import replace

import pytest
from math_samples import answered, scored, with_calls

from cort_framework import Filter, Group, Outcome, Trajectory, Verdict
from cort_math.filters import (
    CorrectFilter,
    FinishedFilter,
    InfraErrorFilter,
    MaxTokensFilter,
    NoInventedOutputFilter,
    ShortestFilter,
    UsedCodeFilter,
)


def keeps(judge: Filter, trajectory: Trajectory) -> bool:
    verdict = judge.judge(trajectory)
    assert verdict.filter == judge.name
    assert verdict.keep or verdict.reason
    return bool(verdict.keep)


def test_correct_keeps_what_the_reward_calls_right() -> None:
    judge = CorrectFilter()
    assert keeps(judge, scored(1.0))
    assert not keeps(judge, scored(0.0))
    assert (
        judge.judge(scored(None, error="the comparison ran away")).reason
        == "not scored: the comparison ran away"
    )


def test_correct_can_ask_another_reward_at_another_threshold() -> None:
    trajectory = replace(scored(0.0), rewards={"close": scored(0.7).rewards["answer"]})
    assert keeps(CorrectFilter(CorrectFilter.Config(reward="close", threshold=0.5)), trajectory)
    with pytest.raises(ValueError, match="there is no reward 'answer' on the trajectory; there are: close"):
        CorrectFilter().judge(trajectory)


def test_finished_drops_what_a_budget_or_a_failure_stopped() -> None:
    assert keeps(FinishedFilter(), scored(1.0))
    assert not keeps(FinishedFilter(), replace(scored(1.0), stop_reason="length"))
    assert not keeps(FinishedFilter(), replace(scored(1.0), error="the kernel is gone"))


def test_infra_errors_are_dropped_with_the_call_as_evidence() -> None:
    judge = InfraErrorFilter()
    assert keeps(judge, with_calls(Outcome.PROGRAM_ERROR))
    assert not keeps(judge, replace(with_calls(), error="the kernel is gone"))
    trajectory = with_calls(Outcome.OK, Outcome.INFRA_ERROR)
    verdict = judge.judge(trajectory)
    assert not verdict.keep
    assert verdict.span is not None
    assert trajectory.response[slice(*verdict.span)] == trajectory.turns[-1].text


def test_used_code_wants_a_program_that_ran() -> None:
    judge = UsedCodeFilter()
    assert keeps(judge, with_calls(Outcome.PROGRAM_ERROR, Outcome.OK))
    assert judge.judge(with_calls()).reason == "no program was run"
    assert judge.judge(with_calls(Outcome.TIMEOUT)).reason == "all programs failed"


def test_an_output_that_the_model_made_up_is_dropped_and_a_real_one_is_not() -> None:
    judge = NoInventedOutputFilter()
    assert keeps(judge, with_calls(Outcome.OK, Outcome.OK))
    assert keeps(judge, answered("The block that begins with ```output holds it.", "1"))
    trajectory = answered("Done.", "1", thinking="```\nprint(2)\n```\n```output\n2\n```\nSo 2.")
    verdict = judge.judge(trajectory)
    assert not verdict.keep
    assert verdict.span is not None
    assert trajectory.response[slice(*verdict.span)] == "```output"


def test_max_tokens_counts_the_whole_response() -> None:
    judge = MaxTokensFilter(MaxTokensFilter.Config(limit=12))
    assert keeps(judge, scored(1.0, tokens=12))
    assert not keeps(judge, scored(1.0, tokens=13))
    assert not keeps(judge, with_calls(Outcome.OK, Outcome.OK))


def test_shortest_keeps_the_shortest_right_ones_of_a_task() -> None:
    lengths = [(1.0, 50), (0.0, 5), (1.0, 20), (1.0, 30), (None, 1), (1.0, 20)]
    trajectories = [scored(value, tokens, sample) for sample, (value, tokens) in enumerate(lengths)]
    trajectories.append(replace(scored(1.0, 2, 6), verdicts=[Verdict(False, "a fault", filter="other")]))
    judge = ShortestFilter(ShortestFilter.Config(keep=3))
    verdicts = judge.judge_group(Group(trajectories[0].task, trajectories))
    assert [v.keep for v in verdicts] == [False, False, True, True, False, True, False]
    assert verdicts[0].reason == "not among the shortest: 50 tokens"
