"""Rewards and filters on trajectories, and what becomes of their faults."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import threading
from typing import Any

import pytest

from cort_framework import Filter, Group, Reward, RewardFunction, Trajectory, Verdict
from cort_framework.guards import calls
from cort_framework.scoring import judge, score
from cort_framework.testing import make_trajectory


def trajectory(**fields: Any) -> Trajectory:
    return make_trajectory([("prompt", "p"), ("model", "m")], **fields)


class Gives(RewardFunction):
    name = "gives"
    distribution = "cort-gives"

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    async def score(self, trajectory: Trajectory) -> float | None:
        if isinstance(self.value, BaseException):
            raise self.value
        if self.value == "hang":
            await asyncio.Event().wait()
        return self.value  # type: ignore[no-any-return]


def scored(timeout: float = 60, /, trajectory: Trajectory | None = None, **values: Any) -> dict[str, Reward]:
    t = trajectory or make_trajectory([("prompt", "p"), ("model", "m")])
    asyncio.run(score(t, {name: (Gives(value), 0.5) for name, value in values.items()}, timeout))
    return t.rewards


def test_the_reward_is_the_weighted_sum_of_those_that_apply() -> None:
    t = trajectory()
    rewards = scored(trajectory=t, one=1, half=0.5, none=None, yes=True)
    assert rewards["none"] == Reward(None, 0.5) and rewards["yes"] == Reward(1.0, 0.5)
    assert t.reward == 0.5 * (1 + 0.5 + 1)


@pytest.mark.parametrize("value", [math.nan, math.inf, "1.0", 1j, [1]])
def test_a_reward_that_is_no_finite_number_is_recorded_as_the_plugins_fault(value: Any) -> None:
    reward = scored(bad=value)["bad"]
    assert reward.value is None and reward.error is not None
    assert "reward 'gives' (from cort-gives)" in reward.error and "a finite number or None" in reward.error


def test_a_reward_that_raises_or_hangs_costs_its_own_value_only() -> None:
    t = trajectory()
    rewards = scored(0.1, trajectory=t, raises=KeyError("x"), hangs="hang", good=1.0)
    assert rewards["raises"].error == "reward 'gives' (from cort-gives) raised KeyError: 'x'"
    assert rewards["hangs"].error == "reward 'hangs' (from cort-gives) did not end within 0.1 s"
    assert t.reward == 0.5


def test_a_trajectory_in_which_the_machinery_failed_is_not_scored() -> None:
    assert scored(trajectory=trajectory(error="the worker died"), one=1.0) == {}


def test_a_reward_may_be_a_plain_method_and_a_hanging_one_costs_one_score() -> None:
    let_go = threading.Event()

    class Plain(RewardFunction):
        name = "plain"
        timeout_s = 0.2

        def score(self, trajectory: Trajectory) -> Any:  # type: ignore[override]
            if trajectory.response == "hang":
                let_go.wait(30)
            return 0.5

    plain, (hangs, fine) = Plain(), [make_trajectory([("prompt", "p"), ("model", m)]) for m in ("hang", "m")]
    for t in (hangs, fine):
        asyncio.run(score(t, {"plain": (plain, 1.0)}))
    let_go.set()
    assert hangs.fault == "reward 'plain' (from this script) did not end within 0.2 s" and hangs.usable
    assert fine.reward == 0.5 and fine.fault is None


# --- filters ----------------------------------------------------------------------------------------------------
class Says(Filter):
    name = "says"
    distribution = "cort-says"

    def __init__(self, answer: Any = True) -> None:
        super().__init__()
        self.answer = answer
        self.seen: list[str] = []

    def judge(self, trajectory: Trajectory) -> Any:
        self.seen.append(trajectory.id)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return Verdict(self.answer, "why", (0, 1)) if isinstance(self.answer, bool) else self.answer


class SaysLater(Says):
    async def judge(self, trajectory: Trajectory) -> Any:
        return super().judge(trajectory)


class Best(Filter):
    """Keeps the first of its group."""

    name = "best"

    async def judge_group(self, group: Group) -> list[Verdict]:
        return [Verdict(n == 0, "not the first") for n in range(len(group.trajectories))]

    def judge(self, trajectory: Trajectory) -> Verdict:
        raise NotImplementedError


def judged(filters: dict[str, Filter], count: int = 2) -> list[Trajectory]:
    group = Group(trajectory().task, [dataclasses.replace(trajectory(), id=f"t/{n}") for n in range(count)])
    asyncio.run(judge([group], filters, timeout=20))
    return group.trajectories


@pytest.mark.parametrize("kind", [Says, SaysLater])
def test_verdicts_carry_the_filters_key_in_the_recipe(kind: type[Says]) -> None:
    for t in judged({"strict": kind(False)}):
        assert t.verdicts == [Verdict(False, "why", (0, 1), "strict")] and not t.kept


def test_a_filter_sees_only_what_the_ones_before_it_kept() -> None:
    first, last = Says(False), Says()
    one, two = judged({"first": Says(), "best": Best(), "last": last})
    assert last.seen == ["t/0"] and [v.filter for v in one.verdicts] == ["first", "best", "last"]
    assert one.kept and not two.kept and [v.filter for v in two.verdicts] == ["first", "best"]
    judged({"first": first, "last": last})
    assert last.seen == ["t/0"]


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (KeyError("x"), "raised KeyError: 'x'"),
        (SystemExit(1), "raised SystemExit: 1"),
        (None, "a Verdict, not None"),
        ("keep", "a Verdict, not 'keep'"),
    ],
)
@pytest.mark.parametrize("kind", [Says, SaysLater])
def test_a_filter_that_fails_drops_what_it_was_asked_about_and_says_why(
    kind: type[Says], answer: Any, complaint: str
) -> None:
    for t in judged({"bad": kind(answer), "after": Says()}):
        (verdict,) = t.verdicts
        assert not verdict.keep and verdict.reason.startswith("filter 'says' (from cort-says)")
        assert complaint in verdict.reason


def test_a_filter_that_fails_on_one_trajectory_judges_the_others() -> None:
    class Picky(Says):
        def judge(self, trajectory: Trajectory) -> Any:
            return super().judge(trajectory) if trajectory.id != "t/1" else 1 / 0

    assert [t.kept for t in judged({"picky": Picky()}, count=3)] == [True, False, True]


def test_a_filter_that_hangs_on_one_trajectory_judges_the_others() -> None:
    let_go = threading.Event()

    class Slow(Says):
        def judge(self, trajectory: Trajectory) -> Any:
            if trajectory.id == "t/1":
                let_go.wait(30)
            return super().judge(trajectory)

    group = Group(trajectory().task, [dataclasses.replace(trajectory(), id=f"t/{n}") for n in range(4)])
    slow = Slow()
    asyncio.run(judge([group, group], {"slow": slow}, timeout=0.3))
    let_go.set()
    reasons = [[v.reason for v in t.verdicts] for t in group.trajectories]
    assert [t.kept for t in group.trajectories] == [True, False, True, True]
    assert reasons[1] == ["filter 'says' (from cort-says) did not end within 0.3 s"] * 2
    assert slow.seen[:3] == ["t/0", "t/2", "t/3"]


def test_a_trajectory_in_which_the_machinery_failed_is_not_judged() -> None:
    group = Group(trajectory().task, [trajectory(error="the worker died"), trajectory()])
    strict = Says(False)
    asyncio.run(judge([group], {"strict": strict, "best": Best()}))
    assert [len(t.verdicts) for t in group.trajectories] == [0, 1] and len(strict.seen) == 1


def test_a_group_filter_gives_one_verdict_a_trajectory() -> None:
    class Short(Best):
        async def judge_group(self, group: Group) -> list[Verdict]:
            return [Verdict(True)]

    assert all("one verdict a trajectory" in t.verdicts[0].reason for t in judged({"short": Short()}))


def test_plain_plugins_run_off_the_loop_in_threads_that_are_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls, "_helpers", calls._Helpers())
    threads: list[threading.Thread] = []

    class Where(Says):
        def judge(self, trajectory: Trajectory) -> Any:
            threads.append(threading.current_thread())
            return super().judge(trajectory)

    judged({f"f{n}": Where() for n in range(20)}, count=1)
    assert len(threads) == 20 and len(set(threads)) < 5
    assert all(t.daemon and t is not threading.main_thread() for t in threads)
