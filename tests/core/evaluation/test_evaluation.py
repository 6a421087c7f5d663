"""The figures of a report, against values worked by hand and against a second implementation."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stories import story

from cort_framework import Outcome, Reward, Task, Trajectory, Turn, Verdict
from cort_framework.evaluation import (
    answer_key,
    bootstrap,
    evaluate,
    funnel,
    is_right,
    last_boxed,
    majority_at_k,
    pass_at_k,
)


def sample(
    task: str,
    number: int,
    right: bool,
    answer: str = "1",
    tokens: int = 10,
    discarded: int = 0,
    **fields: object,
) -> Trajectory:
    turns = [
        Turn("prompt", (0,), "P<think>\n"),
        Turn("model", (1,) * tokens, f"</think>\n\\boxed{{{answer}}}"),
    ]
    made = Trajectory(
        f"{task}/{number}", Task(task, "P", "1"), number, turns=turns, stop_reason="eos", seconds=0.5
    )
    return replace(made, discarded_tokens=discarded, rewards={"answer": Reward(float(right))}, **fields)


# --- reading ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("\\boxed{5}", "5"),
        ("a \\boxed{4} b \\boxed{ 5 } c", "5"),
        ("\\boxed {\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{\\boxed{5}}", "5"),
        ("{\\boxed{5}}", "5"),
        ("\\boxed{5} and \\boxed{6", "5"),
        ("\\boxed{5", None),
        ("5", None),
    ],
)
def test_the_last_complete_box_is_the_answer(text: str, content: str | None) -> None:
    assert last_boxed(text) == content


def test_a_thousand_open_boxes_are_read_in_one_pass() -> None:
    assert last_boxed("\\boxed{" * 20_000) is None
    assert last_boxed("\\boxed{" * 20_000 + "5}") == "5"


# --- behaviour ----------------------------------------------------------------------------------------------------


def test_a_vote_is_the_metadatas_answer_or_the_last_box() -> None:
    assert answer_key(sample("a", 0, True, "7")) == "7"
    assert answer_key(sample("a", 0, True, "7", metadata={"answer": 8})) == "8"


def test_right_means_scored_as_right_and_free_of_failures() -> None:
    assert is_right(sample("a", 0, True))
    assert not is_right(sample("a", 0, False))
    assert not is_right(sample("a", 0, True, error="the kernel is gone"))
    assert not is_right(replace(sample("a", 0, True), rewards={"answer": Reward(None, error="killed")}))
    assert not is_right(replace(sample("a", 0, True), rewards={}))


# --- estimators ---------------------------------------------------------------------------------------------------
def test_pass_at_k_by_hand() -> None:
    assert pass_at_k(4, 1, 1) == 1 / 4
    assert pass_at_k(4, 1, 2) == 1 / 2
    assert pass_at_k(4, 2, 2) == 1 - 1 / 6
    assert pass_at_k(4, 0, 4) == 0
    assert pass_at_k(4, 1, 4) == 1


@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_all_subsets_that_hold_a_right_one(case: tuple[int, int, int]) -> None:
    n, correct, k = case
    subsets = list(itertools.combinations([True] * correct + [False] * (n - correct), k))
    assert pass_at_k(n, correct, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_majority_by_hand() -> None:
    rng = Random(0)
    assert majority_at_k(["1", "1", "2"], {"1"}, 3, rng) == 1
    assert majority_at_k(["1", "2", "2"], {"1"}, 3, rng) == 0
    assert majority_at_k(["1", "2"], {"1"}, 2, rng) == 1 / 2
    assert majority_at_k(["1", None, None], {"1"}, 3, rng) == 1
    assert majority_at_k([None, None], {"1"}, 2, rng) == 0


def test_majority_over_subsets_agrees_with_all_subsets() -> None:
    answers, right = ["1"] * 4 + ["2"] * 3 + [None], {"1"}
    exact = np.mean([majority_at_k(s, right, 3, Random(0)) for s in itertools.combinations(answers, 3)])
    assert majority_at_k(answers, right, 3, Random(1), draws=4000) == pytest.approx(exact, abs=0.03)


def test_the_bootstrap_interval_agrees_with_numpy() -> None:
    values = np.random.default_rng(0).binomial(1, 0.7, 200) * 0.5 + np.random.default_rng(1).random(200) * 0.5
    rng = np.random.default_rng(2)
    means = rng.choice(values, (20_000, 200)).mean(axis=1)
    assert bootstrap(values.tolist()) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.006)


def test_the_bootstrap_is_the_same_for_the_same_seed() -> None:
    values = [0.0, 1.0, 1.0, 0.5]
    assert bootstrap(values, seed=3) == bootstrap(values, seed=3) != bootstrap([0.1, 0.9, 0.4, 0.2], seed=3)
    assert bootstrap([1.0] * 10) == (1.0, 1.0)


# --- the report ---------------------------------------------------------------------------------------------------
def two_tasks() -> list[Trajectory]:
    """Task a: 1 of 4 right; task b: 3 of 4."""
    a = [
        sample("a", n, right, "1" if right else "2", tokens=20, discarded=4)
        for n, right in enumerate([True, *[False] * 3])
    ]
    b = [
        sample("b", n, right, "1" if right else "3", tokens=10)
        for n, right in enumerate([False, *[True] * 3])
    ]
    return a + b


def test_a_record_by_hand() -> None:
    record = evaluate(two_tasks(), name="sft", test_set="in-range")
    assert record["name"] == "sft"
    assert record["test_set"] == "in-range"
    assert (record["tasks"], record["samples_per_task"]) == (2, 4)
    assert record["accuracy"] == 0.5
    assert record["pass_at_k"] == {"1": 0.5, "2": pytest.approx((0.5 + 1) / 2), "4": 1.0}
    assert record["maj_at_k"]["4"] == 0.5
    assert record["maj_at_k"]["1"] == pytest.approx(0.5, abs=0.06)
    assert record["tokens"] == 15
    assert record["tokens_generated"] == (24 * 4 + 10 * 4) / 8
    assert record["tokens_per_correct"] == (24 * 4 + 10 * 4) / 4
    assert (record["tool_calls"], record["code_share"], record["calculation_share"]) == (0, 0, None)
    assert record["seconds"] == 4.0
    assert record["accuracy_ci"][0] <= 0.5 <= record["accuracy_ci"][1]
    assert json.loads(json.dumps(record)) == record


def test_the_fields_of_a_record_are_those_of_results_json() -> None:
    assert list(evaluate(two_tasks(), name="rl", test_set="out-of-range", seconds=12.5)) == [
        "name",
        "test_set",
        "tasks",
        "samples_per_task",
        "accuracy",
        "accuracy_ci",
        "pass_at_k",
        "maj_at_k",
        "tokens",
        "tokens_generated",
        "tokens_per_correct",
        "tool_calls",
        "outcomes",
        "code_share",
        "calculation_share",
        "subjects",
        "errors",
        "seconds",
    ]


def test_calls_are_counted_by_outcome_and_labelled() -> None:
    first = story(
        "Go.\n", ("print(37*48)", "1776"), ("print(48*37)", "1776"), ("1/0", "Zero", Outcome.PROGRAM_ERROR)
    )
    record = evaluate([first, replace(story("By hand.\n"), id="t/1", sample=1)], name="x", test_set="y")
    assert record["tool_calls"] == 1.5
    assert record["subjects"] == {"arithmetic": 0.5}
    assert record["outcomes"] == {
        "ok": 2,
        "program_error": 1,
        "timeout": 0,
        "resource_limit": 0,
        "infra_error": 0,
    }
    assert record["code_share"] == 0.5
    assert record["calculation_share"] == 0.5
    assert record["tokens_per_correct"] is None


def test_no_problem_leaves_the_denominator() -> None:
    failed = [sample("c", n, True, error="the kernel is gone") for n in range(4)]
    record = evaluate(two_tasks() + failed, name="x", test_set="y")
    assert (record["tasks"], record["errors"]) == (3, 4)
    assert record["accuracy"] == pytest.approx(1 / 3)
    assert record["maj_at_k"]["4"] == pytest.approx(1 / 3)


def test_a_grader_that_fails_is_an_error_of_the_sample_and_is_counted() -> None:
    failed = sample("a", 9, False)
    failed.rewards["answer"] = Reward(None, error="GradingError: no answer within 5 s")
    record = evaluate([*two_tasks(), failed], name="x", test_set="y")
    assert record["errors"] == 1 and record["tasks"] == 2
    assert funnel([failed])["errors"] == 1


def test_what_a_rewind_cut_back_is_no_sample() -> None:
    parents = [replace(sample("a", 0, False), stop_reason="rewound")]
    assert evaluate(parents + two_tasks(), name="x", test_set="y") == evaluate(
        two_tasks(), name="x", test_set="y"
    )
    with pytest.raises(ValueError, match="no trajectories to evaluate for 'x' on 'y'"):
        evaluate(parents, name="x", test_set="y")


def test_the_funnel_counts_each_loss_once_and_says_why() -> None:
    delayed = Verdict(
        False, "a calculation written out: 9 digit operations", (0, 3), "no-delayed-computation"
    )
    longer = Verdict(False, "not among the shortest: 50 tokens", None, "shortest")
    wrong = Verdict(False, "wrong: answer is 0", None, "correct")
    fine = Verdict(True, filter="correct")
    trajectories = [
        sample("a", 0, True, verdicts=[fine]),
        sample("a", 1, True, verdicts=[fine, delayed, longer]),
        sample("a", 2, True, verdicts=[fine, longer]),
        sample("a", 3, False, verdicts=[wrong, delayed]),
        sample("a", 4, False, verdicts=[wrong], error="the kernel is gone"),
        replace(sample("a", 5, False), stop_reason="rewound"),
    ]
    assert funnel(trajectories) == {
        "collected": 5,
        "rewound": 1,
        "errors": 1,
        "right": 3,
        "without_faults": 2,
        "kept": 1,
        "dropped": {
            "no-delayed-computation": {"a calculation written out": 1},
            "shortest": {"not among the shortest": 1},
            "correct": {"wrong": 2},
        },
    }


def test_a_budget_counts_the_right_ones_that_are_no_longer() -> None:
    made = [
        sample("a", 0, True, tokens=10),
        sample("a", 1, True, tokens=30),
        sample("b", 0, False, tokens=5),
        sample("b", 1, True, tokens=20),
    ]
    record = evaluate(made, name="m", test_set="t", budgets=[20, 10, 40, 9])
    assert record["accuracy_within"] == {"9": 0.0, "10": 0.25, "20": 0.5, "40": 0.75}
    assert record["accuracy_within"]["40"] == record["accuracy"]
    assert "accuracy_within" not in evaluate(made, name="m", test_set="t")
