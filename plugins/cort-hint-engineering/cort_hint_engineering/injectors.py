"""The three hints (paper, data synthesis). Which sentence, and where: the detectors say where a fault begins, the
trajectory is cut back to there, and the model goes on after the hint."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from cort_framework import Hint, HintInjector, OpenContext, PluginConfig, Trajectory
from cort_hint_engineering.detectors import Span, delayed_computation, result_distrust
from cort_hint_engineering.judge import REQUIRES, Fault, Judge, JudgeConfig


class OpeningHint(HintInjector):
    """Right after ``<think>``: the resolution to use code (paper: Prompt-Hint; code use 50 % → 90 %)."""

    name = "opening"

    class Config(PluginConfig):
        text: str = "Okay, let's try to solve this problem step by step using multiple python code calls\n"
        """What is inserted."""

    config: Config

    def inject(self, trajectory: Trajectory) -> Hint | None:
        if any(turn.author in ("hint", "tool") for turn in trajectory.turns):
            return None
        if trajectory.response.strip() not in ("", "<think>"):
            return None
        return Hint(self.config.text, reason="the thinking begins")


class _FaultHint(HintInjector):
    """A hint at the start of a fault. A place that this hint has already been put to is left alone: the model did not
    heed it there, and the filters will say so."""

    config: Any
    own_line: ClassVar[bool]
    """The hint begins on a line of its own."""

    def first_hint(self, spans: Iterable[Span], trajectory: Trajectory) -> Hint | None:
        hints = (self._hint_at(s, trajectory, self.config.text, self.own_line) for s in spans)
        return next((hint for hint in hints if hint is not None), None)

    def _hint_at(self, span: Span, trajectory: Trajectory, text: str, own_line: bool) -> Hint | None:
        response = trajectory.response
        position = span.start
        if own_line:
            position = len(response[:position].rstrip(" \t"))
        for turn, _, end in trajectory.segments():
            if (
                turn.author == "hint"
                and turn.text.strip().endswith(text.strip())
                and not response[end:position].strip()
            ):
                return None
        before = response[position - 1 : position]
        if own_line and before not in ("", "\n"):
            text = "\n" + text
        elif before and not before.isspace():
            text = " " + text
        return Hint(text, rewind_to=position, reason=f"{span.reason}: {_short(span.evidence)}")


class _Hint1(_FaultHint):
    own_line = True

    class Config(PluginConfig):
        text: str = "It looks tedious, and we can use python code to simplify the reasoning.\n```python\n"
        """What is inserted, on a line of its own."""


class _Hint2(_FaultHint):
    own_line = False

    class Config(PluginConfig):
        text: str = "We don't need to doubt the accuracy of python calculations.\n"
        """What is inserted."""


class DelayedComputationHint(_Hint1):
    """Where the model begins to calculate by hand: hint 1, which opens a code block (paper: saves 5,057 tokens on one
    problem)."""

    name = "delayed-computation"

    def inject(self, trajectory: Trajectory) -> Hint | None:
        return self.first_hint(delayed_computation(trajectory), trajectory)


class ResultDistrustHint(_Hint2):
    """Where the model begins to derive by hand what the interpreter returned: hint 2 (paper: saves 2,215 tokens on one
    problem)."""

    name = "result-distrust"

    def inject(self, trajectory: Trajectory) -> Hint | None:
        return self.first_hint(result_distrust(trajectory), trajectory)


class _Judged(_FaultHint):
    """A judge finds the places (paper: hints placed by asking a model were found too imprecise; here it can be measured)."""

    requires = REQUIRES
    fault: ClassVar[Fault]
    judge: Judge

    async def open(self, context: OpenContext) -> None:
        self.judge = Judge(self.fault, self.config.chat)

    async def close(self) -> None:
        await self.judge.close()

    async def inject(self, trajectory: Trajectory) -> Hint | None:
        # the same words are asked about once, however often the injector is called
        length = len(trajectory.response) // self.config.every * self.config.every
        if not length:
            return None
        return self.first_hint(await self.judge.find(trajectory, length), trajectory)


class JudgedDelayedComputationHint(_Judged, _Hint1):
    """Hint 1 where a judge sees work by hand."""

    name = "judged-delayed-computation"
    fault = "delayed-computation"

    class Config(_Hint1.Config, JudgeConfig):
        pass


class JudgedResultDistrustHint(_Judged, _Hint2):
    """Hint 2 where a judge sees distrust of an output."""

    name = "judged-result-distrust"
    fault = "result-distrust"

    class Config(_Hint2.Config, JudgeConfig):
        pass


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:77]}..."
