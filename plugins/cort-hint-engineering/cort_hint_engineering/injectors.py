"""The three hints (paper, data synthesis). Which sentence, and where: the detectors say where a fault begins, the
trajectory is cut back to there, and the model goes on after the hint."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from cort_framework import Hint, HintInjector, PluginConfig, Trajectory
from cort_hint_engineering.detectors import Span, delayed_computation, result_distrust


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

    detect: ClassVar[Callable[[Trajectory], list[Span]]]

    def hint_at(self, span: Span, trajectory: Trajectory, text: str, own_line: bool) -> Hint | None:
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


class DelayedComputationHint(_FaultHint):
    """Where the model begins to calculate by hand: hint 1, which opens a code block (paper: saves 5,057 tokens on one
    problem)."""

    name = "delayed-computation"

    class Config(PluginConfig):
        text: str = "It looks tedious, and we can use python code to simplify the reasoning.\n```python\n"
        """What is inserted, on a line of its own."""

    config: Config

    def inject(self, trajectory: Trajectory) -> Hint | None:
        hints = (
            self.hint_at(s, trajectory, self.config.text, own_line=True)
            for s in delayed_computation(trajectory)
        )
        return next((hint for hint in hints if hint is not None), None)


class ResultDistrustHint(_FaultHint):
    """Where the model begins to derive by hand what the interpreter returned: hint 2 (paper: saves 2,215 tokens on one
    problem)."""

    name = "result-distrust"

    class Config(PluginConfig):
        text: str = "We don't need to doubt the accuracy of python calculations.\n"
        """What is inserted."""

    config: Config

    def inject(self, trajectory: Trajectory) -> Hint | None:
        hints = (
            self.hint_at(s, trajectory, self.config.text, own_line=False) for s in result_distrust(trajectory)
        )
        return next((hint for hint in hints if hint is not None), None)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:77]}..."
