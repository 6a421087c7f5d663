"""The lookout: what a stage shows of the canaries' signs, and what is then done.

It is shown every trajectory that is made and every line of metrics that the trainer tells. A sign that reaches its limit
is a line of ``metrics.jsonl`` each time, and a line for the person once a stage; ``stop`` ends the stage, ``filter`` leaves
trajectories out. Nothing here changes what a run makes unless an ``action`` is ``filter``.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import BaseModel

from cort_framework.errors import StageFailed
from cort_framework.evaluation import bootstrap, is_right
from cort_framework.guards.canaries import SHOWS, Canaries, Count, Sums, programs
from cort_framework.interfaces import Reporter
from cort_framework.store import write_text
from cort_framework.types import Trajectory, Verdict

WINDOW = 4
"""Batches (of RL) that are looked at together: the last ones, beside the stage's first ones."""
FEWEST = 32
"""Trajectories, or calls, below which a share says nothing."""
LOOK_EVERY = 64
"""Trajectories of a collection between two looks."""


# --- what a stage shows -----------------------------------------------------------------------------------------
class Trend(BaseModel):
    """Sums of the first and of the last batches of a stage."""

    first: list[Sums] = []
    last: list[Sums] = []
    batches: int = 0

    def add(self, sums: Sums) -> None:
        self.batches += 1
        self.first = [*self.first, sums][:WINDOW]
        self.last = [*self.last, sums][-WINDOW:]

    @property
    def now(self) -> Sums:
        return sum_of(self.last)

    @property
    def before(self) -> Sums | None:
        """``None`` while there is nothing after the first."""
        return sum_of(self.first) if self.batches > WINDOW else None


def sum_of(sums: Iterable[Sums]) -> Sums:
    total: Sums = {}
    for some in sums:
        for name, amount in some.items():
            total[name] = total.get(name, 0) + amount
    return total


def share(sums: Sums | None, name: str, of: str = "seen", fewest: int = FEWEST) -> float | None:
    """``None`` where there are too few of them."""
    return None if sums is None or sums.get(of, 0) < fewest else sums.get(name, 0) / sums[of]


class State(BaseModel):
    """What a stage that does RL has shown so far."""

    batches: Trend = Trend()
    """Of trajectories."""
    updates: Trend = Trend()
    """Of the trainer's metrics."""
    shown: list[str] = []
    """Canaries of which a person was told."""

    @classmethod
    def read(cls, path: Path | None) -> State:
        """A stage without a whole file begins now."""
        with suppress(OSError, ValueError):
            if path is not None:
                return cls.model_validate_json(path.read_bytes())
        return cls()


@dataclass(frozen=True)
class Sign:
    """One canary's limit is reached."""

    canary: str
    value: float
    text: str


class Lookout:
    """The canaries of one stage, in one process. A sign whose action is ``stop`` raises ``StageFailed``.

    ``state``, of a stage that does RL, is a file that is read at the start and written after each batch: a stage that goes on
    knows how it began.
    """

    def __init__(
        self,
        stage: str,
        canaries: Canaries,
        reporter: Reporter,
        can_call: bool = True,
        state: Path | None = None,
    ) -> None:
        """``stage``: its name. ``can_call``: the trajectories have tools."""
        self.stage, self.canaries, self._reporter, self._can_call = stage, canaries, reporter, can_call
        self._path, self.state = state, State.read(state)
        self._collected = Count()
        self._looked = 0.0
        self._lock = threading.Lock()  # rollouts that are made ahead come from a thread of their own

    # --- what it is shown -------------------------------------------------------------------------------------
    def batch(self, trajectories: Iterable[Trajectory]) -> None:
        """One batch of RL, made with weights that change from batch to batch."""
        count = Count()
        for trajectory in trajectories:
            count.add(trajectory)
        with self._lock:
            self.state.batches.add(count.sums)
            self._save()
            self._tell(self._of_trajectories(self.state.batches.now, self.state.batches.before))

    def collected(self, trajectory: Trajectory) -> None:
        """One trajectory of a collection, all of which is made with the same weights."""
        self._collected.add(trajectory)
        if self._collected.sums["seen"] >= self._looked + LOOK_EVERY:
            self.look()

    def look(self) -> None:
        """At what was collected so far, where there is more than at the last look."""
        if self._collected.sums["seen"] > self._looked:
            self._looked = self._collected.sums["seen"]
            self._tell(self._of_trajectories(self._collected.sums, None))

    def metrics(self, values: Mapping[str, Any]) -> None:
        """What a trainer tells of an update: ``loss``, ``grad_norm`` and, in RL, ``entropy`` and ``logprob_gap_mean``."""
        with self._lock:
            told = {name: value for name, value in values.items() if isinstance(value, (int, float))}
            if self._path is None or not 0 < told.get("entropy", 0) < math.inf:
                told.pop("entropy", None)  # 0: an update in which no token was trained
            else:
                self.state.updates.add({"updates": 1, "entropy": told["entropy"]})
                self._save()
            self._tell(self._of_metrics(told))

    def evaluated(
        self,
        test_set: str,
        before: Iterable[Trajectory],
        after: Iterable[Trajectory],
        rewards: tuple[float, float],
    ) -> None:
        """A model on a test set ``before`` and ``after`` a stage whose mean reward was the first of ``rewards`` in its first
        steps and the second in its last. Read only where that rose."""
        if rewards[1] <= rewards[0]:
            return
        old, new = accuracies(before), accuracies(after)
        changes = [new[task] - old[task] for task in new if task in old]
        change = fmean(changes or [0.0])
        if change < -self.canaries.evaluation.fall and bootstrap(changes)[1] < 0:
            reward = f"the reward rose from {rewards[0]:.3g} to {rewards[1]:.3g}"
            self._tell(
                [Sign("evaluation", change, f"{reward}, the accuracy on {test_set} fell by {-change:.1%}")]
            )

    def reporting(self) -> Reporter:
        """The reporter, with what is told to it shown to the canaries as well."""
        return _Watched(self._reporter, self)

    # --- what it leaves out -----------------------------------------------------------------------------------
    def leave_out(self, trajectories: Sequence[Trajectory], whole: bool = True) -> list[Trajectory]:
        """Those that show the sign of a canary that filters, with a verdict that drops them. ``whole``: they are all of their
        tasks' trajectories, so that their code can be compared; if not, each is looked at by itself."""
        left_out = []
        for name in self.canaries.sieves:
            if name == "same_code":
                found = list(_alike(trajectories)) if whole else []
                reason = "all trajectories of the task ran the same code"
            else:
                shows, reason = SHOWS[name]
                found = [t for t in trajectories if t.kept and shows(t)]
            for trajectory in found:
                trajectory.verdicts.append(Verdict(False, reason, filter=f"canary {name}"))
                left_out.append(trajectory)
        return left_out

    # --- signs ------------------------------------------------------------------------------------------------
    def _of_trajectories(self, now: Sums, before: Sums | None) -> Iterator[Sign]:
        c, seen, calls = self.canaries, now.get("seen", 0), now.get("calls", 0)
        value, was = share(now, "called"), share(before, "called")
        if (
            self._can_call
            and value is not None
            and value < max(c.tool_use.least, c.tool_use.fall * (was or 0))
        ):
            yield Sign("tool_use", value, f"{value:.1%} of {seen} trajectories called a tool{_at_first(was)}")

        value, was = share(now, "succeeded", "calls"), share(before, "succeeded", "calls")
        if value is not None and value < max(c.code_success.least, c.code_success.fall * (was or 0)):
            yield Sign("code_success", value, f"{value:.1%} of {calls} calls succeeded{_at_first(was)}")

        value = share(now, "alike", "groups", FEWEST // 4)
        if value is not None and value > c.same_code.most:
            text = f"in {value:.1%} of {now['groups']} tasks, all trajectories ran the same code"
            yield Sign("same_code", value, text)

        value = share(now, "printed")
        if value is not None and value > c.printed_answer.most:
            text = f"in {value:.1%} of {seen} trajectories, only the output of a tool states the answer"
            yield Sign("printed_answer", value, text)

        value, was = share(now, "cut"), share(before, "cut")
        risen = value is not None and was is not None and value > was + c.truncation.rise
        if value is not None and (risen or value > c.truncation.most):
            text = f"max_tokens cut off {value:.1%} of {seen} trajectories{_at_first(was)}"
            yield Sign("truncation", value, text)

    def _of_metrics(self, values: Mapping[str, float]) -> Iterator[Sign]:
        c = self.canaries
        lost = [name for name in ("loss", "grad_norm") if not math.isfinite(values.get(name, 0.0))]
        if lost:
            where = f" at step {values['step']}" if "step" in values else ""
            advice = "lower the learning rate; earlier checkpoints are kept"
            yield Sign("loss", values[lost[0]], f"{lost[0]} is {values[lost[0]]}{where}: {advice}")
        if "entropy" in values:
            now = share(self.state.updates.now, "entropy", "updates", 1)
            was = share(self.state.updates.before, "entropy", "updates", 1)
            if now is not None and now < max(c.entropy.least, c.entropy.fall * (was or 0)):
                at_first = "" if was is None else f", {was:.3g} at first"
                yield Sign("entropy", now, f"the policy's entropy is {now:.2g} nats a token{at_first}")
        gap = values.get("logprob_gap_mean", 0.0)
        if gap > c.logprob_gap.most:
            text = f"recomputed log-probs differ from the sampled ones by {gap:.2g} nats a token"
            yield Sign("logprob_gap", gap, text)

    def _tell(self, signs: Iterable[Sign]) -> None:
        stop: StageFailed | None = None
        for sign in signs:
            action = getattr(self.canaries, sign.canary).action
            if action == "off":
                continue
            self._reporter.metrics(canary=sign.canary, action=action, value=sign.value, says=sign.text)
            if action == "stop":
                stop = stop or StageFailed(
                    f"canary {sign.canary}: {sign.text}",
                    f"`cort trace view` shows the trajectories. What was made is kept; to go on as it is: "
                    f"--set stage.{self.stage}.canaries.{sign.canary}.action=warn",
                )
            elif sign.canary not in self.state.shown:
                self.state.shown.append(sign.canary)
                self._save()
                self._reporter.note(f"canary {sign.canary}: {sign.text}")
        if stop is not None:
            raise stop

    def _save(self) -> None:
        if self._path is not None:
            write_text(self._path, self.state.model_dump_json())


class _Watched:
    """A reporter whose metrics the canaries see as well."""

    def __init__(self, reporter: Reporter, lookout: Lookout) -> None:
        self.reporter, self.lookout = reporter, lookout
        self.progress, self.note = reporter.progress, reporter.note

    def metrics(self, **values: float | int | str) -> None:
        self.reporter.metrics(**values)
        self.lookout.metrics(values)


def reward_trend(stage: Path) -> tuple[float, float] | None:
    """The mean reward in the first and in the last steps of the RL stage in this folder, as its first process saw them;
    ``None`` where it did no RL."""
    batches = State.read(min(stage.glob("canaries*.json"), default=None)).batches
    before, after = (share(sum_of(some), "reward", fewest=1) for some in (batches.first, batches.last))
    return None if before is None or after is None else (before, after)


def accuracies(trajectories: Iterable[Trajectory]) -> dict[str, float]:
    """By task: the share of its samples that are right."""
    right: dict[str, list[bool]] = {}
    for trajectory in trajectories:
        if trajectory.stop_reason != "rewound":
            right.setdefault(trajectory.task.id, []).append(is_right(trajectory))
    return {task: fmean(samples) for task, samples in right.items()}


def _alike(trajectories: Sequence[Trajectory]) -> Iterator[Trajectory]:
    """Those of tasks with several trajectories that are kept, all of which ran the same programs."""
    groups: dict[str, list[Trajectory]] = {}
    for trajectory in trajectories:
        if trajectory.kept:
            groups.setdefault(trajectory.task.id, []).append(trajectory)
    for group in groups.values():
        ran = programs(group[0])
        if len(group) > 1 and ran and all(programs(t) == ran for t in group[1:]):
            yield from group


def _at_first(was: float | None) -> str:
    return "" if was is None else f", {was:.1%} at first"
