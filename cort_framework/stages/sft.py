"""``kind = "sft"``: supervised fine-tuning on the trajectories that earlier stages kept."""

from __future__ import annotations

from pydantic import Field

from cort_framework.errors import StageFailed
from cort_framework.interfaces import PluginConfig, Stage, StageResult
from cort_framework.machine.footprint import Footprint, Work
from cort_framework.pipeline import Run


class SupervisedFineTuning(Stage):
    name = "sft"
    produces_checkpoint = True
    default_trainer = "sft"

    class Config(PluginConfig):
        data: list[str] = Field(min_length=1)
        """Earlier stages whose kept trajectories it trains on."""

    def footprint(self, work: Work) -> Footprint:
        return Footprint(trains_on=work.data)

    def run(self, run: Run) -> StageResult:
        trajectories = run.kept(run.config.data)
        if not trajectories:
            raise StageFailed(
                f"stage '{run.stage.name}' has no trajectory to train on", "its data stages kept none"
            )
        checkpoint = run.train(trajectories)
        tokens = sum(len(t.ids) for t in trajectories)
        return StageResult(
            checkpoint=checkpoint.path, summary={"samples": len(trajectories), "data tokens": tokens}
        )
