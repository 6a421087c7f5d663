"""``kind = "select"``: keep the tasks that are as hard for the model as they should be (paper, "RL": avg@8 exactly 1/8)."""

from __future__ import annotations

from collections import Counter
from typing import Self

from pydantic import Field, PositiveInt, model_validator

from cort_framework.errors import StageFailed
from cort_framework.evaluation import is_right
from cort_framework.interfaces import PluginConfig, RolloutRequest, Stage, StageResult
from cort_framework.machine.footprint import Footprint, Work, plus, times
from cort_framework.pipeline import Run
from cort_framework.runs.inputs import write_tasks


class Select(Stage):
    name = "select"
    produces_tasks = True

    class Config(PluginConfig):
        tasks: str
        """The task set to choose from, a key of `[tasks]`. Later stages name the chosen ones by this stage's name."""
        samples: PositiveInt = 8
        """Samples a task: the k of avg@k."""
        least: float = Field(0.125, ge=0, le=1)
        """Keep tasks whose share of right samples is at least this."""
        most: float = Field(0.125, ge=0, le=1)
        """… and at most this. Hard tasks train best, easy ones fastest and lowest (paper)."""
        limit: PositiveInt | None = None
        """Not more tasks than this, in the set's order (paper: 1,000)."""
        tools: list[str] | None = None
        """Which of the recipe's tools; all by default."""
        hints: list[str] = []
        """Hint injectors at work; none by default."""
        rewards: list[str] | None = None
        """Which rewards to compute; all by default. `answer` decides what is right."""

        @model_validator(mode="after")
        def _ordered(self) -> Self:
            if self.least > self.most:
                raise ValueError(f"least ({self.least:g}) is above most ({self.most:g})")
            if not any(self.least <= k / self.samples <= self.most for k in range(self.samples + 1)):
                raise ValueError(
                    f"of {self.samples} samples no number is a share of {self.least:g} to {self.most:g}"
                )
            return self

    config: Config

    def footprint(self, work: Work) -> Footprint:
        return Footprint(trajectories=times(plus(*work.tasks.values()), self.config.samples))

    def run(self, run: Run) -> StageResult:
        config: Select.Config = run.config
        tasks = run.tasks(config.tasks)
        requests = [RolloutRequest(t, s) for t in tasks for s in range(config.samples)]
        with run.log() as log:
            with run.reporter.progress("trajectories", len(requests)) as progress:
                job = run.job(requests, tools=config.tools, hints=config.hints, rewards=config.rewards)
                run.collect(log, job, progress)
            right: Counter[str] = Counter()
            tokens = 0
            for final in log.finals((r.key for r in requests), logprobs=False):
                right[final.task.id] += is_right(final)
                tokens += final.generated_tokens
            log.finish(r.key for r in requests)
        chosen = [t for t in tasks if config.least <= right[t.id] / config.samples <= config.most]
        spread = Counter(right[t.id] for t in tasks)
        told = ", ".join(f"{n} with {k}" for k, n in sorted(spread.items()))
        if not chosen:
            raise StageFailed(
                f"stage '{run.stage.name}' found no task with {config.least:g} to {config.most:g} of its "
                f"{config.samples} samples right: there are {told}",
                "widen `least` and `most`, sample more, or give it more tasks",
            )
        run.reporter.note(f"{len(chosen)} of {len(tasks)} tasks; right samples: {told}")
        path = run.folder / "tasks.jsonl"
        write_tasks(path, chosen[: config.limit])
        summary = {"tasks": len(chosen[: config.limit]), "tried": len(tasks), "tokens": tokens}
        return StageResult(trajectories=log.path, tasks=path, summary=summary)
