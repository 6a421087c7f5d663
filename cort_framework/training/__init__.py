"""One training, as data: run in this process, or in each of several that ``launch`` starts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from cort_framework.errors import StageFailed
from cort_framework.executor import RolloutJob, lines_of
from cort_framework.guards.calls import blame, checked
from cort_framework.guards.canaries import Canaries
from cort_framework.guards.lookout import Lookout
from cort_framework.interfaces import Executor, Reporter, RolloutRequest, TrainContext, Trainer
from cort_framework.recipe.settings import LaunchSettings, RolloutSettings
from cort_framework.registry import Resolved
from cort_framework.runtime import Runtime
from cort_framework.store import TrajectoryLog
from cort_framework.types import Checkpoint, Task, Trajectory, Weights


@dataclass(frozen=True)
class Training:
    """A trainer and all that it gets; nothing in it is open, so it can be sent to another process."""

    trainer: Resolved
    folder: Path
    """The stage's folder."""
    model: str
    seed: int
    settings: RolloutSettings
    launch: LaunchSettings
    report_to: tuple[str, ...] = ()
    max_error_rate: float = 0.0
    canaries: Canaries = field(default_factory=Canaries)
    trajectories: Sequence[Trajectory] = ()
    tasks: Sequence[Task] = ()
    job: RolloutJob | None = None
    """RL: how to roll out; the requests and the weights come from the trainer."""
    executor: Resolved | None = None
    """RL: where."""

    def run(
        self,
        runtime: Runtime,
        reporter: Reporter,
        log_name: str = "trajectories.jsonl",
        several: bool = False,
    ) -> Checkpoint:
        """Train, in this process. ``several``: it is one of ``launch.world`` processes that train together.

        What RL has made is left by sample and task, whichever finished first. Where it goes on from a checkpoint, it makes
        again what came after it: each trajectory is kept once, as it was last."""
        trainer: Trainer = runtime.plugin(self.trainer, Trainer)
        state = (self.folder / log_name.replace("trajectories", "canaries")).with_suffix(".json")
        can_call = self.job is not None and bool(self.job.tools) and self.settings.max_tool_calls > 0
        lookout = Lookout(
            self.folder.name, self.canaries, reporter, can_call, None if self.job is None else state
        )
        context = TrainContext(
            folder=self.folder,
            model=self.model,
            seed=self.seed,
            reporter=lookout.reporting(),
            trajectories=self.trajectories,
            tasks=self.tasks,
            temperature=self.settings.temperature,
            max_tokens=self.settings.max_tokens,
            report_to=self.report_to,
            launch=self.launch if several else None,
        )
        log: TrajectoryLog | None = None
        with ExitStack() as stack:
            if self.job is not None and self.executor is not None:
                log = TrajectoryLog(self.folder / log_name, remember=False)
                stack.callback(log.close)
                stack.callback(runtime.interrupt)  # what a trainer that failed has left under way
                executor = runtime.plugin(self.executor, Executor)
                rollouts = Rollouts(self.job, executor, runtime, log, self.max_error_rate, lookout)
                context.rollout = rollouts
                context.load_weights = rollouts.load_weights
                context.sleep = runtime.rest
            else:
                runtime.rest()  # no engine is needed before the end: the memory is the trainer's
            with blame("trainer", trainer):
                checkpoint = checked(trainer.train(context), Checkpoint)
        if log is not None and not several:  # what several processes have made is put together later
            made = TrajectoryLog(log.path)
            made.finish(made.keys())
        return checkpoint


@dataclass
class Rollouts:
    """What a trainer rolls out with: the weights that it gave last, and every trajectory on disk before it is used."""

    job: RolloutJob
    executor: Executor
    runtime: Runtime
    log: TrajectoryLog
    max_error_rate: float
    lookout: Lookout

    def load_weights(self, weights: Weights) -> None:
        """They are loaded where the rollouts run, when the next ones begin."""
        self.job = replace(self.job, weights=weights)

    def __call__(self, requests: Sequence[RolloutRequest]) -> list[Trajectory]:
        made = {}
        failed: Counter[str] = Counter()
        with closing(lines_of(self.executor, replace(self.job, requests=requests), self.runtime)) as lines:
            for line in lines:
                self.lookout.leave_out(line[-1:], whole=False)
                self.log.append(line)
                made[line[-1].task.id, line[-1].sample] = line
                if line[-1].fault is not None:
                    failed[line[-1].fault] += 1
                    check_errors(failed, len(requests), self.max_error_rate)
        finals = [made[r.key][-1] for r in requests]
        for trajectory in self.lookout.leave_out(finals):
            self.log.append(made[trajectory.task.id, trajectory.sample])
        self.lookout.batch(finals)
        return finals


def check_errors(errors: Counter[str], total: int, max_error_rate: float) -> None:
    """Raises ``StageFailed`` where more than ``max_error_rate`` of ``total`` trajectories, rounded up, have an error that is
    not the model's."""
    if errors.total() > math.ceil(max_error_rate * total):
        error, count = errors.most_common(1)[0]
        raise StageFailed(
            f"{errors.total()} of {total} trajectories failed, {count} of them with: {error}",
            "mend that and run again: the good ones are kept; or raise `max_error_rate` in the recipe",
        )
