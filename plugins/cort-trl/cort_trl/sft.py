"""Supervised fine-tuning on trajectories, token for token as they were sampled (paper: SFT and RFT)."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import Field

import cort_framework as cort
from cort_framework.machine.footprint import Footprint, Work
from cort_trl.data import own_folder, rendered, stored
from cort_trl.training import REQUIRES, TrainingSettings, adapters, arguments, fit, load, quiet
from cort_trl.world import meet


class SupervisedTrainer(cort.Trainer):
    """TRL's ``SFTTrainer`` on the turns' ids. Nothing is tokenised or cut; the mask is authorship."""

    name = "sft"
    requires = REQUIRES
    launcher = "cort_trl.launch"

    class Config(TrainingSettings):
        epochs: float = Field(3.0, gt=0)
        """Passes over the trajectories."""
        max_steps: int | None = Field(None, ge=1)
        """Steps in all, instead of ``epochs``."""
        batch_size: int = Field(16, ge=1)
        """Trajectories a step, over all devices."""
        train_on: list[cort.Author] = Field(["model", "hint"], min_length=1)
        """Authors whose tokens the loss is on. Leaving out ``hint`` is the ablation: hint 1 opens the fence, and a
        model that never learns to write it never opens one."""

    config: Config

    def footprint(self, work: Work) -> Footprint:
        from cort_trl.memory import sft_footprint

        return sft_footprint(self.config, work)

    def inputs(self, trajectory: cort.Trajectory) -> tuple[Sequence[int], Sequence[int]]:
        with TemporaryDirectory() as folder:
            samples, _ = rendered([trajectory], self.config.train_on, Path(folder) / "samples.arrow")
            row = next(iter(samples), {"input_ids": [], "completion_mask": []})
        return row["input_ids"], [
            int(label != -100) for label in _labels(row["input_ids"], row["completion_mask"])
        ]

    def train(self, context: cort.TrainContext) -> cort.Checkpoint:
        meet(context)
        context.folder.mkdir(parents=True, exist_ok=True)
        with own_folder(context.folder / "data") as folder:
            return self._train(context, folder)

    def _train(self, context: cort.TrainContext, folder: Path) -> cort.Checkpoint:
        """``folder``: for the samples, which are mapped into memory from there."""
        from trl import SFTConfig, SFTTrainer

        config = self.config
        samples, lengths = rendered(context.trajectories, config.train_on, folder / "samples.arrow")
        if not lengths:
            raise cort.CortError(
                f"none of {len(context.trajectories)} trajectories has a token by {' or '.join(config.train_on)}",
                "look at train_on, and at what the stages before have kept",
            )
        model, tokenizer = load(context.model, config.dtype)

        micro, accumulate = split_batch(config.batch_size, config.micro_batch)
        steps = config.max_steps or max(1, round(len(lengths) * config.epochs / config.batch_size))
        order = training_order(lengths, config.batch_size, steps, context.seed)
        collator = None
        dataset = samples.select(order)
        if config.packing:
            from cort_trl.packing import PackedCollator, prepare

            collator = PackedCollator(prepare(model))
            rows = _packed(dataset, config.batch_size, config.batch_size // micro)
            dataset = stored(rows, folder / "rows.arrow", ("input_ids", "labels", "seq_lengths"))
            micro = 1  # a row is all that goes into one forward pass
        with quiet():
            trainer = SFTTrainer(
                model=model,
                processing_class=tokenizer,
                train_dataset=dataset,
                data_collator=collator,
                peft_config=adapters(config),
                args=SFTConfig(
                    **{**arguments(config, context), "per_device_train_batch_size": micro},
                    gradient_accumulation_steps=accumulate,
                    max_steps=steps,
                    train_sampling_strategy="sequential",  # the order is ours: see training_order
                    completion_only_loss=True,
                    dataset_kwargs={"skip_prepare_dataset": config.packing},
                    max_length=None,  # the default cuts at 1024 tokens without a word
                ),
            )
        return fit(trainer, context, "sft steps", config.save_minutes)


def _packed(samples: Any, batch_size: int, passes: int) -> Iterator[dict[str, list[int]]]:
    """The samples of each step in as many rows as it has forward passes, of nearly equal length."""
    from cort_trl.packing import packs

    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        ids, masks = batch["input_ids"], batch["completion_mask"]
        for row in packs([len(sample) for sample in ids], passes):
            yield {
                "input_ids": [token for i in row for token in ids[i]],
                "labels": [label for i in row for label in _labels(ids[i], masks[i])],
                "seq_lengths": [len(ids[i]) for i in row],
            }


def _labels(ids: Sequence[int], mask: Sequence[int]) -> list[int]:
    """-100 where there is no loss: off the mask, and on the first token, which nothing predicts."""
    return [-100, *(i if m else -100 for i, m in zip(ids[1:], mask[1:], strict=True))]


def split_batch(batch_size: int, micro_batch: int) -> tuple[int, int]:
    """Sequences in one forward pass on this device, and forward passes a step, so that ``batch_size`` comes out exactly.

    Raises ``RequestError`` where the devices cannot share the batch equally.
    """
    from accelerate import PartialState

    world = PartialState().num_processes
    if batch_size % world:
        raise cort.RequestError(
            f"batch_size {batch_size} cannot be shared by {world} devices", f"make it a multiple of {world}"
        )
    share = batch_size // world
    micro = max(n for n in range(1, min(micro_batch, share) + 1) if share % n == 0)
    return micro, share // micro


def training_order(lengths: Sequence[int], batch_size: int, steps: int, seed: int) -> array[int]:
    """Which sample comes when, for the whole training: a fresh shuffle an epoch, and the samples of one step sorted by
    length so that its forward passes carry little padding. The batch is what it would be without the sorting. A list
    made beforehand resumes exactly; a sampler that draws as it goes does not."""
    noise = random.Random(seed)
    stream = array("I")
    while len(stream) < steps * batch_size:
        epoch = array("I", range(len(lengths)))
        noise.shuffle(epoch)
        stream += epoch
    batches = (stream[i * batch_size : (i + 1) * batch_size] for i in range(steps))
    return array("I", (i for batch in batches for i in sorted(batch, key=lambda i: lengths[i])))
