"""``kind = "synthesize"``: hint-engineered samples from the model's own generations and the live tools (paper, "Data
synthesis"), until enough have passed every filter."""

from __future__ import annotations

from collections import Counter

from pydantic import Field

from cort_framework.errors import StageFailed
from cort_framework.interfaces import PluginConfig, RolloutRequest, Stage, StageResult
from cort_framework.pipeline import Run
from cort_framework.store import TrajectoryLog
from cort_framework.types import Trajectory, Verdict


class Synthesize(Stage):
    name = "synthesize"

    class Config(PluginConfig):
        tasks: str
        """The task set to draw from, a key of `[tasks]`."""
        target: int = Field(30, ge=1)
        """How many samples to keep (paper: 30); at most one a task."""
        attempts: int = Field(4, ge=1)
        """How often a task is tried again before it is given up."""
        hints: list[str] = Field(min_length=1)
        """The hint injectors at work."""
        filters: list[str] = []
        """What a sample has to pass."""
        tools: list[str] | None = None
        """Which of the recipe's tools; all by default."""
        rewards: list[str] | None = None
        """Which rewards to compute for the filters; all by default."""

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
                    trajectories = run.collect(log, job, progress)
                    run.judge(trajectories, config.filters)
                    tried += [(t.task.id, t.sample) for t in trajectories]
                    for trajectory in trajectories:
                        if trajectory.kept and len(kept) < config.target:
                            kept[trajectory.task.id] = attempt
            for task, sample in tried:
                final = log.lines[task, sample][-1]
                if final.kept and kept.get(task) != sample:
                    final.verdicts.append(Verdict(False, "the target was reached", filter="target"))
            log.finish(tried)
        if not kept:
            raise StageFailed(
                f"stage '{run.stage.name}' kept none of {len(tried)} trajectories: {funnel_line(log, example=True)}",
                f"`cort trace stats {run.folder.parent}` shows the funnel; loosen a filter or give it more tasks or attempts",
            )
        if len(kept) < config.target:
            run.reporter.note(f"{len(kept)} samples of the {config.target} asked for: the tasks are used up")
        lines = [log.lines[(task, sample)] for task, sample in kept.items()]
        rewinds = sum(len(line) - 1 for line in lines)
        tokens = sum(t.generated_tokens for line in log.lines.values() for t in line[-1:])
        return StageResult(
            trajectories=log.path,
            summary={"kept": len(kept), "tried": len(tried), "rewinds in kept": rewinds, "tokens": tokens},
        )


def funnel_line(log: TrajectoryLog, example: bool = False) -> str:
    """Why the final trajectories of a log were dropped, most frequent first; with the first one's reason as example."""
    verdicts = [_drop(line[-1]) for line in log.lines.values()]
    dropped = [v for v in verdicts if v is not None]
    counts = Counter(v.filter for v in dropped).most_common()
    line = ", ".join(f"{n} by {name}" for name, n in counts) or "none"
    if example and counts:
        line += f" (the first: {next(v.reason for v in dropped if v.filter == counts[0][0])})"
    return line


def _drop(trajectory: Trajectory) -> Verdict | None:
    if trajectory.error is not None:
        return Verdict(False, trajectory.error, filter="error")
    return next((v for v in trajectory.verdicts if not v.keep), None)
