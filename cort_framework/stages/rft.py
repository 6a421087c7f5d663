"""``kind = "rft"``: rejection fine-tuning, which is no trainer of its own: collect → score → filter → sft (paper, "RFT")."""

from __future__ import annotations

from pydantic import Field

from cort_framework.errors import StageFailed
from cort_framework.interfaces import PluginConfig, RolloutRequest, Stage, StageResult
from cort_framework.machine.footprint import Footprint, Work, plus, times
from cort_framework.pipeline import Run
from cort_framework.stages.tally import Tally
from cort_framework.store import Trajectories, read_trajectories


class RejectionFineTuning(Stage):
    name = "rft"
    produces_checkpoint = True
    default_trainer = "sft"

    class Config(PluginConfig):
        tasks: str
        """The task set to sample on, a key of `[tasks]`."""
        samples: int = Field(4, ge=1)
        """Samples a task."""
        filters: list[str] = Field(min_length=1)
        """What a trajectory has to pass: the right answer, no delayed computation, no result distrust."""
        data: list[str] = []
        """Earlier stages whose kept trajectories are trained on as well (paper: 30 + 800)."""
        hints: list[str] = []
        """Hint injectors during the collection; none by default."""
        tools: list[str] | None = None
        """Which of the recipe's tools; all by default."""
        rewards: list[str] | None = None
        """Which rewards to compute for the filters; all by default."""

    config: Config

    def footprint(self, work: Work) -> Footprint:
        made = times(*work.tasks.values(), self.config.samples)
        return Footprint(trajectories=made, kept=made, trains_on=plus(work.data, made))

    def run(self, run: Run) -> StageResult:
        config: RejectionFineTuning.Config = run.config
        requests = [RolloutRequest(t, s) for t in run.tasks(config.tasks) for s in range(config.samples)]
        with run.log() as log:
            with run.reporter.progress("collected", len(requests)) as progress:
                job = run.job(requests, tools=config.tools, hints=config.hints, rewards=config.rewards)
                run.collect(log, job, progress)
            run.judge(log, requests, config.filters)
            log.finish(r.key for r in requests)
        tally = Tally.of(read_trajectories(log.path, logprobs=False))
        if not tally.kept:
            raise StageFailed(
                f"stage '{run.stage.name}' kept none of {tally.tried} trajectories: {tally.reasons(example=True)}",
                f"`cort trace stats {run.folder.parent}` shows the funnel; loosen a filter or sample more",
            )
        run.reporter.note(f"kept {tally.kept} of {tally.tried}; dropped: {tally.reasons()}")
        checkpoint = run.train(run.kept(config.data) + Trajectories.kept(log.path))
        summary = {"kept": tally.kept, "tried": tally.tried, "tokens": tally.tokens}
        return StageResult(checkpoint=checkpoint.path, trajectories=log.path, summary=summary)
