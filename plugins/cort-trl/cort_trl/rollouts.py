"""From the framework's rollout to TRL: draw prompts, give the engine the policy, roll out, weigh groups.

With a policy lag of n, the trajectories of step k come from the weights as they stood before step k - n (at the beginning:
from those that the training started with), and are made while the steps between are trained. Which weights a step
samples from, and in what order the steps are rolled out, depends on nothing that takes time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from statistics import fmean
from typing import TYPE_CHECKING, Any

import cort_framework as cort
from cort_framework.rendering import render
from cort_trl.batches import Batch, read_batches, write_batches
from cort_trl.training import SHARDED, changed, load, plain_weights, policy, save

if TYPE_CHECKING:
    from cort_trl.grpo import GroupRelativeTrainer


class Rollouts:
    """TRL's ``rollout_func``: prompts in, trajectories out, in the form that TRL trains on.

    Without a lag all is done in the call. With one, a thread of its own makes one step's trajectories after another, and
    the call hands out what is ready, or waits for it: each rollout has its own deadline.
    """

    def __init__(
        self, config: GroupRelativeTrainer.Config, context: cort.TrainContext, rows: Sequence[int]
    ) -> None:
        """``rows``: the tasks of all steps, in order; see ``task_order``."""
        self.config = config
        self.context = context
        self.rows = rows
        self._worker = ThreadPoolExecutor(1, "cort-rollouts") if config.policy_lag else None
        self._ahead: dict[int, Future[Batch]] = {}
        """By step: what is being made, or waits to be trained on."""
        self._policy = cort.Weights(version=-1)
        self._copies: dict[int, Any] = {}
        self._resumed = False

    def __call__(self, prompts: Sequence[str], trainer: Any) -> dict[str, list[Any]]:
        config, lag = self.config, self.config.policy_lag
        step = trainer.state.global_step // config.updates_per_step
        if not self._resumed:
            self._resume(trainer, step)
        with trainer.checkpoints.idle():
            # with a lag: begun long ago, but for the first call
            for ahead in range(step, step + max(lag, 1)):
                self._begin(ahead, step, trainer)
        started = time.perf_counter()
        with trainer.checkpoints.idle():
            batch = self._ahead.pop(step).result()
        waited = time.perf_counter() - started if lag else batch.seconds
        if lag:
            self._begin(step + lag, step, trainer)

        drawn = [self.context.tasks[int(row)].id for row in prompts[:: config.num_generations]]
        if drawn != batch.tasks:
            raise cort.CortError(
                f"step {step} has trajectories of the tasks {batch.tasks}, but TRL wants {drawn}"
            )
        trainer.age = step + 1 - batch.version
        trainer.note(
            batch.figures
            | {
                "stale": self._leave_out_stale(batch, step + 1),
                "lag": trainer.age,
                "seconds": batch.seconds,
                "waited": waited,
                "overlapped": max(0.0, 1 - waited / batch.seconds),
            }
        )
        trajectories, trained = [], []
        for group in batch.groups:
            learns = varies(group) or config.zero_variance == "keep"
            trajectories += group
            trained += [learns and counts(t) for t in group]
        return for_trl(trajectories, trained, trainer.processing_class.eos_token_id, config.train_on)

    def save(self, trainer: Any) -> None:
        """Write what was rolled out ahead, this process's share, beside the checkpoint of the step that is done: a training
        that goes on from there trains on the same trajectories. Waits for those that are being made."""
        batches = [self._ahead[step].result() for step in sorted(self._ahead)]
        write_batches(self._folder(trainer), trainer.accelerator.process_index, batches)

    def close(self) -> None:
        """Begin no further rollout. One that is under way is its maker's to end."""
        if self._worker is not None:
            self._worker.shutdown(wait=False, cancel_futures=True)

    # --- one step's rollout -----------------------------------------------------------------------------------
    def _begin(self, step: int, now: int, trainer: Any) -> None:
        """Roll out a step with the weights as they stand, before step ``now``."""
        if step in self._ahead or step >= self.config.steps:
            return
        if self._policy.version != now + 1:
            self._policy = self._weights(trainer, now + 1)
        rank, world = trainer.accelerator.process_index, trainer.accelerator.num_processes
        if self._worker is not None:
            self._ahead[step] = self._worker.submit(self._make, step, self._policy, rank, world)
        else:
            made: Future[Batch] = Future()
            made.set_result(self._make(step, self._policy, rank, world))
            self._ahead[step] = made  # not before: who is interrupted waits for none

    def _make(self, step: int, weights: cort.Weights, rank: int, world: int) -> Batch:
        """This process's part of a step: of the step's tasks, and of those to draw in their place."""
        config, started = self.config, time.perf_counter()
        count = config.prompts_per_step
        drawn = [self.context.tasks[row] for row in self.rows[step * count : (step + 1) * count]]
        tasks = drawn[rank * count // world : (rank + 1) * count // world]
        assert self.context.load_weights is not None
        self.context.load_weights(weights)
        groups = self._roll_out(tasks, step)
        figures = _figures(groups) | {"groups_without_variance": fmean(not varies(group) for group in groups)}
        if config.zero_variance == "resample":
            others = iter(self._others(drawn, step)[rank::world])
            for _ in range(config.resample_rounds):
                flat = [i for i, group in enumerate(groups) if not varies(group)]
                fresh = self._roll_out([task for _, task in zip(flat, others, strict=False)], step)
                for i, group in zip(flat, filter(varies, fresh), strict=False):
                    groups[i] = group
            figures["groups_dropped"] = fmean(not varies(group) for group in groups)
        if config.placement == "colocate" and self.context.sleep is not None:
            self.context.sleep()
        names = [task.id for task in tasks]
        return Batch(step, weights.version, names, groups, figures, time.perf_counter() - started)

    def _roll_out(self, tasks: Sequence[cort.Task], step: int) -> list[list[cort.Trajectory]]:
        """One group a task. The sample's number never comes again in this training, so neither does its noise."""
        n = self.config.num_generations
        if not tasks:
            return []
        assert self.context.rollout is not None
        requests = [cort.RolloutRequest(task, step * n + k) for task in tasks for k in range(n)]
        made = self.context.rollout(requests)
        return [made[i : i + n] for i in range(0, len(made), n)]

    def _others(self, taken: Sequence[cort.Task], step: int) -> list[cort.Task]:
        """Tasks to draw in place of others: each that this step has not drawn, once, in an order of the step's own."""
        ids = {task.id for task in taken}
        rest = [task for task in self.context.tasks if task.id not in ids]
        random.Random(cort.derive_seed(self.context.seed, "resample", step)).shuffle(rest)
        return rest

    # --- weights ----------------------------------------------------------------------------------------------
    def _weights(self, trainer: Any, version: int) -> cort.Weights:
        """The policy as it stands. With a lag of n, n of them are in use at a time: where version - n was, nobody looks."""
        lag = self.config.policy_lag
        place = version % lag if lag else 0
        if self.config.placement == "shared":
            module = self._copy(trainer, place) if lag else policy(trainer)
            return cort.Weights(path=self.context.model, module=module, version=version)
        if self.config.placement == "separate":
            whole = self._copy(trainer, place) if lag or changed(trainer) else policy(trainer)
            return cort.Weights(path=self.context.model, module=whole, version=version)
        folder = self.context.folder / ("policy" if place == 0 else f"policy-{place}")
        save(trainer, folder)
        return cort.Weights(path=str(folder), version=version)

    def _copy(self, trainer: Any, place: int) -> Any:
        """A model that stands still while the optimizer changes the live one, and that has whole weights by their plain names:
        in the first process alone where the live one is sharded. All processes come here."""
        live, sharded = policy(trainer), trainer.accelerator.distributed_type in SHARDED
        weights = plain_weights(trainer)
        if sharded and not trainer.accelerator.is_main_process:
            return live  # what this process has of it; the first one sends
        if place not in self._copies:
            # not copy.deepcopy: TRL gives the model a forward of its own, and a copy would go on calling the original's
            fresh, _ = load(self.context.model, self.config.dtype)
            device = "cpu" if sharded else live.device
            self._copies[place] = fresh.to(device).eval().requires_grad_(False)
        self._copies[place].load_state_dict(weights)
        return self._copies[place]

    def _leave_out_stale(self, batch: Batch, now: int) -> float:
        """Share of the trajectories with a turn older than the lag allows; nothing is learnt from them. Raises ``CortError``
        where all are: then the engine does not sample from what it is given."""
        stale = 0
        everything = [t for group in batch.groups for t in group]
        for trajectory in everything:
            versions = [turn.weights_version for turn in trajectory.turns if turn.weights_version is not None]
            if versions and now - min(versions) > self.config.policy_lag:
                trajectory.error = f"sampled from weights {now - min(versions)} versions old"
                stale += 1
        if stale == len(everything):
            raise cort.CortError(
                f"all trajectories of step {batch.step} are {everything[0].error}; policy_lag is {self.config.policy_lag}",
                "the engine does not take the weights that it is given, or does not stamp them on what it samples",
            )
        return stale / len(everything)

    # --- resuming ---------------------------------------------------------------------------------------------
    def _resume(self, trainer: Any, step: int) -> None:
        self._resumed = True
        for batch in read_batches(self._folder(trainer), trainer.accelerator.process_index):
            if 0 <= batch.step - step < self.config.policy_lag:
                self._ahead[batch.step] = Future()
                self._ahead[batch.step].set_result(batch)

    def _folder(self, trainer: Any) -> Any:
        return self.context.folder / "training" / f"checkpoint-{trainer.state.global_step}" / "rollouts"


def counts(trajectory: cort.Trajectory) -> bool:
    """Nothing failed in it, and no canary has left it out."""
    return trajectory.fault is None and trajectory.kept


def varies(group: Sequence[cort.Trajectory]) -> bool:
    """Whether some of its trajectories that count did better than others."""
    rewards = [t.reward for t in group if counts(t)]
    return len(rewards) > 1 and max(rewards) - min(rewards) > 1e-9


def for_trl(
    trajectories: Sequence[cort.Trajectory],
    trained: Sequence[bool],
    filler: int,
    train_on: Sequence[cort.Author],
) -> dict[str, list[Any]]:
    """Ids, sampled log-probs (0 where nobody sampled) and mask of each response; the mask is authorship. Raises
    ``CortError`` where the engine did not say with what probability it sampled."""
    if any(turn.author == "model" and turn.logprobs is None for t in trajectories for turn in t.turns):
        raise cort.CortError(
            "the engine does not tell the log-probs of what it samples, and RL cannot do without",
            "roll out this stage with another engine: transformers or vllm",
        )
    fields: dict[str, list[Any]] = {
        "prompt_ids": [],
        "completion_ids": [],
        "logprobs": [],
        "env_mask": [],
        "reward": [],
    }
    for trajectory, learns in zip(trajectories, trained, strict=True):
        whole = render(trajectory, train_on)
        start = sum(len(turn.ids) for turn in trajectory.turns if turn.author == "prompt")
        # where the machinery failed before the first token, TRL still needs one
        fields["prompt_ids"].append(whole.input_ids[:start] or [filler])
        fields["completion_ids"].append(whole.input_ids[start:] or [filler])
        fields["logprobs"].append(whole.logprobs[start:] or [0.0])
        fields["env_mask"].append([m * int(learns) for m in whole.mask[start:]] or [0])
        fields["reward"].append(trajectory.reward if counts(trajectory) else None)
    return fields


def _figures(groups: Sequence[Sequence[cort.Trajectory]]) -> dict[str, float]:
    """What a person wants to know of a step's trajectories."""
    good = [t for group in groups for t in group if t.fault is None]
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
        "left_out": fmean(not t.kept for t in good),
    }
    if outcomes:
        found["code_success"] = fmean(outcome == cort.Outcome.OK for outcome in outcomes)
    return found
