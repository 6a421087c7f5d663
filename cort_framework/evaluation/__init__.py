"""What a set of trajectories shows: accuracy, cost and behaviour, with intervals; pure Python.

A trajectory that failed, for whatever reason, counts as wrong: no problem leaves the denominator. Versions that a rewind
cut back are no samples of their own. Trajectories are read once, one after the other, and none is held.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from math import comb
from random import Random
from statistics import fmean
from typing import Any

from cort_framework.evaluation.behaviour import Label, Subject, label_calls, subject
from cort_framework.types import Outcome, Trajectory, derive_seed

RESAMPLES = 2000
"""Bootstrap resamples; the ends of a 95 % interval then rest on 50 each."""


# --- reading a trajectory ---------------------------------------------------------------------------------------
_BRACE = re.compile(r"(\\boxed\s*\{)|\\.|([{}])", re.DOTALL)


def last_boxed(text: str) -> str | None:
    r"""The content of the last complete ``\boxed{…}``, its braces balanced."""
    open_braces: list[int | None] = []  # where a box's content begins; None for any other brace
    last: tuple[int, int] | None = None
    for brace in _BRACE.finditer(text):
        if brace[1] or brace[2] == "{":
            open_braces.append(brace.end() if brace[1] else None)
        elif brace[2] and open_braces:
            start = open_braces.pop()
            if start is not None and (last is None or start > last[0]):
                last = start, brace.start()
    return None if last is None else text[slice(*last)].strip()


def answer_key(trajectory: Trajectory) -> str | None:
    """What the trajectory votes for: ``metadata["answer"]``, or else the last box of its final text."""
    key = trajectory.metadata.get("answer")
    return str(key) if key is not None else last_boxed(trajectory.final_text)


def is_right(trajectory: Trajectory, reward: str = "answer") -> bool:
    """Whether the reward that tells is at least 1; a failure of the machinery or of the grader is not right."""
    scored = trajectory.rewards.get(reward)
    return trajectory.error is None and scored is not None and scored.value is not None and scored.value >= 1


# --- estimators -------------------------------------------------------------------------------------------------
def pass_at_k(n: int, correct: int, k: int) -> float:
    """The chance that at least one of k samples drawn from the n is right: 1 - C(n - c, k) / C(n, k), unbiased."""
    return 1.0 - comb(n - correct, k) / comb(n, k)


def majority_at_k(
    answers: Sequence[Hashable | None], right: Collection[Hashable], k: int, rng: Random, draws: int = 256
) -> float:
    """The chance that the most frequent answer of k samples is right; ties are broken by lot, and samples without an
    answer do not vote. Exact for k = n, else the mean over random subsets."""
    subsets = [list(answers)] if k == len(answers) else [rng.sample(answers, k) for _ in range(draws)]
    return fmean(_vote(subset, right) for subset in subsets)


def _vote(answers: Iterable[Hashable | None], right: Collection[Hashable]) -> float:
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    winners = [answer for answer, count in votes.items() if count == most]
    return sum(answer in right for answer in winners) / len(winners)


def bootstrap(values: Sequence[float], seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the mean of independent ``values``, one a task."""
    rng = Random(derive_seed("bootstrap", seed))
    n = len(values)
    means = sorted(sum(rng.choices(values, k=n)) / n for _ in range(RESAMPLES))
    tail = (1 - level) / 2
    return quantile(means, tail), quantile(means, 1 - tail)


def quantile(ordered: Sequence[float], q: float) -> float:
    """Of values in ascending order, between two of them where it falls there."""
    place = q * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


# --- the report -------------------------------------------------------------------------------------------------
@dataclass(slots=True)
class _Samples:
    """What is held of a task's trajectories: nine bytes each."""

    right: bytearray = field(default_factory=bytearray)
    answers: array[int] = field(default_factory=lambda: array("q"))
    """Hashes of what they vote for: a vote asks no more of two answers than whether they are the same. 0 for none."""
    within: Counter[int] = field(default_factory=Counter)
    """By budget: how many are right and no longer than that."""


def evaluate(
    trajectories: Iterable[Trajectory],
    *,
    name: str,
    test_set: str,
    reward: str = "answer",
    seed: int = 0,
    seconds: float | None = None,
    budgets: Sequence[int] = (),
) -> dict[str, Any]:
    """One record of ``results.json``: the system ``name`` on ``test_set``.

    ``tokens`` are response tokens of the trajectory as it stands (interpreter output and hints included),
    ``tokens_generated`` those that the model sampled, discarded ones included, both as means; ``tokens_per_correct`` is all
    tokens generated divided by the right trajectories. ``calculation_share`` is of the calls that gave a result;
    ``subjects`` gives the share of responses with a call that did such a thing.
    ``errors`` counts the samples in which the machinery or a reward failed; they are wrong.
    ``seconds`` is the wall-clock time that the caller measured; without it, the sum over the trajectories.
    ``accuracy_within`` is the accuracy had the response been cut at so many tokens, for each of ``budgets``: noise is a
    function of the position, so a longer one would have been cut and a shorter one the same.
    A share of nothing is ``None``. Raises ``ValueError`` where there is no trajectory.
    """
    tasks: dict[str, _Samples] = {}
    total: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    labels: Counter[Label | None] = Counter()
    subjects: Counter[Subject] = Counter()
    lasted = 0.0
    for t in trajectories:
        if t.stop_reason == "rewound":
            continue
        samples = tasks.setdefault(t.task.id, _Samples())
        answer = answer_key(t) if t.error is None else None
        samples.right.append(is_right(t, reward))
        samples.answers.append(0 if answer is None else hash(answer) or 1)
        samples.within.update(b for b in budgets if samples.right[-1] and t.response_tokens <= b)
        calls = t.calls
        outcomes.update(str(turn.result.outcome) for turn in calls if turn.result is not None)
        labels.update(label_calls(t))
        subjects.update({subject(turn.call) for turn in calls if turn.call is not None})
        total.update(tokens=t.response_tokens, generated=t.generated_tokens, calls=len(calls))
        total.update(samples=1, right=samples.right[-1], coded=bool(calls), errors=t.fault is not None)
        lasted += t.seconds
    if not tasks:
        raise ValueError(f"there are no trajectories to evaluate for '{name}' on '{test_set}'")
    accuracies = [fmean(samples.right) for samples in tasks.values()]
    fewest = min(len(samples.right) for samples in tasks.values())
    ks = [k for k in (2**i for i in range(fewest.bit_length())) if k < fewest] + [fewest]

    votes: dict[str, float] = {}
    for k in ks:
        rng = Random(derive_seed("majority", seed, k))
        shares = []
        for samples in tasks.values():
            answers = [answer or None for answer in samples.answers]
            known = {a for a, flag in zip(answers, samples.right, strict=True) if flag and a is not None}
            shares.append(majority_at_k(answers, known, k, rng))
        votes[str(k)] = fmean(shares)

    count = total["samples"]
    labelled = labels["calculation"] + labels["verification"]
    within = {str(b): fmean(s.within[b] / len(s.right) for s in tasks.values()) for b in sorted(set(budgets))}
    return {
        "name": name,
        "test_set": test_set,
        "tasks": len(tasks),
        "samples_per_task": fewest,
        "accuracy": fmean(accuracies),
        "accuracy_ci": list(bootstrap(accuracies, seed)),
        "pass_at_k": {
            str(k): fmean(pass_at_k(len(s.right), sum(s.right), k) for s in tasks.values()) for k in ks
        },
        "maj_at_k": votes,
        **({"accuracy_within": within} if within else {}),
        "tokens": total["tokens"] / count,
        "tokens_generated": total["generated"] / count,
        "tokens_per_correct": total["generated"] / total["right"] if total["right"] else None,
        "tool_calls": total["calls"] / count,
        "outcomes": {str(outcome): outcomes[str(outcome)] for outcome in Outcome},
        "code_share": total["coded"] / count,
        "calculation_share": labels["calculation"] / labelled if labelled else None,
        "subjects": {kind: n / count for kind, n in subjects.most_common()},
        "errors": total["errors"],
        "seconds": lasted if seconds is None else seconds,
    }


FAULT_FILTERS = ("no-delayed-computation", "no-result-distrust")


def funnel(
    trajectories: Iterable[Trajectory], *, reward: str = "answer", faults: Collection[str] = FAULT_FILTERS
) -> dict[str, Any]:
    """How many were ``collected``, ``right``, right ``without_faults`` (by the filters named ``faults``) and ``kept``.

    ``dropped`` says why the others went: filter, then kind of reason (a verdict's reason up to its first colon), then how
    many; each counts once, for the first filter that dropped it. ``rewound`` versions are counted apart.
    """
    counts = dict.fromkeys(("collected", "rewound", "errors", "right", "without_faults", "kept"), 0)
    dropped: dict[str, Counter[str]] = {}
    for t in trajectories:
        if t.stop_reason == "rewound":
            counts["rewound"] += 1
            continue
        right = is_right(t, reward)
        counts["collected"] += 1
        counts["errors"] += t.fault is not None
        counts["right"] += right
        counts["without_faults"] += right and all(v.keep for v in t.verdicts if v.filter in faults)
        counts["kept"] += t.kept
        verdict = t.objection
        if verdict is not None:
            dropped.setdefault(verdict.filter, Counter())[verdict.reason.partition(":")[0]] += 1
    return {
        **counts,
        "dropped": {name: dict(reasons.most_common()) for name, reasons in dropped.items()},
    }
