"""From the framework's rollout to TRL: draw prompts, give the engine the policy, roll out, weigh groups."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import cort_framework as cort
from cort_framework.rendering import render

if TYPE_CHECKING:
    from cort_trl.grpo import GroupRelativeTrainer


class Rollouts:
    """TRL's ``rollout_func``: prompts in, trajectories out, in the form that TRL trains on."""

    def __init__(self, config: GroupRelativeTrainer.Config, context: cort.TrainContext) -> None:
        self.config = config
        self.context = context

    def __call__(self, prompts: Sequence[str], trainer: Any) -> dict[str, list[Any]]:
        config, context = self.config, self.context
        assert context.rollout is not None and context.load_weights is not None
        step = trainer.state.global_step // config.updates_per_step
        context.load_weights(self._weights(trainer, version=step + 1))

        n = config.num_generations
        tasks = [context.tasks[int(row)] for row in prompts[::n]]
        groups = self._roll_out(tasks, step)
        figures = _figures(groups) | {"groups_without_variance": fmean(not varies(group) for group in groups)}
        if config.zero_variance == "resample":
            others = self._others(tasks, step)
            for _ in range(config.resample_rounds):
                flat = [i for i, group in enumerate(groups) if not varies(group)]
                fresh = self._roll_out([task for _, task in zip(flat, others, strict=False)], step)
                for i, group in zip(flat, filter(varies, fresh), strict=False):
                    groups[i] = group
            figures["groups_dropped"] = fmean(not varies(group) for group in groups)
        trainer.note(figures)

        trajectories, trained = [], []
        for group in groups:
            learns = varies(group) or config.zero_variance == "keep"
            trajectories += group
            trained += [learns and t.usable for t in group]
        return _for_trl(trajectories, trained, trainer.processing_class.eos_token_id)

    def _roll_out(self, tasks: Sequence[cort.Task], step: int) -> list[list[cort.Trajectory]]:
        """One group a task. The sample's number never comes again in this training, so neither does its noise."""
        n = self.config.num_generations
        if not tasks:
            return []
        assert self.context.rollout is not None
        requests = [cort.RolloutRequest(task, step * n + k) for task in tasks for k in range(n)]
        made = self.context.rollout(requests)
        return [made[i : i + n] for i in range(0, len(made), n)]

    def _others(self, taken: Sequence[cort.Task], step: int) -> Iterator[cort.Task]:
        """Tasks to draw in place of others: each that this step has not drawn, once, in an order of the step's own."""
        ids = {task.id for task in taken}
        rest = [task for task in self.context.tasks if task.id not in ids]
        random.Random(cort.derive_seed(self.context.seed, "resample", step)).shuffle(rest)
        return iter(rest)

    def _weights(self, trainer: Any, version: int) -> cort.Weights:
        module = trainer.accelerator.unwrap_model(trainer.model)
        if self.config.placement == "shared":
            return cort.Weights(path=self.context.model, module=module, version=version)
        folder = self.context.folder / "policy"
        module.save_pretrained(folder)
        trainer.processing_class.save_pretrained(folder)
        return cort.Weights(path=str(folder), version=version)


def varies(group: Sequence[cort.Trajectory]) -> bool:
    """Whether some of its usable trajectories did better than others."""
    rewards = [t.reward for t in group if t.usable]
    return len(rewards) > 1 and max(rewards) - min(rewards) > 1e-9


def _for_trl(
    trajectories: Sequence[cort.Trajectory], trained: Sequence[bool], filler: int
) -> dict[str, list[Any]]:
    """Ids, sampled log-probs and mask of each response; the mask is 1 exactly where the policy sampled the token."""
    fields: dict[str, list[Any]] = {
        "prompt_ids": [],
        "completion_ids": [],
        "logprobs": [],
        "env_mask": [],
        "reward": [],
    }
    for trajectory, learns in zip(trajectories, trained, strict=True):
        whole = render(trajectory, train_on=("model",))
        start = sum(len(turn.ids) for turn in trajectory.turns if turn.author == "prompt")
        # where the machinery failed before the first token, TRL still needs one
        fields["prompt_ids"].append(whole.input_ids[:start] or [filler])
        fields["completion_ids"].append(whole.input_ids[start:] or [filler])
        fields["logprobs"].append(whole.logprobs[start:] or [0.0])
        fields["env_mask"].append([m * int(learns) for m in whole.mask[start:]] or [0])
        fields["reward"].append(trajectory.reward if trajectory.usable else None)
    return fields


def _figures(groups: Sequence[Sequence[cort.Trajectory]]) -> dict[str, float]:
    """What a person wants to know of a step's trajectories."""
    good = [t for group in groups for t in group if t.usable]
    every = sum(len(group) for group in groups)
    found = {"failed": 1 - len(good) / every}
    if not good:
        return found
    for name in sorted({name for t in good for name in t.rewards}):
        values = [r.value for t in good if (r := t.rewards.get(name)) is not None and r.value is not None]
        if values:
            found[f"reward/{name}"] = fmean(values)
    outcomes = [turn.result.outcome for t in good for turn in t.calls if turn.result is not None]
    found |= {
        "reward_mean": fmean(t.reward for t in good),
        "tokens": fmean(t.generated_tokens for t in good),
        "calls": fmean(len(t.calls) for t in good),
        "with_calls": fmean(bool(t.calls) for t in good),
        "finished": fmean(t.finished for t in good),
    }
    if outcomes:
        found["code_success"] = fmean(outcome == cort.Outcome.OK for outcome in outcomes)
    return found
