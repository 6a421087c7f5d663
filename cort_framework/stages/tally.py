"""What a stage's trajectories came to, counted as they pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from cort_framework.types import Trajectory, Verdict


@dataclass
class Tally:
    """How many final trajectories there were, how many were kept, and why the others were not."""

    tried: int = 0
    kept: int = 0
    tokens: int = 0
    """Generated, the discarded ones included."""
    dropped: Counter[str] = field(default_factory=Counter)
    """By filter; ``error`` where the machinery failed."""
    examples: dict[str, str] = field(default_factory=dict)
    """The first reason of each."""

    @classmethod
    def of(cls, trajectories: Iterable[Trajectory]) -> Tally:
        """Those that were cut back are left out."""
        tally = cls()
        for trajectory in trajectories:
            if trajectory.stop_reason != "rewound":
                tally.add(trajectory)
        return tally

    def add(self, trajectory: Trajectory) -> None:
        self.tried += 1
        self.kept += trajectory.kept
        self.tokens += trajectory.generated_tokens
        verdict = _drop(trajectory)
        if verdict is not None:
            self.dropped[verdict.filter] += 1
            self.examples.setdefault(verdict.filter, verdict.reason)

    def reasons(self, example: bool = False) -> str:
        """Why they were dropped, most frequent first; with the first one's reason as example."""
        counts = self.dropped.most_common()
        line = ", ".join(f"{n} by {name}" for name, n in counts) or "none"
        return f"{line} (the first: {self.examples[counts[0][0]]})" if example and counts else line


def _drop(trajectory: Trajectory) -> Verdict | None:
    if trajectory.error is not None:
        return Verdict(False, trajectory.error, filter="error")
    return trajectory.objection
