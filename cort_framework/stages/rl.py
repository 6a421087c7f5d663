"""``kind = "rl"``: reinforcement learning with the tools as environment (paper, "RL")."""

from __future__ import annotations

from cort_framework.interfaces import PluginConfig, Stage, StageResult
from cort_framework.machine.footprint import Footprint, Work
from cort_framework.pipeline import Run
from cort_framework.stages.tally import Tally
from cort_framework.store import read_trajectories


class ReinforcementLearning(Stage):
    name = "rl"
    produces_checkpoint = True
    default_trainer = "grpo"

    class Config(PluginConfig):
        tasks: str
        """The prompts, a key of `[tasks]`."""
        rewards: list[str] | None = None
        """Which of the recipe's rewards; all by default (paper: R = R_a + 0.1 R_c)."""
        hints: list[str] = []
        """Hint injectors that do not rewind; none by default."""
        tools: list[str] | None = None
        """Which of the recipe's tools; all by default."""

    def footprint(self, work: Work) -> Footprint:
        return Footprint(trajectories=None, kept=None)  # the trainer says how many

    def run(self, run: Run) -> StageResult:
        config: ReinforcementLearning.Config = run.config
        job = run.job((), tools=config.tools, hints=config.hints, rewards=config.rewards, allow_rewind=False)
        checkpoint = run.train(tasks=run.tasks(config.tasks), job=job)
        made = run.folder / "trajectories.jsonl"
        tally = Tally.of(read_trajectories(made, logprobs=False))  # also what was made before it was stopped
        return StageResult(
            checkpoint=checkpoint.path,
            trajectories=made,
            summary={"trajectories": tally.tried, "tokens": tally.tokens},
        )
