"""What vLLM takes on a device: the share of it that it was told, or what its settings say it keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cort_framework.machine.footprint import BYTES, Footprint, Need, Work

if TYPE_CHECKING:
    from cort_vllm.engine import VllmEngine

SHARE = 0.92
"""vLLM's own ``gpu_memory_utilization`` (0.31), of a GPU or of a machine's memory."""


def footprint(config: VllmEngine.Config, work: Work) -> Footprint:
    """Keys and values fill the share that weights leave, and at least one trajectory of ``work.longest`` has to fit."""
    model, longest = work.model, work.longest
    if model is None or longest is None:
        return Footprint()
    if config.url is not None:  # on that machine, not on this one
        return Footprint(memory=(Need("weights for the proof", model.parameters * 4),))
    gpu = work.device.gpu
    number = BYTES[model.dtype if config.dtype == "auto" else config.dtype]
    # without GPUs, the parts and the copies lie side by side in one memory
    parts, copies = (config.tensor_parallel, 1) if gpu else (1, config.data_parallel)
    weights = copies * model.parameters * number // parts
    one = copies * model.key_value_bytes(number) * min(longest, config.max_model_len or longest) // parts
    if config.kv_cache_gb is not None:
        cache, change = int(copies * config.kv_cache_gb * 2**30), "kv_cache_gb"
    else:
        share = config.gpu_memory_utilization or SHARE
        cache, change = int(share * work.device.bytes) - weights, "gpu_memory_utilization"
    if one > cache:
        cache, change = one, "max_model_len"
    needs = [
        Need("weights", weights, "awake" if gpu else "always", "tensor_parallel"),
        Need("keys and values", cache, "awake" if gpu else "always", change),
    ]
    if not gpu:  # a checkpoint is read once more, in float32, to prove what is sampled
        needs.append(Need("weights for the proof", model.parameters * 4))
    return Footprint(memory=tuple(needs))
