"""``kind = "evaluate"``: one system on one or more test sets (paper, "Results to stand beside")."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from pydantic import Field, PositiveInt

from cort_framework.errors import TaskError
from cort_framework.evaluation import evaluate
from cort_framework.guards.lookout import reward_trend
from cort_framework.interfaces import PluginConfig, RolloutRequest, Stage, StageResult
from cort_framework.machine.footprint import Footprint, Work, plus, times
from cort_framework.pipeline import Run
from cort_framework.store import read_trajectories
from cort_framework.types import Trajectory


class Evaluate(Stage):
    name = "evaluate"

    class Config(PluginConfig):
        system: str
        """The name of this system in `results.json` and in the closing table."""
        tasks: list[str] = Field(min_length=1)
        """The test sets, keys of `[tasks]`."""
        samples: int = Field(1, ge=1)
        """Samples a task: the k of avg@k."""
        tools: list[str] | None = None
        """Which of the recipe's tools the system has; all by default, `[]` for none."""
        hints: list[str] = []
        """Which of the recipe's hint injectors work on it; none by default."""
        rewards: list[str] | None = None
        """Which rewards to compute; all by default. `answer` decides what is right."""

        budgets: list[PositiveInt] = []
        """Tokens at which the accuracy is told as well, as if responses were cut there: one set of runs for all of them."""

    config: Config

    def footprint(self, work: Work) -> Footprint:
        made = times(plus(*work.tasks.values()), self.config.samples)
        return Footprint(trajectories=made, kept=made)

    def run(self, run: Run) -> StageResult:
        config: Evaluate.Config = run.config
        sets = {name: run.tasks(name) for name in config.tasks}
        ids = Counter(task.id for tasks in sets.values() for task in tasks)
        if twice := [i for i, n in ids.items() if n > 1]:
            raise TaskError(
                f"two test sets of stage '{run.stage.name}' have a task with the id {twice[0]!r}",
                "give each task an id of its own, or evaluate the sets in two stages",
            )
        report = []
        with run.log() as log:
            for name, tasks in sets.items():
                started = time.perf_counter()
                requests = [
                    RolloutRequest(task, sample) for task in tasks for sample in range(config.samples)
                ]
                job = run.job(requests, tools=config.tools, hints=config.hints, rewards=config.rewards)
                with run.reporter.progress(f"{config.system} on {name}", len(requests)) as progress:
                    run.collect(log, job, progress)
                record = evaluate(
                    log.finals((r.key for r in requests), logprobs=False),
                    name=config.system,
                    test_set=name,
                    seconds=time.perf_counter() - started,
                    seed=run.plan.recipe.seed,
                    budgets=config.budgets,
                )
                report.append(record)
                if failed := record["errors"]:
                    run.reporter.note(
                        f"{failed} of {len(requests)} samples count as wrong because the machinery or a reward failed:"
                        f" `cort trace stats {run.folder}`"
                    )
                self._compare_with_start(run, name, log.finals((r.key for r in requests), logprobs=False))
                run.reporter.metrics(**{k: v for k, v in record.items() if isinstance(v, (int, float, str))})
            log.finish(
                (t.id, sample) for tasks in sets.values() for t in tasks for sample in range(config.samples)
            )
        summary = {f"accuracy {r['test_set']}": r["accuracy"] for r in report}
        tokens = sum(r["tokens"] * r["tasks"] * r["samples_per_task"] for r in report)
        return StageResult(trajectories=log.path, report=report, summary={**summary, "tokens": round(tokens)})

    def _compare_with_start(self, run: Run, test_set: str, after: Iterable[Trajectory]) -> None:
        """Where an RL stage made this model: show the canaries what the stage did to the reward and to the accuracy, if the
        model that it began with was evaluated in the same way before."""
        stage = run.stage
        if stage.model_from is None:
            return
        made = run.plan.stage(stage.model_from)
        rewards = reward_trend(run.folder.parent / made.name)
        earlier = [
            run.records[other.name].result.trajectories
            for other in run.plan.stages
            if other.name in run.records
            and other.stage.cls is stage.stage.cls
            and (other.model, other.model_from) == (made.model, made.model_from)
            and test_set in other.uses["tasks"]
            and (other.uses["tools"], other.uses["hints"]) == (stage.uses["tools"], stage.uses["hints"])
            and other.rollout == stage.rollout
        ]
        if rewards is not None and earlier and earlier[-1] is not None:
            before = read_trajectories(earlier[-1], logprobs=False)
            run.lookout.evaluated(test_set, before, after, rewards)
