"""Canaries: signs that a run goes wrong while its reward still looks well. What a recipe says of each by ``[canaries.NAME]``,
and what one trajectory shows of it; ``lookout`` looks at a whole stage.
"""

from __future__ import annotations

import re
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from pydantic import Field

from cort_framework.evaluation import is_right, last_boxed
from cort_framework.evaluation.behaviour import prose
from cort_framework.interfaces import PluginConfig
from cort_framework.types import Outcome, Trajectory

GROUPS = 4096
"""Tasks whose programs are remembered."""

Share = Annotated[float, Field(ge=0, le=1)]
Sums = dict[str, int | float]
"""How many there were of each thing that is counted."""


# --- what a recipe says -----------------------------------------------------------------------------------------
class Canary(PluginConfig):
    """About the training as a whole."""

    action: Literal["off", "warn", "stop"] = "warn"
    """What its sign leads to: a warning, once a stage, or the end of the stage, which can be gone on with."""


class Sieve(PluginConfig):
    """About trajectories, which can be left out one by one."""

    action: Literal["off", "warn", "filter", "stop"] = "warn"
    """What its sign leads to: a warning, once a stage, or the end of the stage, which can be gone on with. ``filter`` warns,
    and leaves every trajectory that shows it, from the first on, out of training data and of the loss."""


class ToolUse(Sieve):
    """Tool use falls to none."""

    least: Share = 0.01
    """Share of the trajectories that call a tool, at least."""
    fall: Share = 0.5
    """RL: at least this part of the share that did so in the stage's first steps."""


class CodeSuccess(Sieve):
    """Calls cease to succeed."""

    least: Share = 0.1
    """Share of the calls that succeed, at least."""
    fall: Share = 0.5
    """RL: at least this part of the share that did so in the stage's first steps."""


class SameCode(Sieve):
    """All trajectories of a task run the same code, so that they teach nothing of each other."""

    most: Share = 0.9
    """Share of the tasks with several trajectories, at most."""


class PrintedAnswer(Sieve):
    """The answer stands in the output of a tool and nowhere in the model's own words, and may be rewarded for that."""

    most: Share = 0.05
    """Share of the trajectories, at most."""


class Truncation(Sieve):
    """Trajectories are cut off by ``max_tokens``."""

    most: Share = 0.5
    """Share of the trajectories, at most."""
    rise: Share = 0.2
    """RL: at most this much above the share in the stage's first steps."""


class Evaluation(Canary):
    """The reward rose in an RL stage, and the accuracy on a test set fell by it."""

    fall: Share = 0.02
    """How much lower the accuracy may be than that of the model that the stage began with. The 95 % interval of the
    difference, paired by task, has to lie below zero as well."""


class Entropy(Canary):
    """RL: the policy has become nearly certain of every token, and explores no more."""

    least: float = Field(0.005, ge=0)
    """Mean entropy of the tokens that are trained, in nats, at least."""
    fall: Share = 0.2
    """At least this part of what it was in the stage's first updates."""


class Loss(Canary):
    """The loss or the gradient's norm is not a number."""

    action: Literal["off", "warn", "stop"] = "stop"
    """What its sign leads to. Weights that a loss without a number has touched are lost: the stage is to go on from its
    last checkpoint."""


class LogprobGap(Canary):
    """RL: the trainer computes other log-probs than the tokens were sampled with."""

    most: float = Field(0.05, gt=0)
    """Mean difference, in nats a token, at most; float32 stays below 1e-5, bfloat16 near 0.01."""


class Canaries(PluginConfig):
    """``[canaries]``: what is looked out for, and what is then done. A stage's ``canaries`` table sets it for itself."""

    tool_use: ToolUse = ToolUse()
    """Tool use falls to none."""
    code_success: CodeSuccess = CodeSuccess()
    """Calls cease to succeed."""
    same_code: SameCode = SameCode()
    """The same code across a whole group."""
    printed_answer: PrintedAnswer = PrintedAnswer()
    """Answers that only the code printed."""
    truncation: Truncation = Truncation()
    """More and more trajectories are cut off."""
    evaluation: Evaluation = Evaluation()
    """The reward rises while an evaluation falls."""
    entropy: Entropy = Entropy()
    """The policy's entropy collapses."""
    loss: Loss = Loss()
    """A loss that is not a number."""
    logprob_gap: LogprobGap = LogprobGap()
    """Sampled and recomputed log-probs differ."""

    @property
    def sieves(self) -> tuple[str, ...]:
        """Those that leave trajectories out."""
        return tuple(name for name in type(self).model_fields if getattr(self, name).action == "filter")


# --- what a trajectory shows ------------------------------------------------------------------------------------
def only_printed(trajectory: Trajectory) -> bool:
    """A tool's output holds the answer, boxed or else the one that was rewarded as right, and the model's own words outside
    of code hold neither it nor any box."""
    printed = "\n".join(turn.result.text for turn in trajectory.calls if turn.result is not None)
    answer = last_boxed(printed)
    if answer is None and is_right(trajectory) and last_boxed(trajectory.model_text) is None:
        answer = trajectory.task.answer
    if not answer:
        return False
    response = trajectory.response
    said = "\n".join(response[start:end] for start, end in prose(trajectory))
    stands = re.compile(rf"(?<!\w){re.escape(answer)}(?!\w)")
    return last_boxed(said) is None and bool(stands.search(printed)) and not stands.search(said)


def succeeded(trajectory: Trajectory) -> int:
    return sum(turn.result is not None and turn.result.outcome == Outcome.OK for turn in trajectory.calls)


def programs(trajectory: Trajectory) -> tuple[str, ...]:
    """What it ran, white space aside."""
    calls = (turn.call for turn in trajectory.calls if turn.call is not None)
    return tuple(" ".join((c.code if c.code is not None else str(c.arguments)).split()) for c in calls)


SHOWS: Mapping[str, tuple[Callable[[Trajectory], bool], str]] = {
    "tool_use": (lambda t: not t.calls, "no tool was called"),
    "code_success": (lambda t: bool(t.calls) and not succeeded(t), "no call succeeded"),
    "printed_answer": (only_printed, "only the output of a tool states the answer"),
    "truncation": (lambda t: t.stop_reason == "length", "cut off by max_tokens"),
}
"""Whether a trajectory shows the sign by itself, and how a verdict says so."""


class Count:
    """What some trajectories come to; those in which the machinery failed are left out."""

    def __init__(self) -> None:
        self.sums: Sums = defaultdict(int)
        self._ran: OrderedDict[str, int | None] = OrderedDict()
        """By task: the hash of the programs that all of its trajectories so far ran; ``None`` where they differ."""
        self._several: set[str] = set()

    def add(self, trajectory: Trajectory) -> None:
        if not trajectory.usable:
            return
        calls = trajectory.calls
        for name, amount in (
            ("seen", 1),
            ("called", bool(calls)),
            ("calls", len(calls)),
            ("succeeded", succeeded(trajectory)),
            ("printed", only_printed(trajectory)),
            ("cut", trajectory.stop_reason == "length"),
            ("reward", trajectory.reward),
        ):
            self.sums[name] += amount
        self._compare(trajectory.task.id, programs(trajectory))

    def _compare(self, task: str, ran: tuple[str, ...]) -> None:
        """With what the others of the task ran; a trajectory that ran nothing is like no other."""
        mine = hash(ran) if ran else None
        if task not in self._ran:
            self._ran[task] = mine
            if len(self._ran) > GROUPS:
                self._several.discard(self._ran.popitem(last=False)[0])
            return
        was = self._ran[task]
        if task not in self._several:
            self._several.add(task)
            self.sums["groups"] += 1
            self.sums["alike"] += was is not None
        if was is not None and was != mine:
            self.sums["alike"] -= 1
            self._ran[task] = None
