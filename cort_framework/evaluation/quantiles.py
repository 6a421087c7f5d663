"""Quantiles of values that pass by, in memory that does not grow with their number."""

from __future__ import annotations

import math
from collections import Counter

RELATIVE_ERROR = 0.01
_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA = math.log(_GAMMA)


class Quantiles:
    """Of numbers that are not negative: exact for whole ones, which are counted one by one; for others within
    ``RELATIVE_ERROR`` of the exact value, by DDSketch (Masson, Rim and Lee, VLDB 2019), which counts them in buckets that
    are 2 % wide. So memory grows with the number of different lengths, or with the logarithm of the range.
    """

    def __init__(self) -> None:
        self.count = 0
        self._counts: Counter[float] = Counter()
        """How often by value; for fractions, by the bucket's value."""
        self._largest = 0.0

    def add(self, value: float) -> None:
        """Raises ``ValueError`` for a negative number or none."""
        if not 0 <= value < math.inf:
            raise ValueError(f"{value} has no place among quantiles: give a finite number, 0 or more")
        self.count += 1
        self._largest = max(self._largest, value)
        self._counts[value if isinstance(value, int) else _bucket(value)] += 1

    def at(self, share: float) -> float | None:
        """The smallest value that at least this share of them does not exceed; ``None`` where there are none. ``at(1)`` is the
        largest, exactly."""
        if not self.count or share >= 1:
            return self._largest if self.count else None
        rank, below = max(1, math.ceil(share * self.count)), 0
        for value, count in sorted(self._counts.items()):
            below += count
            if below >= rank:
                return min(value, self._largest)
        raise AssertionError("the counts do not add up")

    def summary(self) -> dict[str, float | None]:
        """The median, the long tail, and the largest."""
        return {"p50": self.at(0.5), "p90": self.at(0.9), "p99": self.at(0.99), "max": self.at(1)}


def _bucket(value: float) -> float:
    """The value that stands for all in the same bucket: (γ^(i-1), γ^i], off by the relative error at either end."""
    if value == 0:
        return 0.0
    return 2 * math.exp(math.ceil(math.log(value) / _LOG_GAMMA) * _LOG_GAMMA) / (_GAMMA + 1)
