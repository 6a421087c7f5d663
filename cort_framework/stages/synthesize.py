"""``kind = "synthesize"``: hint-engineered samples from the model's own generations and the live tools (paper, "Data
synthesis"), until enough have passed every filter."""

from __future__ import annotations

from pydantic import Field

from cort_framework.errors import StageFailed
from cort_framework.interfaces import PluginConfig, RolloutRequest, Stage, StageResult
from cort_framework.machine.footprint import Footprint, Work, times
from cort_framework.pipeline import Run
from cort_framework.stages.tally import Tally
from cort_framework.store import read_trajectories
from cort_framework.types import Verdict


class Synthesize(Stage):
    name = "synthesize"

    class Config(PluginConfig):
        tasks: str
        """The task set to draw from, a key of `[tasks]`."""
        target: int = Field(30, ge=1)
        """How many samples to keep (paper: 30); at most one a task."""
        attempts: int = Field(4, ge=1)
        """How often a task is tried again before it is given up."""
        hints: list[str]
        """The hint injectors at work; `[]` for none, which leaves the filters to choose among the model's own."""
        filters: list[str] = []
        """What a sample has to pass."""
        tools: list[str] | None = None
        """Which of the recipe's tools; all by default."""
        rewards: list[str] | None = None
        """Which rewards to compute for the filters; all by default."""

    config: Config

    def footprint(self, work: Work) -> Footprint:
        """Of what is tried; what a rewind discards is generated on top of it."""
        made = times(*work.tasks.values(), self.config.attempts)
        return Footprint(trajectories=made, kept=self.config.target)

    def run(self, run: Run) -> StageResult:
        config: Synthesize.Config = run.config
        tasks = run.tasks(config.tasks)
        if len(tasks) < config.target:
            run.reporter.note(f"only {len(tasks)} tasks for a target of {config.target} samples")
        batch = 2 * config.target
        kept: dict[str, int] = {}
        tried: list[tuple[str, int]] = []
        with run.log() as log, run.reporter.progress("trajectories", None) as progress:
            for attempt in range(config.attempts):
                for start in range(0, len(tasks), batch):
                    if len(kept) >= config.target:
                        break
                    requests = [
                        RolloutRequest(t, attempt) for t in tasks[start : start + batch] if t.id not in kept
                    ]
                    job = run.job(requests, tools=config.tools, hints=config.hints, rewards=config.rewards)
                    run.collect(log, job, progress)
                    run.judge(log, requests, config.filters)
                    tried += [r.key for r in requests]
                    for trajectory in log.finals((r.key for r in requests), logprobs=False):
                        if trajectory.kept and len(kept) < config.target:
                            kept[trajectory.task.id] = attempt
                        elif trajectory.kept:
                            verdict = Verdict(False, "the target was reached", filter="target")
                            trajectory.verdicts.append(verdict)
                            log.revise(trajectory)
            rewinds = sum(len(log.line(key)) - 1 for key in kept.items())
            log.finish(tried)
        tally = Tally.of(read_trajectories(log.path, logprobs=False))
        if not kept:
            raise StageFailed(
                f"stage '{run.stage.name}' kept none of {tally.tried} trajectories: {tally.reasons(example=True)}",
                f"`cort trace stats {run.folder.parent}` shows the funnel; loosen a filter or give it more tasks or attempts",
            )
        if len(kept) < config.target:
            run.reporter.note(f"{len(kept)} samples of the {config.target} asked for: the tasks are used up")
        return StageResult(
            trajectories=log.path,
            summary={
                "kept": len(kept),
                "tried": tally.tried,
                "rewinds in kept": rewinds,
                "tokens": tally.tokens,
            },
        )
