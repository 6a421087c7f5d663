"""Group-relative policy optimisation over the framework's own rollout (paper: RL; Shao et al. 2024).

One step: draw prompts; give the engine the policy's weights; roll out ``num_generations`` trajectories a prompt; weigh
each against its group; update on the tokens that the policy sampled. Output of tools and hints (unless ``train_on`` names
them), and trajectories in which the machinery failed, carry no loss.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import closing
from typing import Any, Literal, Self

from pydantic import Field, model_validator

import cort_framework as cort
from cort_framework.machine.footprint import Footprint, Work
from cort_trl.rollouts import Rollouts, for_trl
from cort_trl.training import REQUIRES, Schedule, TrainingSettings, adapters, arguments, fit, load, quiet
from cort_trl.world import meet


class GroupRelativeTrainer(cort.Trainer):
    """TRL's ``GRPOTrainer`` with ``rollout_func``; the engine samples from the trainer's own module.

    Keep the stage's ``rollout.top_p`` at 1: what it cuts off is in no log-prob that a trainer can recompute.
    """

    name = "grpo"
    requires = REQUIRES
    launcher = "cort_trl.launch"

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
        """Weight of the KL divergence to the starting model, by the low-variance estimator (paper: 0.001). At 0, no
        reference model is held; with ``lora``, none is held either: it is the policy with its adapters off."""
        train_on: list[Literal["model", "hint", "tool"]] = Field(["model"], min_length=1)
        """Authors whose tokens the loss is on. With ``tool`` it is on outputs too: the ablation (paper: without the mask,
        training collapses). Nobody sampled what others wrote, so the ratio is then taken to the policy as it stood when the
        step began, for all tokens. Not with a ``policy_lag``."""
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
        placement: Literal["shared", "disk", "colocate", "separate"] = "shared"
        """How the engine comes by the policy. ``shared``: it samples from the live module itself. ``disk``: it reads a folder
        that is written every step. ``colocate``: so it does, and on the same GPU; it gives its memory back while the
        trainer works. ``separate``: the weights are sent to it every step, and no folder is written; for the engine
        ``vllm``, on GPUs of its own (its ``devices``, or a server's)."""
        policy_lag: int = Field(0, ge=0)
        """Steps that the weights which sample may be behind those that train. 0: a step rolls out, then trains. n: step k
        samples from the weights as they stood before step k - n, while the steps between train. With the placements
        ``shared`` and ``separate`` that takes n copies of the weights."""
        importance_cap: float = Field(2.0, ge=1)
        """With a lag: a token counts as much more as it has become likelier since it was sampled, up to this."""

        @model_validator(mode="after")
        def others_are_trained_on_at_once(self) -> Self:
            if set(self.train_on) != {"model"} and self.policy_lag:
                raise ValueError(
                    "with a policy_lag a token is weighed by how it was sampled, which only those of the model were: "
                    'policy_lag is for train_on = ["model"]'
                )
            return self

        @model_validator(mode="after")
        def engine_can_sleep(self) -> Self:
            if self.placement == "colocate" and self.policy_lag:
                raise ValueError(
                    "with a policy_lag the engine never sleeps: placement 'colocate' is not for it"
                )
            return self

    config: Config

    def footprint(self, work: Work) -> Footprint:
        from cort_trl.memory import grpo_footprint

        return grpo_footprint(self.config, work)

    @property
    def rollouts_per_step(self) -> int:
        rounds = 1 + (self.config.resample_rounds if self.config.zero_variance == "resample" else 0)
        return rounds * max(1, self.config.policy_lag)  # a checkpoint waits for all that is under way

    def inputs(self, trajectory: cort.Trajectory) -> tuple[Sequence[int], Sequence[int]]:
        fed = for_trl([trajectory], [True], 0, self.config.train_on)
        ids = [*fed["prompt_ids"][0], *fed["completion_ids"][0]]
        return ids, [*[0] * len(fed["prompt_ids"][0]), *fed["env_mask"][0]]

    def train(self, context: cort.TrainContext) -> cort.Checkpoint:
        from datasets import Dataset

        from cort_trl.packing import prepare
        from cort_trl.policy import PolicyTrainer

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
        if (
            config.placement == "shared"
            and context.launch is not None
            and context.launch.sharding is not None
        ):
            raise cort.RequestError(
                f"with {context.launch.sharding} no process has all of the model, and an engine cannot sample from a part",
                'set placement = "colocate", "disk" or "separate" in the options of the stage',
            )
        if config.placement == "separate" and config.policy_lag and context.launch is not None:
            raise cort.RequestError(
                "with a policy_lag, one process would send weights while the engine still samples for the others",
                'set policy_lag = 0, or placement = "disk", in the options of the stage',
            )
        meet(context)
        if config.placement == "colocate" and context.sleep is not None:
            context.sleep()  # it may be awake from the stage before
        model, tokenizer = load(context.model, config.dtype)
        packing = prepare(model) if config.packing else ""
        rows = task_order(len(context.tasks), config.prompts_per_step, config.steps, context.seed)
        with closing(Rollouts(config, context, rows)) as rollouts, quiet():
            trainer = PolicyTrainer(
                model=model,
                processing_class=tokenizer,
                reward_funcs=reward,
                rollout_func=rollouts,
                # The prompt that TRL carries around is the row of the task; everything else is looked up by it.
                train_dataset=Dataset.from_dict({"prompt": [str(row) for row in rows]}),
                args=self._arguments(context),
                peft_config=adapters(config),
            )
            trainer.packing = packing
            return fit(
                trainer,
                context,
                "rl updates",
                config.save_minutes,
                unit=config.updates_per_step,
                ahead=config.policy_lag > 0,
            )

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
