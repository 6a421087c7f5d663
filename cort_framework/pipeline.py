"""The run folder and the stages in it: content-addressed, resumable, nothing deleted.

``runs/<name>/`` holds ``recipe.toml``, ``plan.json``, ``environment.json``, ``metrics.jsonl``, ``results.json`` and a folder a
stage. A stage that is done under the same key is not run again; one that was killed goes on from what it has; one
whose key changed moves its old folder aside (``sft~<key>``) and starts afresh.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

from rich.markup import escape

from cort_framework.display import Display, Progressing, StageReporter
from cort_framework.errors import RequestError, StageFailed
from cort_framework.evaluation.curves import write_curves
from cort_framework.executor import RolloutJob, lines_of
from cort_framework.guards.calls import blame, checked
from cort_framework.guards.lookout import Lookout
from cort_framework.guards.watchdog import OutOfMemory, Silence, changes, watched
from cort_framework.interfaces import Executor, Filter, RolloutRequest, Stage, StageResult
from cort_framework.machine.disks import writable
from cort_framework.recipe import Plan, PlannedStage, Recipe, make_plan
from cort_framework.runs.folder import (
    REVIEWED,
    StageRecord,
    check_intact,
    describe,
    finish,
    locked,
    model_card,
    prepare,
    read_state,
)
from cort_framework.runs.inputs import TaskSets, content_digest, digest
from cort_framework.runs.keys import builds_on, check_stage, differences, done, made_from
from cort_framework.runtime import Runtime
from cort_framework.scoring import judge
from cort_framework.store import Trajectories, TrajectoryLog, mend, write_json, write_text
from cort_framework.training import Training, check_errors
from cort_framework.training.launch import announced, join, launch
from cort_framework.types import Checkpoint, Group, Task, Trajectory, Weights, derive_seed

READING_S, CHECKING_S = 3600, 600
"""How long a task source may take to give its tasks, and a tool to check this machine."""
METRICS = "metrics.jsonl"
JUDGED_AT_ONCE = 32
"""Tasks whose trajectories filters see before the next are read."""


@dataclass
class RunReport:
    """What a run came to."""

    folder: Path
    stages: list[StageRecord]
    results: list[dict[str, Any]]
    checkpoint: Path | None
    """The last checkpoint that was made."""


@dataclass
class Run:
    """What a stage gets: its folder, its inputs, and the means to roll out and to train."""

    plan: Plan
    stage: PlannedStage
    folder: Path
    model: str
    """The checkpoint folder or hub id that it starts from; empty for a stage that makes one from nothing."""
    runtime: Runtime
    reporter: StageReporter
    sets: TaskSets
    records: dict[str, StageRecord] = field(default_factory=dict)
    """The stages before this one."""

    @property
    def config(self) -> Any:
        return self.stage.stage.config

    @property
    def seed(self) -> int:
        """The same for all stages of a kind, so that systems that are compared meet the same noise."""
        return derive_seed(self.plan.recipe.seed, self.stage.stage.cls.name)

    @cached_property
    def lookout(self) -> Lookout:
        """What is shown all that the stage collects."""
        can_call = bool(self.stage.uses.get("tools")) and self.stage.rollout.max_tool_calls > 0
        return Lookout(self.stage.name, self.stage.canaries, self.reporter, can_call)

    # --- inputs -----------------------------------------------------------------------------------------------
    def tasks(self, name: str) -> list[Task]:
        """The tasks of a set of the recipe. Raises ``TaskError`` for an empty set or an id that stands twice."""
        return self.sets[name]

    def kept(self, stages: Sequence[str]) -> Trajectories:
        """The final trajectories of earlier stages that all filters kept, or that a person did who has reviewed them; they stay
        on disk."""
        kept = Trajectories()
        for name in stages:
            record = self.records[name]
            if record.result.trajectories is None:
                raise RequestError(
                    f"stage '{name}' makes no trajectories",
                    f"name another stage as `data` of '{self.stage.name}'",
                )
            if record.reviewed is None:
                kept += Trajectories.kept(record.result.trajectories)
            else:
                kept += (accepted := Trajectories.decided(record.reviewed))
                if not accepted:
                    raise StageFailed(
                        f"the review of stage '{name}' has accepted none of its samples",
                        f"accept some: cort hints review {self.folder.parent} --stage {name} --again",
                    )
        return kept

    # --- rollouts ---------------------------------------------------------------------------------------------
    def job(
        self,
        requests: Sequence[RolloutRequest],
        *,
        tools: Sequence[str] | None = None,
        hints: Sequence[str] = (),
        rewards: Sequence[str] | None = None,
        weights: Weights | None = None,
        seed: int | None = None,
        allow_rewind: bool = True,
    ) -> RolloutJob:
        """A batch of rollouts with the recipe's tools and rewards (``None``: all of them) and the hints named."""
        plan, settings = self.plan, self.stage.rollout
        return RolloutJob(
            requests=requests,
            engine=self.stage.engine,
            weights=weights or Weights(path=self.model),
            settings=settings,
            template=plan.recipe.prompts[settings.prompt],
            seed=self.seed if seed is None else seed,
            tools={k: plan.tools[k] for k in (plan.tools if tools is None else tools)},
            injectors={k: plan.hints[k] for k in hints},
            rewards={
                k: (plan.rewards[k], plan.weights[k]) for k in (plan.rewards if rewards is None else rewards)
            },
            allow_rewind=allow_rewind,
        )

    def rollouts(self, job: RolloutJob) -> Generator[list[Trajectory], None, None]:
        """Lines of descent as they finish. Close it where not all of them are wanted."""
        return lines_of(self.runtime.plugin(self.stage.executor, Executor), job, self.runtime)

    @contextmanager
    def log(self, name: str = "trajectories.jsonl", remember: bool = True) -> Iterator[TrajectoryLog]:
        log = TrajectoryLog(self.folder / name, remember)
        try:
            yield log
        finally:
            log.close()

    def collect(self, log: TrajectoryLog, job: RolloutJob, progress: Progressing) -> None:
        """Make the trajectories of a job that the log does not hold yet, or that failed by the machinery's fault, each
        written as it finishes. Raises ``StageFailed`` as soon as too many have failed again."""
        missing = [r for r in job.requests if not log.usable(r.key)]
        progress.skip(len(job.requests) - len(missing))
        total = len(log) + sum(r.key not in log for r in missing)
        failed: Counter[str] = Counter()
        if missing:
            with closing(self.rollouts(replace(job, requests=missing))) as lines:
                for line in lines:
                    log.append(line)
                    self.lookout.collected(line[-1])
                    progress.advance(1)
                    if line[-1].fault is not None:
                        failed[line[-1].fault] += 1
                        self.check_errors(failed, total)
        self.check_errors(log.errors(), len(log))
        self.lookout.look()

    def check_errors(self, errors: Counter[str], total: int) -> None:
        """Raises ``StageFailed`` where more than ``max_error_rate`` of all trajectories, rounded up, have an error that is
        not the model's."""
        check_errors(errors, total, self.plan.recipe.max_error_rate)

    def judge(self, log: TrajectoryLog, requests: Iterable[RolloutRequest], filters: Sequence[str]) -> None:
        """Give the final trajectory of each request its verdicts, and it to the log; task by task, in the order of the first
        request of each. No more than a few tasks' trajectories are held at once. Raises ``StageFailed`` as soon as filters
        have failed on too many."""
        opened = {name: self.runtime.plugin(self.plan.filters[name], Filter) for name in filters}
        samples: dict[str, list[int]] = {}
        for request in requests:
            samples.setdefault(request.task.id, []).append(request.sample)
        waiting, total = iter(samples.items()), sum(map(len, samples.values()))
        failed: Counter[str] = Counter()
        while several := list(islice(waiting, JUDGED_AT_ONCE)):
            groups = []
            for task, numbers in several:
                trajectories = list(log.finals((task, n) for n in numbers))
                for trajectory in trajectories:
                    trajectory.verdicts.clear()
                groups.append(Group(trajectories[0].task, trajectories))
            failed += self.runtime.call(judge(groups, opened))
            self.lookout.leave_out([t for group in groups for t in group.trajectories])
            for group in groups:
                for trajectory in group.trajectories:
                    log.revise(trajectory)
            self.check_errors(failed, total)

    # --- training ---------------------------------------------------------------------------------------------
    def train(
        self,
        trajectories: Sequence[Trajectory] = (),
        tasks: Sequence[Task] = (),
        job: RolloutJob | None = None,
    ) -> Checkpoint:
        """Run the stage's trainer, in as many processes as `launch` says. ``job`` is for RL: how it rolls out."""
        assert self.stage.trainer is not None
        training = Training(
            trainer=self.stage.trainer,
            folder=self.folder,
            model=self.model,
            seed=self.plan.recipe.seed,
            settings=self.stage.rollout,
            launch=self.stage.launch,
            report_to=tuple(self.plan.recipe.report_to),
            max_error_rate=self.plan.recipe.max_error_rate,
            canaries=self.stage.canaries,
            trajectories=trajectories,
            tasks=tasks,
            job=job,
            executor=self.stage.executor,
        )
        if self.stage.launch.several:
            return launch(training, self.runtime, self.reporter)
        return training.run(self.runtime, self.reporter)


def run_folder(plan: Plan, run_dir: Path | str | None = None) -> Path:
    """Where a run lives."""
    return Path(run_dir or Path("runs") / plan.recipe.name).resolve()


def run(
    recipe: Recipe | Plan,
    run_dir: Path | str | None = None,
    *,
    from_stage: str | None = None,
    display: Display | None = None,
) -> RunReport:
    """Run a recipe's stages, in order, in ``run_dir`` (default ``runs/<name>``).

    ``from_stage``: that stage and all after it run again, whatever is there. Raises ``CortError``: what was made so far
    is kept, and the same call goes on from it.
    """
    plan = recipe if isinstance(recipe, Plan) else make_plan(recipe)
    display = display or Display()
    folder = run_folder(plan, run_dir)
    names = [s.name for s in plan.stages]
    check_stage(plan, from_stage)
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if (machine := plan.recipe.launch).rank:
        join(folder, names, machine.rank, machine.timeout_s, display)
        return RunReport(folder, [], [], None)
    with writable(folder), locked(folder), announced(folder, machine.machines):
        if (metrics := folder / METRICS).exists():
            mend(metrics)
        sets = TaskSets(plan)
        for name in dict.fromkeys(name for stage in plan.stages for name in stage.uses.get("tasks", ())):
            if name in plan.tasks:
                with watched(Silence(f"reading the task set '{name}'", READING_S), OutOfMemory()):
                    sets.digest(name)  # a bad task file is found before anything is started
        asked = not all(stage.rollout.replays for stage in plan.stages)
        for resolved in plan.tools.values() if asked else ():
            tool = resolved.build()
            with watched(Silence(f"checking tool '{tool.name}'", CHECKING_S)), blame("checking", tool):
                tool.preflight()
        describe(plan, folder)
        with watched(), Runtime(plan.recipe.seed, plan.recipe.deterministic, plan.preload) as runtime:
            return _run_stages(plan, folder, runtime, sets, display, from_stage)


def _run_stages(
    plan: Plan, folder: Path, runtime: Runtime, sets: TaskSets, display: Display, from_stage: str | None
) -> RunReport:
    records: dict[str, StageRecord] = {}
    digest_of = cache(content_digest)
    results: list[dict[str, Any]] = []
    checkpoint: StageRecord | None = None
    forced = False
    for position, stage in enumerate(plan.stages, 1):
        source = records[stage.model_from] if stage.model_from is not None else None
        model = str(source.result.checkpoint) if source is not None else stage.model or ""
        parts = made_from(plan, stage, records, sets, digest_of)
        key = digest(parts)
        forced = forced or stage.name == from_stage
        stage_folder = folder / stage.name

        title = f"[bold]{position}/{len(plan.stages)} {stage.name}[/bold] [dim]{stage.stage.cls.name}"
        record = None if forced else done(stage, parts, stage_folder)
        if record is not None:
            other = "" if record.key == key else ", by other versions; it has been reviewed and stays"
            display.note(f"{title}: done before ({record.seconds:.0f} s){other}")
        else:
            display.note(title)
            for name, what in builds_on(plan, stage):
                check_intact(records[name], what)
            changed = differences(read_state(stage_folder).get("made_from"), parts)
            if (old := prepare(stage_folder, parts, forced)) is not None:
                why = next(changed, "it was asked for")
                review = ", the review of its samples too" if (old / REVIEWED).exists() else ""
                display.note(
                    f"  [dim]made again, as {escape(why)}; what was there is now in {old.name}{review}"
                )
            reporter = StageReporter(display, folder / METRICS, stage.name)
            started = time.perf_counter()
            kind: Stage = stage.stage.build()
            processes = plan.recipe.launch if stage.trainer is None else stage.launch
            limit = processes.timeout_s + stage.rollout.trajectory_timeout_s
            silence = Silence(f"stage '{stage.name}'", limit, partial(changes, stage_folder, reporter.path))
            with watched(silence, runtime.heart, OutOfMemory()), blame("stage", kind):
                given = kind.run(Run(plan, stage, stage_folder, model, runtime, reporter, sets, records))
                result = checked(given, StageResult)
            record = StageRecord(stage.name, stage.stage.cls.name, key, result, time.perf_counter() - started)
            finish(record, parts, stage_folder)
        records[stage.name] = record
        if record.result.tasks is not None:
            sets.add(stage.name, record.result.tasks)
        if record.result.checkpoint is not None:
            checkpoint = record
        results += record.result.report
        write_json(folder / "results.json", results)
    write_curves(folder, results)
    write_text(folder / "README.md", model_card(plan, list(records.values()), results))
    last = checkpoint.result.checkpoint if checkpoint is not None else None
    return RunReport(folder, list(records.values()), results, last)
