"""Rewards and filters applied to trajectories, with every fault attributed to the plugin that it is in."""

from __future__ import annotations

import inspect
import reprlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cort_framework.errors import CortError
from cort_framework.guards.calls import blame, checked, deadline, run_plugin, run_plugin_on_each
from cort_framework.interfaces import Filter, RewardFunction
from cort_framework.types import Group, Reward, Trajectory, Verdict


async def score(
    trajectory: Trajectory, rewards: Mapping[str, tuple[RewardFunction, float]], timeout: float | None = None
) -> None:
    """Fill in ``trajectory.rewards``. A reward that fails is recorded with its error and counts against this one sample;
    a trajectory in which the machinery failed is not scored. ``timeout``: seconds, where they are not each reward's own
    ``timeout_s``."""
    if not trajectory.usable:
        return
    for name, (function, weight) in rewards.items():
        seconds = function.timeout_s if timeout is None else timeout
        try:
            async with deadline(seconds, f"reward '{name}' (from {function.distribution})"):
                value = await run_plugin("reward", function, function.score, trajectory)
            with blame("reward", function):
                trajectory.rewards[name] = Reward(_number(value), weight)
        except CortError as error:
            trajectory.rewards[name] = Reward(None, weight, error.message)


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if not (isinstance(value, (int, float)) and abs(value) <= sys.float_info.max):
        raise TypeError(f"it has to give a finite number or None, not {reprlib.repr(value)}")
    return float(value)


async def judge(
    groups: Sequence[Group], filters: Mapping[str, Filter], timeout: float | None = None
) -> Counter[str]:
    """Append each filter's verdicts. A filter sees only what the ones before it kept, so their order in the recipe is
    their order here; one that fails drops what it was asked about, and says why. A trajectory in which the machinery
    failed is not judged. Returns the filters' own failures, each with the trajectories that it has dropped.

    ``timeout``: seconds for one answer, where it is not the filter's own ``timeout_s``."""
    faults: Counter[str] = Counter()
    for name, plugin in filters.items():
        together = type(plugin).judge_group is not Filter.judge_group
        asked: list[Group] = []
        for group in groups:
            alive = [t for t in group.trajectories if t.kept]
            parts = [alive] if together and alive else [[t] for t in alive]
            asked += [Group(group.task, part) for part in parts]
        seconds = plugin.timeout_s if timeout is None else timeout
        answers = await run_plugin_on_each("filter", plugin, plugin.judge_group, asked, seconds)
        for group, answer in zip(asked, answers, strict=True):
            try:
                verdicts = await _verdicts(plugin, answer, len(group.trajectories), seconds)
            except CortError as error:
                verdicts = [Verdict(False, error.message)] * len(group.trajectories)
                faults[error.message] += len(group.trajectories)
            for trajectory, verdict in zip(group.trajectories, verdicts, strict=True):
                trajectory.verdicts.append(Verdict(verdict.keep, verdict.reason, verdict.span, name))
    return faults


async def _verdicts(plugin: Filter, answer: Any, count: int, timeout: float) -> Sequence[Verdict]:
    """As many as that, from what the filter answered."""
    if isinstance(answer, CortError):
        raise answer
    with blame("filter", plugin):
        if not isinstance(answer, Sequence) or len(answer) != count:
            raise TypeError(f"it has to give one verdict a trajectory, not {reprlib.repr(answer)}")
        if any(inspect.isawaitable(verdict) for verdict in answer):
            async with deadline(timeout, f"filter '{plugin.name}' (from {plugin.distribution})"):
                answer = [await v if inspect.isawaitable(v) else v for v in answer]
        return [checked(verdict, Verdict) for verdict in answer]
