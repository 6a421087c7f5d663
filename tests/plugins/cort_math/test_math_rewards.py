"""What is right, and what a failure of the comparison costs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from math_samples import answered, with_calls
from processes import children
from pydantic import ValidationError

from cort_framework import Outcome, Task, Trajectory, Turn
from cort_math.grading import Grader, GradingError, quick
from cort_math.rewards import AnswerReward, CodeSuccessReward, LengthReward


def scores(*trajectories: Trajectory, timeout_s: float = 60.0) -> list[float | None]:
    async def run() -> list[float | None]:
        reward = AnswerReward(AnswerReward.Config(timeout_s=timeout_s))
        try:
            return [await reward.score(trajectory) for trajectory in trajectories]
        finally:
            await reward.close()

    return asyncio.run(run())


def with_grader(work: Callable[[Grader], Awaitable[None]], workers: int = 1, timeout_s: float = 60.0) -> None:
    async def run() -> None:
        grader = Grader(workers, timeout_s)
        try:
            await work(grader)
        finally:
            grader.close()

    asyncio.run(run())


SAME = [
    ("42", "42"),
    ("42", "042"),
    ("27.0", "27"),
    ("1,000", "1000"),
    ("1000", "1{,}000"),
    ("\\frac{1}{2}", "0.5"),
    ("\\dfrac{14}{3}", "14/3"),
    ("x^2+1", "1 + x^{2}"),
    ("(3, \\frac{\\pi}{2})", "\\left(3, \\tfrac{\\pi}{2}\\right)"),
    ("\\text{Evelyn}", "Evelyn"),
    ("45", "45^\\circ"),
    ("10", "10\\text{ cm}"),
    ("\\{1,2,3\\}", "\\{3, 2, 1\\}"),
    ("2\\sqrt{3}", "\\sqrt{12}"),
]
DIFFERENT = [
    ("42", "43"),
    ("1/2", "0.51"),
    ("x+1", "x-1"),
    ("[1,2]", "(1,2)"),
    ("\\sqrt{2}", "2"),
    ("7", "\\text{none}"),
]


def test_answers_that_mean_the_same_are_right_and_others_are_wrong() -> None:
    pairs = SAME + DIFFERENT
    got = scores(*(answered(f"The answer is \\boxed{{{given}}}.", gold) for gold, given in pairs))
    assert dict(zip(pairs, got, strict=True)) == {pair: float(pair in SAME) for pair in pairs}


def test_only_the_models_own_last_box_after_the_thinking_counts() -> None:
    printed = answered("The program printed it.", "5")
    printed.turns.append(Turn("tool", (1,), "\\boxed{5}"))
    assert scores(
        answered("First \\boxed{4}, no: \\boxed{5}.", "5"),
        answered("First \\boxed{5}, no: \\boxed{4}.", "5"),
        answered("I do not know.", "5", thinking="It is \\boxed{5}."),
        answered("It is 5.", "5"),
        answered("It is \\boxed{}.", "5"),
        answered("It is \\boxed{\\boxed{5}}.", "5"),
        printed,
    ) == [1, 0, 0, 0, 0, 1, 0]


@pytest.mark.parametrize("stop", ["length", "deadline", "tool_limit", "error", None])
def test_a_trajectory_that_did_not_come_to_its_end_scores_nothing(stop: str | None) -> None:
    assert scores(replace(answered("\\boxed{5}", "5"), stop_reason=stop)) == [0]


def test_unfinished_thinking_scores_nothing_whatever_stands_in_it() -> None:
    turns = [Turn("prompt", (1,), "P<think>\n"), Turn("model", (2,), "It must be \\boxed{5}.")]
    assert scores(Trajectory("t/0", Task("t", "P", "5"), turns=turns, stop_reason="eos")) == [0]


def test_a_task_without_an_answer_is_not_scored() -> None:
    assert scores(answered("\\boxed{5}", None)) == [None]


def test_a_comparison_that_runs_away_is_killed_costs_one_sample_and_says_so() -> None:
    async def work(grader: Grader) -> None:
        with pytest.raises(GradingError, match=r"did not end within 1 s and was killed"):
            await grader.correct("\\sqrt{2}", "9^{9^{9^{9}}}")
        assert await grader.correct("\\frac{1}{2}", "2/4")

    with_grader(work, timeout_s=1.0)


RUNAWAYS = [
    "9^{9^{9^{9}}}",
    "((10^{9})!)!",
    "\\binom{10^{12}}{5 \\cdot 10^{11}}",
    "\\sum_{k=1}^{10^{15}} \\frac{\\sin(k)}{k}",
    "(1 + \\sqrt{2})^{10^{8}}",
    "\\int_{0}^{1} x^{x^{x^{x}}} dx",
    "(x + y + z + w)^{400}",
    "\\sqrt{" * 300 + "2" + "}" * 300,
    "(" * 4000 + "1" + ")" * 4000,
    "\\frac{1}{" * 400 + "2" + "}" * 400,
    "1" * 100_000 + "^{" + "7" * 50_000 + "}",
    "\\{" + ", ".join(f"\\sqrt{{{n}}}" for n in range(2, 400)) + "\\}",
]
"""Answers that a model may well write and that computer algebra may not come back from."""


@pytest.mark.slow
def test_no_answer_can_hang_or_end_the_run_and_the_next_comparison_is_right() -> None:
    async def work(grader: Grader) -> None:
        for answer in RUNAWAYS:
            for gold, said in (("\\sqrt{2}", answer), (answer, "\\sqrt{2}+1")):
                try:
                    async with asyncio.timeout(60):
                        assert await grader.correct(gold, said) is False
                except GradingError:
                    pass
        assert await grader.correct("\\frac{1}{2}", "2/4")

    with_grader(work, workers=2, timeout_s=0.3)


def test_an_answer_is_text_and_not_a_program(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    program = f"__import__('pathlib').Path({str(mark)!r}).touch()"

    async def work(grader: Grader) -> None:
        for answer in (program, f"\\text{{{program}}}", f"${program}$"):
            with contextlib.suppress(GradingError):
                assert not await grader.correct("x + 1", answer)

    with_grader(work)
    assert not mark.exists()


def test_a_template_that_was_killed_from_outside_is_replaced() -> None:
    others = templates()

    async def work(grader: Grader) -> None:
        assert await grader.correct("\\frac{1}{2}", "2/4")
        (template,) = templates() - others
        os.kill(template, signal.SIGKILL)
        while _runs(template):
            await asyncio.sleep(0.01)
        assert await grader.correct("\\frac{1}{2}", "2/4")

    with_grader(work)


def test_several_comparisons_run_at_the_same_time_each_in_its_own_process() -> None:
    async def work(grader: Grader) -> None:
        pairs = [("\\frac{1}{2}", f"{n}/{2 * n}") for n in range(1, 9)] + [
            ("\\frac{1}{2}", f"{n}/7") for n in range(1, 9)
        ]
        results = await asyncio.gather(*(grader.correct(*pair) for pair in pairs))
        assert results == [True] * 8 + [False] * 8

    with_grader(work, workers=4)


def templates() -> set[int]:
    """The template processes of this one."""
    return {pid for pid, command in children(os.getpid()).items() if "forkserver" in command}


def test_no_comparison_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "from cort_math.grading import Grader\n"
        "grader = Grader(timeout_s=60)\n"
        "grader.readable('x+1')\n"
        "print(*open('/proc/self/task/' + __import__('os').listdir('/proc/self/task')[-1] + '/children').read().split(),"
        " flush=True)\n"
        "grader.readable('9^{9^{9^{9}}}')\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    template = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    give_up = time.monotonic() + 90
    while _runs(template) and time.monotonic() < give_up:
        time.sleep(0.05)
    assert not _runs(template)


def _runs(pid: int) -> bool:
    """A zombie that nobody has waited for does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@given(st.integers(-(10**30), 10**30), st.integers(-(10**30), 10**30))
def test_plain_integers_are_decided_without_computer_algebra(a: int, b: int) -> None:
    assert quick(str(a), f"{b:,}") is (a == b)
    assert quick(str(a), f" ${a}.0$ ") is True


def test_plain_numbers_start_no_process() -> None:
    others = templates()

    async def work(grader: Grader) -> None:
        assert all([await grader.correct(str(n), f"{n:,}") for n in range(0, 50_000, 7)])
        assert templates() == others

    with_grader(work)


def code_score(trajectory: Trajectory, no_code: float = 0.0) -> float | None:
    return asyncio.run(CodeSuccessReward(CodeSuccessReward.Config(no_code=no_code)).score(trajectory))


def test_code_is_punished_only_where_every_call_failed() -> None:
    assert code_score(with_calls(Outcome.OK)) == 0
    assert code_score(with_calls(Outcome.PROGRAM_ERROR, Outcome.OK)) == 0
    assert code_score(with_calls(Outcome.PROGRAM_ERROR)) == -1
    assert code_score(with_calls(Outcome.TIMEOUT, Outcome.RESOURCE_LIMIT, Outcome.PROGRAM_ERROR)) == -1


def test_a_trajectory_without_code_scores_what_the_recipe_says() -> None:
    assert code_score(with_calls()) == 0
    assert code_score(with_calls(), no_code=-1.0) == -1


def test_a_failure_of_the_machinery_is_not_the_models() -> None:
    assert code_score(with_calls(Outcome.INFRA_ERROR)) == 0
    assert code_score(with_calls(Outcome.INFRA_ERROR, Outcome.PROGRAM_ERROR)) == -1


def length_score(tokens: int) -> float | None:
    return asyncio.run(
        LengthReward(LengthReward.Config(target=100, limit=300)).score(answered("x", "1", tokens=tokens))
    )


def test_length_costs_nothing_up_to_the_target_and_everything_at_the_limit() -> None:
    assert [length_score(n) for n in (1, 100, 150, 200, 300, 900)] == [0, 0, -0.25, -0.5, -1, -1]


def test_interpreter_output_is_not_part_of_the_length() -> None:
    trajectory = answered("x", "1", tokens=100)
    trajectory.turns.append(Turn("tool", (1,) * 500, "out"))
    assert asyncio.run(LengthReward(LengthReward.Config(target=100, limit=300)).score(trajectory)) == 0


def test_a_length_limit_below_its_target_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"limit \(10\) must be above target \(20\)"):
        LengthReward.Config(target=20, limit=10)
