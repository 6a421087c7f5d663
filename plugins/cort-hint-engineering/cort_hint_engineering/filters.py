"""Filters on the detectors (paper, RFT: trajectories with delayed computation or result distrust are dropped)."""

from __future__ import annotations

from typing import Any, ClassVar

from cort_framework import Filter, OpenContext, Trajectory, Verdict
from cort_hint_engineering.detectors import Span, delayed_computation, result_distrust
from cort_hint_engineering.judge import REQUIRES, Fault, Judge, JudgeConfig


def _verdict(name: str, spans: list[Span]) -> Verdict:
    if not spans:
        return Verdict(True, filter=name)
    first = spans[0]
    more = f" (and {len(spans) - 1} more)" if len(spans) > 1 else ""
    return Verdict(False, f"{first.reason}{more}", (first.start, first.end), name)


class NoDelayedComputation(Filter):
    """Drops what works out by hand what a program could; the span is the first such place."""

    name = "no-delayed-computation"

    def judge(self, trajectory: Trajectory) -> Verdict:
        return _verdict(self.name, delayed_computation(trajectory))


class NoResultDistrust(Filter):
    """Drops what derives by hand a number that the interpreter returned; the span is the first such place."""

    name = "no-result-distrust"

    def judge(self, trajectory: Trajectory) -> Verdict:
        return _verdict(self.name, result_distrust(trajectory))


class _Judged(Filter):
    config: Any
    requires = REQUIRES
    fault: ClassVar[Fault]
    asked: Judge

    class Config(JudgeConfig):
        pass

    async def open(self, context: OpenContext) -> None:
        self.asked = Judge(self.fault, self.config.chat)

    async def close(self) -> None:
        await self.asked.close()

    async def judge(self, trajectory: Trajectory) -> Verdict:
        return _verdict(self.name, await self.asked.find(trajectory))


class NoJudgedDelayedComputation(_Judged):
    """Drops that in which a judge sees work by hand."""

    name = "no-judged-delayed-computation"
    fault = "delayed-computation"


class NoJudgedResultDistrust(_Judged):
    """Drops that in which a judge sees distrust of an output."""

    name = "no-judged-result-distrust"
    fault = "result-distrust"
