"""Filters that look at the answer, the ending and the calls of a trajectory."""

from __future__ import annotations

import re

from pydantic import PositiveInt

from cort_framework import Filter, Group, Outcome, PluginConfig, Trajectory, Verdict

_OUTPUT = re.compile(r"^[ \t]*```output\b[^\n]*", re.MULTILINE)


def _right(trajectory: Trajectory, reward: str, threshold: float) -> bool:
    scored = trajectory.rewards.get(reward)
    return scored is not None and scored.value is not None and scored.value >= threshold


class CorrectFilter(Filter):
    """Keeps what a reward calls right (paper, RFT: wrong answers are dropped)."""

    name = "correct"

    class Config(PluginConfig):
        reward: str = "answer"
        """Which reward tells."""
        threshold: float = 1.0
        """From this value on it is right."""

    config: Config

    def judge(self, trajectory: Trajectory) -> Verdict:
        reward, threshold = self.config.reward, self.config.threshold
        scored = trajectory.rewards.get(reward)
        if scored is None:
            known = ", ".join(trajectory.rewards) or "none"
            raise ValueError(f"there is no reward '{reward}' on the trajectory; there are: {known}")
        if scored.value is None:
            return Verdict(
                False, f"not scored: {scored.error or 'the reward does not apply'}", filter=self.name
            )
        if not _right(trajectory, reward, threshold):
            return Verdict(False, f"wrong: {reward} is {scored.value:g}", filter=self.name)
        return Verdict(True, filter=self.name)


class FinishedFilter(Filter):
    """Keeps what ended by itself, within its budgets."""

    name = "finished"

    def judge(self, trajectory: Trajectory) -> Verdict:
        if trajectory.finished:
            return Verdict(True, filter=self.name)
        return Verdict(False, f"unfinished: stopped by {trajectory.stop_reason}", filter=self.name)


class InfraErrorFilter(Filter):
    """Keeps what no failure of the machinery has touched."""

    name = "no-infra-error"

    def judge(self, trajectory: Trajectory) -> Verdict:
        if trajectory.error is not None:
            return Verdict(False, f"infrastructure: {trajectory.error}", filter=self.name)
        for turn, start, end in trajectory.segments():
            if turn.result is not None and turn.result.outcome == Outcome.INFRA_ERROR:
                reason = f"infrastructure: {turn.result.error or 'a call failed'}"
                return Verdict(False, reason, (start, end), filter=self.name)
        return Verdict(True, filter=self.name)


class UsedCodeFilter(Filter):
    """Keeps what ran at least one program with success."""

    name = "used-code"

    def judge(self, trajectory: Trajectory) -> Verdict:
        outcomes = [turn.result.outcome for turn in trajectory.calls if turn.result is not None]
        if Outcome.OK in outcomes:
            return Verdict(True, filter=self.name)
        reason = "all programs failed" if outcomes else "no program was run"
        return Verdict(False, reason, filter=self.name)


class NoInventedOutputFilter(Filter):
    """Drops what made up an interpreter's output: a model that is trained on such samples learns to do without one."""

    name = "no-invented-output"

    def judge(self, trajectory: Trajectory) -> Verdict:
        response = trajectory.response
        outputs = {start for turn, start, _ in trajectory.segments() if turn.author == "tool"}
        for block in _OUTPUT.finditer(response):
            if block.start() not in outputs:
                return Verdict(False, "the model wrote an output of its own", block.span(), filter=self.name)
        return Verdict(True, filter=self.name)


class MaxTokensFilter(Filter):
    """Drops what is too long."""

    name = "max-tokens"

    class Config(PluginConfig):
        limit: PositiveInt
        """Response tokens at most, interpreter output included."""

    config: Config

    def judge(self, trajectory: Trajectory) -> Verdict:
        tokens, limit = trajectory.response_tokens, self.config.limit
        return Verdict(
            tokens <= limit,
            f"too long: {tokens} of {limit} tokens" if tokens > limit else "",
            filter=self.name,
        )


class ShortestFilter(Filter):
    """Keeps the shortest right trajectories of each task, earlier samples first where they tie.

    What another filter has dropped already is neither kept nor counted.
    """

    name = "shortest"

    class Config(PluginConfig):
        keep: PositiveInt = 1
        """How many of each task."""
        reward: str = "answer"
        """Which reward tells what is right."""
        threshold: float = 1.0
        """From this value on it is right."""

    config: Config

    def judge(self, trajectory: Trajectory) -> Verdict:
        return self.judge_group(Group(trajectory.task, [trajectory]))[0]

    def judge_group(self, group: Group) -> list[Verdict]:
        candidates = [
            place
            for place, trajectory in enumerate(group.trajectories)
            if trajectory.kept and _right(trajectory, self.config.reward, self.config.threshold)
        ]
        candidates.sort(
            key=lambda place: (group.trajectories[place].response_tokens, group.trajectories[place].sample)
        )
        chosen = set(candidates[: self.config.keep])
        verdicts = []
        for place, trajectory in enumerate(group.trajectories):
            if place in chosen:
                reason = ""
            elif place in candidates:
                reason = f"not among the shortest: {trajectory.response_tokens} tokens"
            else:
                reason = "not right, or already dropped"
            verdicts.append(Verdict(place in chosen, reason, filter=self.name))
        return verdicts
