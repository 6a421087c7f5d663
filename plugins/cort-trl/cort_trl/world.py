"""The processes that train together: that they have met, all of them, in the way that the recipe asked for."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import cort_framework as cort


def meet(context: cort.TrainContext) -> None:
    """Join the other processes of this training, if there are any: before anything that takes long, and with the recipe's
    own patience (transformers leaves Accelerate's half an hour where there is no GPU).

    Raises ``RequestError`` where this machine cannot shard as it is asked to, ``CortError`` as ``prove`` does.
    """
    import torch
    from accelerate import PartialState

    launch = context.launch
    on_gpu = torch.cuda.is_available()
    if launch is not None and launch.sharding is not None and not on_gpu:
        raise cort.RequestError(
            f"launch.{launch.sharding} shards a model over GPUs, and there is none here",
            f"leave it out: without it each of the {launch.world} processes has the whole model",
        )
    if launch is not None and not on_gpu:
        # Accelerate would number the processor, "cpu:1", which torch cannot load a checkpoint onto
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    patience = {} if launch is None else {"timeout": timedelta(seconds=launch.timeout_s)}
    prove(PartialState(cpu=not on_gpu, **patience), context)


def prove(state: Any, context: cort.TrainContext) -> None:
    """``state``: Accelerate's. Two processes that each found a world of one would train two models without a word.

    Raises ``CortError`` where the world is of another size than the recipe asked for.
    """
    launch = context.launch
    wanted = 1 if launch is None else launch.world
    if state.num_processes != wanted:
        raise cort.CortError(
            f"this process is one of {state.num_processes} that train together, but the recipe asked for {wanted}",
            "let `cort run` start the processes: [launch] processes and machines say how many"
            if launch is None
            else "something in the environment or in launch.environment keeps them apart: RANK, WORLD_SIZE, MASTER_ADDR",
        )


def prove_sharding(accelerator: Any, context: cort.TrainContext) -> None:
    """Raises ``CortError`` where Accelerate does not shard as the recipe asked for."""
    wanted = None if context.launch is None else context.launch.sharding
    kind = accelerator.distributed_type.value.lower()
    found = kind if kind in ("fsdp", "deepspeed") else None
    if found != wanted:
        raise cort.CortError(
            f"the recipe asked for {wanted or 'no sharding'}, but Accelerate has set up {found or 'none'}",
            "look for ACCELERATE_USE_... variables in the environment and in launch.environment",
        )
