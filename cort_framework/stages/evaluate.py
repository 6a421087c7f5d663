"""``kind = "evaluate"``: one system on one or more test sets (paper, "Results to stand beside")."""

from __future__ import annotations

import time
from collections import Counter

from pydantic import Field, PositiveInt

from cort_framework.errors import TaskError
from cort_framework.evaluation import evaluate
from cort_framework.footprint import Footprint, Work, plus, times
from cort_framework.interfaces import PluginConfig, RolloutRequest, Stage, StageResult
from cort_framework.pipeline import Run


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
                run.reporter.metrics(**{k: v for k, v in record.items() if isinstance(v, (int, float, str))})
            log.finish(
                (t.id, sample) for tasks in sets.values() for t in tasks for sample in range(config.samples)
            )
        summary = {f"accuracy {r['test_set']}": r["accuracy"] for r in report}
        tokens = sum(r["tokens"] * r["tasks"] * r["samples_per_task"] for r in report)
        return StageResult(trajectories=log.path, report=report, summary={**summary, "tokens": round(tokens)})
