"""The same work as a person writes it on TRL alone: nothing of the framework's trainers is used here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cort_framework as cort
from cort_trl.bench.shapes import now


class Ends:
    """Notes when each step ended, as ``shapes.Clock`` does."""

    def __init__(self) -> None:
        from transformers import TrainerCallback

        ends: list[float] = []

        class Callback(TrainerCallback):
            def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
                if "loss" in (logs or {}):
                    ends.append(now())

        self.ends, self.callback = ends, Callback()


def common(folder: Path, micro: int, accumulate: int, steps: int) -> dict[str, Any]:
    import torch

    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": accumulate,
        "max_steps": steps,
        "learning_rate": 1e-5,
        "bf16": False,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
    }


def sft(
    model: Path,
    folder: Path,
    rows: Sequence[tuple[list[int], list[int]]],
    *,
    micro: int,
    accumulate: int,
    steps: int,
    in_order: bool,
    padding_free: bool,
) -> list[float]:
    """Ids and masks, ``in_order`` or in TRL's own random order; when each step ended comes back."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    watch = Ends()
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        processing_class=AutoTokenizer.from_pretrained(model),
        train_dataset=Dataset.from_dict(
            {"input_ids": [ids for ids, _ in rows], "completion_mask": [mask for _, mask in rows]}
        ),
        args=SFTConfig(
            **common(folder, micro, accumulate, steps),
            train_sampling_strategy="sequential" if in_order else "random",
            completion_only_loss=True,
            padding_free=padding_free,
            max_length=None,
        ),
        callbacks=[watch.callback],
    )
    trainer.train()
    trainer.save_model(str(folder / "checkpoint"))
    return watch.ends


def grpo(
    model: Path,
    folder: Path,
    groups: Sequence[Sequence[cort.Trajectory]],
    *,
    micro: int,
    accumulate: int,
    steps: int,
) -> list[float]:
    """One group a prompt, rolled out beforehand; when each step ended comes back."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    generations = len(groups[0])

    def rollout(prompts: Sequence[str], trainer: Any) -> dict[str, list[Any]]:
        made = [t for prompt in prompts[::generations] for t in groups[int(prompt)]]
        return {
            "prompt_ids": [list(t.turns[0].ids) for t in made],
            "completion_ids": [[i for turn in t.turns[1:] for i in turn.ids] for t in made],
            "logprobs": [
                [x for turn in t.turns[1:] for x in turn.logprobs or [0.0] * len(turn.ids)] for t in made
            ],
            "env_mask": [
                [int(turn.author == "model") for turn in t.turns[1:] for _ in turn.ids] for t in made
            ],
            "reward": [t.reward for t in made],
        }

    def reward(prompts: Any, completions: Any, reward: Sequence[float], **_: Any) -> list[float]:
        return list(reward)

    watch = Ends()
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        processing_class=AutoTokenizer.from_pretrained(model),
        reward_funcs=reward,
        rollout_func=rollout,
        train_dataset=Dataset.from_dict({"prompt": [str(i) for i in range(len(groups))]}),
        args=GRPOConfig(
            **common(folder, micro, accumulate, steps),
            steps_per_generation=accumulate,
            num_generations=generations,
            max_completion_length=4096,
            beta=0.001,
            loss_type="dapo",
            shuffle_dataset=False,
        ),
        callbacks=[watch.callback],
    )
    trainer.train()
    trainer.save_model(str(folder / "checkpoint"))
    return watch.ends
