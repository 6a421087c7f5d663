"""Rewards and filters applied to trajectories, with every fault attributed to the plugin that it is in."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from cort_framework.errors import CortError, PluginFault
from cort_framework.guard import blame, deadline, run_plugin, run_plugin_on_each
from cort_framework.interfaces import Filter, RewardFunction
from cort_framework.types import Group, Reward, Trajectory, Verdict


async def score(
    trajectory: Trajectory, rewards: Mapping[str, tuple[RewardFunction, float]], timeout: float = 60.0
) -> None:
    """Fill in ``trajectory.rewards``. A reward that fails is recorded with its error and counts against this one sample;
    a trajectory in which the machinery failed is not scored."""
    if not trajectory.usable:
        return
    for name, (function, weight) in rewards.items():
        try:
            async with deadline(timeout, f"reward '{name}' (from {function.distribution})"):
                value = await run_plugin("reward", function, function.score, trajectory)
            if value is not None and not (isinstance(value, (int, float)) and math.isfinite(value)):
                raise _nonsense("reward", function, f"a finite number or None, not {value!r}")
            trajectory.rewards[name] = Reward(None if value is None else float(value), weight)
        except CortError as error:
            trajectory.rewards[name] = Reward(None, weight, error.message)


async def judge(groups: Sequence[Group], filters: Mapping[str, Filter], timeout: float = 600.0) -> None:
    """Append each filter's verdicts. A filter sees only what the ones before it kept, so their order in the recipe is
    their order here; one that fails drops what it was asked about, and says why. A trajectory in which the machinery
    failed is not judged."""
    for name, plugin in filters.items():
        together = type(plugin).judge_group is not Filter.judge_group
        asked: list[Group] = []
        for group in groups:
            alive = [t for t in group.trajectories if t.kept]
            parts = [alive] if together and alive else [[t] for t in alive]
            asked += [Group(group.task, part) for part in parts]
        answers = await run_plugin_on_each("filter", plugin, plugin.judge_group, asked, timeout)
        for group, answer in zip(asked, answers, strict=True):
            try:
                verdicts = await _verdicts(plugin, answer, len(group.trajectories), timeout)
            except CortError as error:
                verdicts = [Verdict(False, error.message)] * len(group.trajectories)
            for trajectory, verdict in zip(group.trajectories, verdicts, strict=True):
                trajectory.verdicts.append(Verdict(verdict.keep, verdict.reason, verdict.span, name))


async def _verdicts(plugin: Filter, answer: Any, count: int, timeout: float) -> Sequence[Verdict]:
    """As many as that, from what the filter answered."""
    if isinstance(answer, CortError):
        raise answer
    if not isinstance(answer, Sequence) or len(answer) != count:
        raise _nonsense("filter", plugin, f"one verdict a trajectory, not {answer!r}")
    if any(inspect.isawaitable(verdict) for verdict in answer):
        async with deadline(timeout, f"filter '{plugin.name}' (from {plugin.distribution})"):
            with blame("filter", plugin):
                answer = [await v if inspect.isawaitable(v) else v for v in answer]
    verdicts: list[Verdict] = list(answer)
    for verdict in verdicts:
        if not isinstance(verdict, Verdict):
            raise _nonsense("filter", plugin, f"a Verdict, not {verdict!r}")
    return verdicts


def _nonsense(kind: str, plugin: Any, expected: str) -> PluginFault:
    return PluginFault(
        f"{kind} '{plugin.name}'", plugin.distribution, TypeError(f"it has to give {expected}")
    )
