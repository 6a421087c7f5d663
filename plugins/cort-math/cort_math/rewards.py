"""Rewards of the paper's RL recipe: R = R_a + w·R_c, and one for length."""

from __future__ import annotations

import asyncio

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from cort_framework import Outcome, PluginConfig, RewardFunction, Trajectory
from cort_framework.evaluation import last_boxed
from cort_math.grading import Grader


class AnswerReward(RewardFunction):
    """1 where the final answer is right, else 0 (paper: R_a, grader Math-Verify).

    Only the model's own text after the thinking counts, and there the last ``\\boxed{}``; a trajectory that did not come
    to its end scores 0. Does not apply to a task without an answer. Raises ``GradingError`` where the comparison ran
    away: that sample alone has no score, and counts as wrong.
    """

    name = "answer"

    class Config(PluginConfig):
        timeout_s: PositiveFloat = 5.0
        """Seconds of processor time for one comparison, after which its process is killed."""
        concurrency: PositiveInt = 1
        """Comparisons at the same time, each in a process of its own. Plain numbers need none."""

    config: Config

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config)
        self._grader = Grader(self.config.concurrency, self.config.timeout_s)

    async def score(self, trajectory: Trajectory) -> float | None:
        gold = trajectory.task.answer
        if gold is None:
            return None
        answer = last_boxed(trajectory.final_text) if trajectory.finished else None
        if not answer:
            return 0.0
        return float(await self._grader.correct(gold, answer))

    async def close(self) -> None:
        await asyncio.to_thread(self._grader.close)


class CodeSuccessReward(RewardFunction):
    """−1 where every call of the trajectory failed, else 0 (paper: R_c, with weight 0.1).

    Success is the call's typed outcome, never a word in its output. Calls that failed by the machinery's fault are not
    the model's and are left out.
    """

    name = "code-success"

    class Config(PluginConfig):
        no_code: float = Field(0.0, allow_inf_nan=False)
        """Score of a trajectory without any call: 0 by the paper's words; -1 for what the released code does."""

    config: Config

    async def score(self, trajectory: Trajectory) -> float | None:
        outcomes = [turn.result.outcome for turn in trajectory.calls if turn.result is not None]
        own = [outcome for outcome in outcomes if outcome != Outcome.INFRA_ERROR]
        if not own:
            return self.config.no_code
        return 0.0 if Outcome.OK in own else -1.0


class LengthReward(RewardFunction):
    """0 up to ``target`` tokens of response, then falling evenly to −1 at ``limit`` and beyond. Interpreter output is the
    tool's and costs nothing."""

    name = "length"

    class Config(PluginConfig):
        target: PositiveInt = 4_000
        """Tokens that cost nothing."""
        limit: PositiveInt = 16_000
        """Tokens at which the reward is -1."""

        @model_validator(mode="after")
        def _ordered(self) -> LengthReward.Config:
            if self.limit <= self.target:
                raise ValueError(f"limit ({self.limit}) must be above target ({self.target})")
            return self

    config: Config

    async def score(self, trajectory: Trajectory) -> float | None:
        tokens = sum(len(turn.ids) for turn in trajectory.turns if turn.author in ("model", "hint"))
        excess = (tokens - self.config.target) / (self.config.limit - self.config.target)
        return -min(max(excess, 0.0), 1.0)
