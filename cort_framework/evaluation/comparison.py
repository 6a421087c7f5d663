"""Systems side by side on the same tasks, over one run or several: what each reaches, and what one has more than another.

A run is one training, by its seed. Chance comes in by two doors, which tasks were drawn and how the training went, so a
bootstrap draws both anew, the runs and the tasks (Owen 2007, "The pigeonhole bootstrap", doi 10.1214/07-AOAS122). With
three runs such intervals are a little too wide (98 % coverage, simulated) where the runs differ little, and too narrow (89 %)
where the runs differ twice as much as chance among the tasks explains: what each run shows by itself is told as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from random import Random
from typing import Any

from cort_framework.evaluation import RESAMPLES, is_right, quantile
from cort_framework.evaluation.behaviour import Subject, label_calls, subject
from cort_framework.types import Trajectory, derive_seed

MEASURES = {
    "accuracy": ("right", "samples"),
    "tokens": ("tokens", "samples"),
    "tokens_generated": ("generated", "samples"),
    "tokens_per_correct": ("generated", "right"),
    "tool_calls": ("calls", "samples"),
    "code_share": ("coded", "samples"),
    "calculation_share": ("calculations", "labelled"),
    "subject_share": ("on_subject", "samples"),
}
"""Each is the mean of the one over the mean of the other. As in ``evaluation.evaluate``: ``tokens`` are those of the response
as it stands, ``tokens_generated`` those that the model sampled, discarded ones included; the share of calculations is of the
calls that gave a result, that of a subject of the responses that have such a call."""

Run = Hashable
Cells = Mapping[Run, Mapping[str, Mapping[str, float]]]
"""Of one system: run, then task, then the mean over the samples of each thing that is counted."""
Pick = Callable[[Sequence[float]], Sequence[float]]
"""Of a sequence with a value a task: the values of those tasks that were drawn."""
Pair = tuple[float | None, float | None]


def cells(
    samples: Iterable[tuple[Run, Trajectory]], reward: str = "answer", about: Subject | None = None
) -> Cells:
    """One system's trajectories, read once and not held. Versions that a rewind cut back are no samples of their own.
    ``about``: the subject whose share is counted."""
    sums: dict[Run, dict[str, Counter[str]]] = {}
    for run, t in samples:
        if t.stop_reason == "rewound":
            continue
        labels = [label for label in label_calls(t) if label is not None]
        sums.setdefault(run, {}).setdefault(t.task.id, Counter()).update(
            samples=1,
            right=is_right(t, reward),
            tokens=t.response_tokens,
            generated=t.generated_tokens,
            calls=len(t.calls),
            coded=bool(t.calls),
            calculations=labels.count("calculation"),
            labelled=len(labels),
            on_subject=about is not None
            and any(subject(turn.call) == about for turn in t.calls if turn.call is not None),
        )
    return {
        run: {task: {k: n / sum_["samples"] for k, n in sum_.items()} for task, sum_ in tasks.items()}
        for run, tasks in sums.items()
    }


def paired_difference(against: Cells, system: Cells, seed: int = 0) -> dict[str, Any]:
    """``system`` minus ``against`` over the ``runs`` and ``tasks`` that both have. Each of ``MEASURES`` has the ``mean`` of the
    difference, its 95 % ``ci``, what it is ``by_run``, and ``mean`` and ``ci`` of the two themselves, by the names above; ``None``
    for a share of nothing. Raises ``ValueError`` where they have no task in common."""
    runs, tasks = _shared(against, system)
    first, second = _Columns(against, runs, tasks), _Columns(system, runs, tasks)
    found: dict[str, list[Pair]] = {measure: [] for measure in MEASURES}
    for chosen, pick in _draws(len(runs), len(tasks), seed):
        for measure, values in found.items():
            values.append((first.ratio(measure, chosen, pick), second.ratio(measure, chosen, pick)))
    report: dict[str, Any] = {"runs": len(runs), "tasks": len(tasks)}
    for measure, values in found.items():
        *alone, whole = [
            (first.ratio(measure, chosen, list), second.ratio(measure, chosen, list))
            for chosen in [*([run] for run in range(len(runs))), range(len(runs))]
        ]
        report[measure] = {
            "mean": _minus(whole),
            "ci": _interval(map(_minus, values)),
            "by_run": [_minus(pair) for pair in alone],
            "tasks": len(tasks),
            "against": {"mean": whole[0], "ci": _interval(pair[0] for pair in values)},
            "system": {"mean": whole[1], "ci": _interval(pair[1] for pair in values)},
        }
    return report


def _shared(*systems: Cells) -> tuple[list[Run], list[str]]:
    first = systems[0]
    runs = [run for run in first if all(run in system for system in systems)]
    tasks = [
        task
        for task in (first[runs[0]] if runs else ())
        if all(task in system[run] for system in systems for run in runs)
    ]
    if not tasks:
        raise ValueError("there is no task that all have in " + ("all runs" if runs else "a common run"))
    return runs, tasks


class _Columns:
    """What is counted of one system, a value a task, for every choice of runs that is asked for."""

    def __init__(self, system: Cells, runs: Sequence[Run], tasks: Sequence[str]) -> None:
        self._of = {
            name: [[system[run][task][name] for task in tasks] for run in runs]
            for name in dict.fromkeys(name for pair in MEASURES.values() for name in pair)
        }
        self._summed: dict[tuple[str, tuple[int, ...]], list[float]] = {}

    def ratio(self, measure: str, chosen: Sequence[int], pick: Pick) -> float | None:
        """In some of the runs, by their numbers, and some of the tasks."""
        above, below = MEASURES[measure]
        divisor = sum(pick(self._over(below, chosen)))
        return sum(pick(self._over(above, chosen))) / divisor if divisor else None

    def _over(self, name: str, chosen: Sequence[int]) -> list[float]:
        """By task, the sum over the runs that were drawn. Of three runs there are ten draws."""
        key = name, tuple(chosen)
        if key not in self._summed:
            if len(self._summed) > 1000:
                self._summed.clear()
            self._summed[key] = [
                sum(values) for values in zip(*(self._of[name][run] for run in chosen), strict=True)
            ]
        return self._summed[key]


def _minus(pair: Pair) -> float | None:
    first, second = pair
    return None if first is None or second is None else second - first


def _interval(values: Iterable[float | None]) -> list[float] | None:
    ordered = sorted(value for value in values if value is not None)
    return [quantile(ordered, 0.025), quantile(ordered, 0.975)] if ordered else None


def _draws(runs: int, tasks: int, seed: int) -> Iterator[tuple[Sequence[int], Pick]]:
    rng = Random(derive_seed("bootstrap", seed))
    for _ in range(RESAMPLES):
        chosen = sorted(rng.choices(range(runs), k=runs)) if runs > 1 else [0]
        drawn = rng.choices(range(tasks), k=tasks)
        yield chosen, itemgetter(*drawn) if tasks > 1 else list
