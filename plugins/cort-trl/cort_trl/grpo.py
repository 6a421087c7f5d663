"""Group-relative policy optimisation over the framework's own rollout (paper: RL; Shao et al. 2024).

One step: draw prompts; give the engine the policy's weights; roll out ``num_generations`` trajectories a prompt; weigh
each against its group; update on the tokens that the policy sampled. Output of tools, hints, and trajectories in which
the machinery failed carry no loss.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

import cort_framework as cort
from cort_trl.rollouts import Rollouts
from cort_trl.training import REQUIRES, Schedule, TrainingSettings, arguments, fit, load, quiet


class GroupRelativeTrainer(cort.Trainer):
    """TRL's ``GRPOTrainer`` with ``rollout_func``; the engine samples from the trainer's own module.

    Keep the stage's ``rollout.top_p`` at 1: what it cuts off is in no log-prob that a trainer can recompute.
    """

    name = "grpo"
    requires = REQUIRES

    class Config(TrainingSettings):
        steps: int = Field(100, ge=1)
        """Rollouts of ``prompts_per_step`` groups (paper: best near 100)."""
        prompts_per_step: int = Field(128, ge=1)
        """Groups a step, over all devices (paper: 128)."""
        num_generations: int = Field(8, ge=2)
        """Trajectories a group (paper: 8)."""
        updates_per_step: int = Field(1, ge=1)
        """Optimiser updates that share a step's trajectories (paper: 2, that is 64 prompts each)."""
        learning_rate: float = Field(1e-6, gt=0)
        """Peak of the schedule (paper: 1e-6)."""
        schedule: Schedule = "constant_with_warmup"
        """How the learning rate falls from its peak."""
        beta: float = Field(0.001, ge=0)
        """Weight of the KL divergence to the starting model, by the low-variance estimator (paper: 0.001)."""
        epsilon: float = Field(0.2, gt=0)
        """Clip range of the ratio to the policy that sampled (paper: 0.2)."""
        loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo"] = "dapo"
        """How token losses are averaged; ``dapo``: over all tokens of the update."""
        scale_rewards: Literal["group", "batch", "none"] = "group"
        """What advantages are divided by: the standard deviation of the group's rewards, of all rewards, or nothing."""
        zero_variance: Literal["keep", "drop", "resample"] = "drop"
        """Groups whose rewards are all equal teach nothing. ``drop``: no loss at all on them; ``keep``: the KL term stays;
        ``resample``: draw other prompts in their place, ``resample_rounds`` times at most, then drop."""
        resample_rounds: int = Field(2, ge=1)
        """How often to draw again."""
        placement: Literal["shared", "disk"] = "shared"
        """How the engine gets the weights: the live module itself, or a folder that is written every step."""

    config: Config

    def train(self, context: cort.TrainContext) -> cort.Checkpoint:
        from datasets import Dataset

        config = self.config
        if context.rollout is None or context.load_weights is None:
            raise cort.CortError(
                "trainer 'grpo' makes its own trajectories", "use it in a stage of kind 'rl'"
            )
        if len(context.tasks) < config.prompts_per_step:
            raise cort.RequestError(
                f"{len(context.tasks)} tasks are too few for prompts_per_step {config.prompts_per_step}",
                "give the stage more tasks, or lower prompts_per_step",
            )
        model, tokenizer = load(context.model, config.dtype)
        rows = task_order(len(context.tasks), config.prompts_per_step, config.steps, context.seed)
        with quiet():
            trainer = _trainer_class()(
                model=model,
                processing_class=tokenizer,
                reward_funcs=reward,
                rollout_func=Rollouts(config, context),
                # The prompt that TRL carries around is the row of the task; everything else is looked up by it.
                train_dataset=Dataset.from_dict({"prompt": [str(row) for row in rows]}),
                args=self._arguments(context),
            )
        return fit(trainer, context, "rl updates")

    def _arguments(self, context: cort.TrainContext) -> Any:
        from trl import GRPOConfig

        config = self.config
        micro, forwards = self._split()
        return GRPOConfig(
            **{
                **arguments(config, context),
                "per_device_train_batch_size": micro,
                # a checkpoint in the middle of a step could not go on with that step's trajectories
                "save_steps": config.save_every * config.updates_per_step,
            },
            steps_per_generation=forwards,
            gradient_accumulation_steps=forwards // config.updates_per_step,
            max_steps=config.steps * config.updates_per_step,
            num_generations=config.num_generations,
            max_completion_length=context.max_tokens,
            temperature=context.temperature,
            beta=config.beta,
            epsilon=config.epsilon,
            loss_type=config.loss_type,
            scale_rewards=config.scale_rewards,
            shuffle_dataset=False,  # the order is ours: see task_order
            mask_truncated_completions=False,  # it judges by the last token; our mask is authorship
        )

    def _split(self) -> tuple[int, int]:
        """Sequences in one forward pass on this device, and forward passes that use up a step's trajectories."""
        from accelerate import PartialState

        config, world = self.config, PartialState().num_processes
        batch = config.prompts_per_step * config.num_generations
        if config.prompts_per_step % world or batch % (world * config.updates_per_step):
            raise cort.RequestError(
                f"{batch} trajectories a step cannot be shared by {world} devices and {config.updates_per_step} updates",
                "change prompts_per_step, num_generations or updates_per_step",
            )
        share = batch // world // config.updates_per_step
        micro = max(n for n in range(1, min(config.micro_batch, share) + 1) if share % n == 0)
        return micro, batch // world // micro


def task_order(count: int, per_step: int, steps: int, seed: int) -> list[int]:
    """Which tasks come when, for the whole training: a fresh shuffle an epoch, no task twice in a step. A list made
    beforehand resumes exactly."""
    noise = random.Random(seed)
    order: list[int] = []
    while len(order) < steps * per_step:
        epoch = list(range(count))
        noise.shuffle(epoch)
        order += epoch[: count - count % per_step]
    return order[: steps * per_step]


def reward(
    prompts: Sequence[Any], completions: Sequence[Any], reward: Sequence[float | None], **_: Any
) -> list[float | None]:
    """The framework's reward functions have scored each trajectory already; ``None`` leaves it out of its group."""
    return list(reward)


def _trainer_class() -> Any:
    import torch
    from trl import GRPOTrainer

    class PolicyTrainer(GRPOTrainer):
        """What TRL 1.16 does for vLLM alone, for any engine: the policy that the ratio is taken to is the one that
        sampled, by the log-probs that it sampled with."""

        _recomputed: torch.Tensor | None = None

        def note(self, figures: dict[str, float]) -> None:
            for name, value in figures.items():
                self._metrics["train"][f"rollout/{name}"].append(float(value))

        def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
            output: dict[str, Any] = super()._generate_and_score_completions(inputs)
            output["old_per_token_logps"] = output["sampling_per_token_logps"]
            return output

        def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
            loss = super()._compute_loss(model, inputs)
            updates = self.args.steps_per_generation // self.args.gradient_accumulation_steps
            if self.state.global_step % updates == 0:  # the weights are still those that sampled
                mask = inputs["completion_mask"] * inputs["tool_mask"]
                assert self._recomputed is not None
                gap = ((self._recomputed - inputs["sampling_per_token_logps"]) * mask).abs().max()
                self._metrics["train"]["logprob_gap"].append(gap.item())
            return loss

        def _get_per_token_logps_and_entropies(
            self,
            model: Any,
            input_ids: torch.Tensor,
            attention_mask: torch.Tensor,
            logits_to_keep: int,
            batch_size: int | None = None,
            **kwargs: Any,
        ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
            """As TRL has it, ``[sequences, logits_to_keep]``, but of sequences that begin at position 0.

            TRL pads prompts on the left, and all of a step to its longest. In float32 a rotary model's log-probs move
            by up to 1e-4 with the padding; and most of it is work for nothing. Here each forward pass takes sequences
            of like length, padded on the right to the longest of its own.
            """
            if model is self.model and not torch.is_grad_enabled():
                # TRL asks what the policy would say now of a step that several updates share; we know what it said
                return torch.zeros(len(input_ids), logits_to_keep, device=input_ids.device), None, None
            order = attention_mask.sum(1).argsort(stable=True)
            logps, entropies = [], []
            for rows in order.split(batch_size or len(order)):
                ids, mask = _begin_at_zero(input_ids[rows], attention_mask[rows])
                found = super()._get_per_token_logps_and_entropies(
                    model, ids, mask, ids.shape[1] - 1, **kwargs
                )
                # column t of what is found is for the token at position t + 1
                prompt = attention_mask[rows, :-logits_to_keep].sum(1, keepdim=True)
                columns = prompt - 1 + torch.arange(logits_to_keep, device=prompt.device)
                columns = columns.clamp(max=ids.shape[1] - 2)  # behind its end a sequence has no loss
                logps.append(found[0].gather(1, columns))
                entropies.append(None if found[1] is None else found[1].gather(1, columns))
            back = order.argsort()
            together = torch.cat(logps)[back]
            self._recomputed = together.detach()
            return together, None if entropies[0] is None else torch.cat(entropies)[back], found[2]

        def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
            gaps = self._metrics["train"].get("logprob_gap")
            if gaps:
                self._metrics["train"]["logprob_gap"] = [
                    max(gaps)
                ]  # TRL logs means; a gap is about the worst
            super().log(logs, *args, **kwargs)

    return PolicyTrainer


def _begin_at_zero(ids: Any, mask: Any) -> tuple[Any, Any]:
    """Sequences padded on both sides, ``[sequences, width]``, as sequences padded on the right to the longest."""
    import torch

    length = mask.sum(1, keepdim=True)
    columns = torch.arange(int(length.max()), device=ids.device)
    source = (mask.argmax(1, keepdim=True) + columns).clamp(max=ids.shape[1] - 1)
    return ids.gather(1, source), (columns < length).to(mask.dtype)
