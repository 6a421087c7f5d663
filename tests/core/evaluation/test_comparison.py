"""Systems on the same tasks, over runs: differences by hand and against a second implementation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from stories import story

from cort_framework import Reward, Task, Trajectory
from cort_framework.evaluation.comparison import cells, paired_difference
from cort_framework.testing import make_trajectory


def sample(
    task: str, right: bool, tokens: int = 10, discarded: int = 0, error: str | None = None
) -> Trajectory:
    made = make_trajectory([("prompt", "P"), ("model", "x" * tokens)], Task(task, "P", "1"))
    rewards = {"answer": Reward(float(right))}
    return replace(made, rewards=rewards, discarded_tokens=discarded, error=error)


def drawn(
    noise: np.random.Generator, runs: int, tasks: int, share: float, most: int
) -> list[tuple[int, Trajectory]]:
    """Some tasks are harder than others, and some trainings better."""
    hard, good = noise.normal(0, 0.2, tasks), noise.normal(0, 0.05, runs)
    return [
        (
            run,
            sample(
                f"t{n}", bool(noise.random() < share + hard[n] + good[run]), int(noise.integers(20, most))
            ),
        )
        for run in range(runs)
        for n in range(tasks)
    ]


def grid(samples: Sequence[tuple[int, Trajectory]], runs: int, what: str) -> np.ndarray:
    values = [
        float(t.rewards["answer"].value or 0) if what == "accuracy" else t.response_tokens for _, t in samples
    ]
    return np.array(values, dtype=float).reshape(runs, -1)


@pytest.mark.parametrize("runs", [1, 3])
def test_differences_and_intervals_are_those_of_numpy(runs: int) -> None:
    noise = np.random.default_rng(0)
    before, after = drawn(noise, runs, 100, 0.5, 150), drawn(noise, runs, 100, 0.7, 60)
    report = paired_difference(cells(before), cells(after))
    assert (report["runs"], report["tasks"]) == (runs, 100)
    for what in ("accuracy", "tokens"):
        first, second = grid(before, runs, what), grid(after, runs, what)
        rows, columns = noise.integers(0, runs, (4000, runs)), noise.integers(0, 100, (4000, 100))
        for name, values in (("against", first), ("system", second), (None, second - first)):
            found = report[what] if name is None else report[what][name]
            means = [values[r][:, c].mean() for r, c in zip(rows, columns, strict=True)]
            low, high = np.quantile(means, [0.025, 0.975])
            assert found["mean"] == pytest.approx(values.mean())
            assert found["ci"] == pytest.approx([low, high], abs=0.08 * (high - low))
        assert report[what]["by_run"] == pytest.approx((second - first).mean(axis=1).tolist())


def test_a_share_of_few_calls_weighs_calls_and_not_tasks() -> None:
    """Two calls that calculate in one task, one that checks in another."""
    both = story("So I compute.", ("print(37*48)", "1776"), ("print(9*1776)", "15984"))
    checks = story("That is 37*48 = 1776.\n", ("print(37*48)", "1776"))
    one = cells([(0, replace(both, task=Task("a", "P"))), (0, replace(checks, task=Task("b", "P")))])
    share = paired_difference(one, one)["calculation_share"]
    assert share["system"]["mean"] == pytest.approx(2 / 3)
    assert share["mean"] == 0 and share["ci"] == [0, 0]


def test_the_share_of_a_subject_is_of_the_answers_and_counts_each_once() -> None:
    """Two calls of chemistry in one of two answers, a sum in the other."""
    molecule = story(("from rdkit import Chem", ""), ("print(Chem.MolFromSmiles('C'))", "1"))
    plain = story(("print(1)", "1"))
    told = [(0, replace(t, task=Task(name, "P"))) for name, t in (("a", molecule), ("b", plain))]
    neither = [(0, replace(plain, task=Task(name, "P"))) for name in "ab"]
    report = paired_difference(cells(neither, about="chemistry"), cells(told, about="chemistry"))
    assert (report["subject_share"]["against"]["mean"], report["subject_share"]["mean"]) == (0, 0.5)
    assert paired_difference(cells(told), cells(told))["subject_share"]["system"]["mean"] == 0


def test_what_nobody_did_has_no_share() -> None:
    same = cells([(0, sample("a", False)), (0, sample("b", False))])
    report = paired_difference(same, same)
    for measure in ("calculation_share", "tokens_per_correct"):
        assert report[measure]["mean"] is None and report[measure]["ci"] is None
        assert report[measure]["by_run"] == [None]
    assert report["accuracy"]["mean"] == 0


def test_a_task_with_more_samples_weighs_no_more() -> None:
    many = cells([(0, sample("a", True)), *((0, sample("b", False)) for _ in range(9))])
    none = cells([(0, sample("a", False)), (0, sample("b", False))])
    assert paired_difference(none, many)["accuracy"]["mean"] == 0.5


def test_failures_count_as_wrong_and_what_was_cut_back_not_at_all() -> None:
    failed, cut = (
        sample("a", True, error="the kernel is gone"),
        replace(sample("a", True), stop_reason="rewound"),
    )
    good = cells([(0, sample("a", True, discarded=7))])
    report = paired_difference(cells([(0, failed), (0, cut)]), good)
    assert report["accuracy"]["mean"] == 1
    assert report["tokens"]["mean"] == 0 and report["tokens_generated"]["mean"] == 7
    assert report["tokens_per_correct"]["against"]["mean"] is None


def test_only_runs_and_tasks_that_both_have_are_paired() -> None:
    first = cells([(run, sample(task, False)) for run in (0, 1) for task in "ab"])
    second = cells([(run, sample(task, True)) for run in (1, 2) for task in "bc"])
    report = paired_difference(first, second)
    assert (report["runs"], report["tasks"], report["accuracy"]["mean"]) == (1, 1, 1)
    with pytest.raises(ValueError, match="in a common run"):
        paired_difference(first, cells([(7, sample("a", True))]))
    with pytest.raises(ValueError, match="in all runs"):
        paired_difference(first, cells([(0, sample("z", True))]))


def test_a_set_does_not_differ_from_itself() -> None:
    same = cells(drawn(np.random.default_rng(1), 2, 5, 0.5, 90))
    for measure, figure in paired_difference(same, same).items():
        if measure not in ("runs", "tasks") and figure["mean"] is not None:
            assert figure["mean"] == 0 and figure["ci"] == [0, 0]
