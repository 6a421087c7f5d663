"""What ``cort doctor`` asks of the grading."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from cort_framework import HealthCheck, HealthContext, HealthReport
from cort_math.grading import Grader, GradingError

KNOWN = (("\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt{2}}", True), ("x^2 + 1", "x^2 - 1", False))
ENDLESS = "9^{9^{9^{9}}} + 1"
"""A number that no machine can write down."""


class GradingCheck(HealthCheck):
    """Comparisons whose outcome is known, and one that never ends."""

    name = "grading"
    requires = ("math-verify>=0.9",)
    timeout_s = 120.0

    def check(self, context: HealthContext) -> Iterator[HealthReport]:
        grader = Grader(timeout_s=2.0)
        try:
            begun = time.monotonic()
            wrong = [k for k in KNOWN if asyncio.run(grader.correct(k[0], k[1])) is not k[2]]
            seconds = time.monotonic() - begun
            if wrong:
                fix = "pip install --force-reinstall math-verify latex2sympy2-extended"
                yield HealthReport(
                    self.name, "broken", f"{wrong[0][1]} and {wrong[0][0]} are graded wrongly", fix
                )
            else:
                yield HealthReport(
                    self.name, "good", f"{len(KNOWN)} comparisons right, {seconds:.1f} s from the start"
                )
            try:
                asyncio.run(grader.correct("1", ENDLESS))
                held = "was refused"
            except GradingError as error:
                held = str(error)
            yield HealthReport("endless comparison", "good", held)
        finally:
            grader.close()
