"""What training takes, in bytes of tensors, by the operations of transformers' decoder layers and of TRL's output head.

Counted is what each operation keeps for the backward pass; every term was held against torch's own record of
allocations on small models (``tests/benchmarks/plan_memory.py``). Not counted: what Liger's kernels save.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cort_framework.machine.footprint import BYTES, Architecture, Footprint, Need, Work, times

if TYPE_CHECKING:
    from cort_trl.grpo import GroupRelativeTrainer
    from cort_trl.sft import SupervisedTrainer
    from cort_trl.training import Lora, TrainingSettings

HEAD_TOKENS, HEAD_COLUMNS = 4096, 32768
"""TRL's output head works on tiles of so many tokens and columns of the vocabulary (``trl.kernels.chunked_logprob``)."""
TILE_BYTES = 29
"""Beside the tile itself, of an element of it, where there is no Triton: seven float32 and a bool."""
BACKWARD = 0.4
"""Gradients inside one layer, as a share of what it keeps: measured."""
STEP_BYTES = 80
"""Of a token of a step's trajectories in GRPO: ids, masks and log-probs, and a second time while TRL shuffles them."""


def sft_footprint(config: SupervisedTrainer.Config, work: Work) -> Footprint:
    """``work.sequences`` trajectories, each as long as the longest."""
    steps = config.max_steps
    if steps is None and work.sequences is not None:
        steps = max(1, round(work.sequences * config.epochs / config.batch_size))
    passes = times(steps, config.batch_size)
    share = max(1, config.batch_size // work.processes)
    return _footprint(config, work, trained=passes, micro=min(config.micro_batch, share))


def grpo_footprint(config: GroupRelativeTrainer.Config, work: Work) -> Footprint:
    """The reference model, and with a policy lag the copies that sample, beside the training itself."""
    batch = config.prompts_per_step * config.num_generations
    made = config.steps * batch
    share = max(1, batch // work.processes)
    found = _footprint(
        config, work, trained=made, micro=min(config.micro_batch, share // config.updates_per_step or 1)
    )
    if config.zero_variance == "resample":
        made *= 1 + config.resample_rounds
    found = replace(found, trajectories=made)
    if work.model is None or work.longest is None:
        return found
    weights = work.model.parameters * BYTES[config.dtype]
    own = weights // (work.processes if work.sharded else 1)
    needs = [*found.memory, Need("the step's trajectories", share * work.longest * STEP_BYTES)]
    if config.beta and config.lora is None:
        needs.append(Need("reference model", own, "awake", "beta"))
    in_memory = config.placement in ("shared", "separate")
    if config.policy_lag and in_memory:
        needs.append(Need("weights that sample", config.policy_lag * weights, "awake", "policy_lag"))
    elif config.placement == "separate" and config.lora is not None:
        needs.append(Need("merged weights, to be sent", weights, "awake", "placement"))
    disk = found.disk
    if not in_memory:
        disk = (*disk, Need("the policy, for the engine", max(1, config.policy_lag) * weights))
    return replace(found, memory=tuple(needs), disk=disk)


def _footprint(config: TrainingSettings, work: Work, trained: int | None, micro: int) -> Footprint:
    model = work.model
    tokens = times(trained, work.longest)
    if model is None:
        return Footprint(trained_tokens=tokens)
    number = BYTES[config.dtype]
    optimised = model.parameters if config.lora is None else adapter_parameters(model, config.lora)
    weights, gradients = model.parameters * number, optimised * number
    last = Need("checkpoint", weights)
    # the new one is written before the old one goes; adapters are saved without the weights
    resume = Need("checkpoints to resume from", 2 * (optimised * number + 2 * gradients))
    if work.longest is None:
        return Footprint(trained_tokens=tokens, disk=(last, resume))
    shards = work.processes if work.sharded else 1
    shard = "" if work.sharded else "launch.fsdp"
    fewer = "lora" if config.lora is None else shard
    needs = [
        Need("weights", weights // shards, "awake", "dtype" if number > 2 else shard),
        Need("gradients", gradients // shards, "awake", fewer),
        Need("optimizer", 2 * gradients // shards, "awake", fewer),
        *_of_one_pass(config, model, micro, work.longest, work.device.gpu),
    ]
    if work.sharded:
        largest = max(model.embedding, model.layer)
        needs.append(Need("weights and gradients gathered from the shards", 2 * largest * number))
    elif work.processes > 1:
        needs.append(Need("gradients on their way between processes", gradients, "awake", fewer))
    if config.bf16 and config.dtype == "float32":
        needs.append(Need("weights in bfloat16", model.parameters * 2, change="bf16"))
    return Footprint(
        trained_tokens=tokens,
        model=replace(model, dtype=config.dtype),
        memory=tuple(needs),
        disk=(last, resume),
    )


def _of_one_pass(
    config: TrainingSettings, model: Architecture, micro: int, longest: int, gpu: bool
) -> list[Need]:
    """What a forward pass over ``micro`` sequences keeps for the backward pass, and the most that this takes on top."""
    tokens = micro * longest
    layer = tokens * layer_bytes(config, model, longest, padded=micro > 1 and not config.packing)
    residual = tokens * model.hidden * BYTES[config.dtype]
    smaller = "micro_batch" if micro > 1 else "rollout.max_tokens"
    if config.gradient_checkpointing:
        kept = Need("activations", model.layers * residual + 3 * residual, change=smaller)
        deepest = round((1 + BACKWARD) * layer)
    else:
        kept = Need("activations", model.layers * layer + 3 * residual, change="gradient_checkpointing")
        deepest = round(BACKWARD * layer)
    head = head_bytes(config, model, tokens - micro, gpu)
    if head >= deepest:
        return [kept, Need("logits", head, change=smaller)]
    return [kept, Need("one layer's backward pass", deepest, change=smaller)]


def layer_bytes(config: TrainingSettings, model: Architecture, longest: int, padded: bool) -> int:
    """What a layer keeps of a token: both norms (their input in float32, its normalised form, the output), queries, keys,
    values and what attention makes of them, and four times the width of the feed-forward layer."""
    h, q, k, i = (
        model.hidden,
        model.heads * model.head_dim,
        model.kv_heads * model.head_dim,
        model.intermediate,
    )
    compute = 2 if config.bf16 else BYTES[config.dtype]
    if config.dtype == "bfloat16":
        norms = 16 * h
    elif config.bf16:
        norms = 26 * h  # each linear layer casts its input for itself
    else:
        norms = 24 * h
    kept = norms + compute * (2 * q + 2 * k + 4 * i) + 4 * model.heads
    if (
        padded
    ):  # a mask, as numbers to be added to the scores, in every layer; and keys copied for each query head
        kept += compute * (2 * (q - k) + longest)
    return kept


def head_bytes(config: TrainingSettings, model: Architecture, tokens: int, gpu: bool) -> int:
    """TRL's fused output head: never all logits at once, but a tile of them, and gradients in float32."""
    rows, columns = min(tokens, HEAD_TOKENS), min(model.vocabulary, HEAD_COLUMNS)
    compute = 2 if config.bf16 else BYTES[config.dtype]
    tile = rows * HEAD_COLUMNS * compute + (0 if gpu else rows * columns * TILE_BYTES)
    of_weights = 0 if config.lora is not None else model.embedding * 4
    return tile + of_weights + tokens * model.hidden * 4


def adapter_parameters(model: Architecture, lora: Lora) -> int:
    """Of low-rank adapters on the layers that ``lora`` names."""
    h, q, k, i = (
        model.hidden,
        model.heads * model.head_dim,
        model.kv_heads * model.head_dim,
        model.intermediate,
    )
    ends = {
        "q_proj": h + q,
        "k_proj": h + k,
        "v_proj": h + k,
        "o_proj": q + h,
        "gate_proj": h + i,
        "up_proj": h + i,
        "down_proj": i + h,
    }
    names = list(ends) if lora.targets == "all-linear" else lora.targets
    return model.layers * lora.rank * sum(ends.get(name, 0) for name in names)
