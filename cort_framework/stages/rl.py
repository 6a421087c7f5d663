"""``kind = "rl"``: reinforcement learning with the tools as environment (paper, "RL")."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cort_framework.interfaces import PluginConfig, RolloutRequest, Stage, StageResult
from cort_framework.pipeline import Run
from cort_framework.types import Trajectory, Weights


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

    def run(self, run: Run) -> StageResult:
        config: ReinforcementLearning.Config = run.config
        weights = Weights(path=run.model)
        counts = {"trajectories": 0, "tokens": 0}

        with run.log(remember=False) as log:

            def load_weights(new: Weights) -> None:
                nonlocal weights
                weights = new
                run.runtime.engine(run.stage.engine, new)

            def rollout(requests: Sequence[RolloutRequest]) -> list[Trajectory]:
                job = run.job(
                    requests,
                    tools=config.tools,
                    hints=config.hints,
                    rewards=config.rewards,
                    weights=weights,
                    allow_rewind=False,
                )
                made = {}
                for line in run.rollouts(job):
                    log.append(line)
                    made[line[-1].task.id, line[-1].sample] = line[-1]
                finals = [made[r.task.id, r.sample] for r in requests]
                counts["trajectories"] += len(finals)
                counts["tokens"] += sum(t.generated_tokens for t in finals)
                run.check_errors(Counter(t.error for t in finals if t.error is not None), len(finals))
                return finals

            checkpoint = run.train(tasks=run.tasks(config.tasks), rollout=rollout, load_weights=load_weights)
        return StageResult(checkpoint=checkpoint.path, trajectories=log.path, summary=dict(counts))
