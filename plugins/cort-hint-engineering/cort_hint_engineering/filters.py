"""Filters on the detectors (paper, RFT: trajectories with delayed computation or result distrust are dropped)."""

from __future__ import annotations

from cort_framework import Filter, Trajectory, Verdict
from cort_hint_engineering.detectors import Span, delayed_computation, result_distrust


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
