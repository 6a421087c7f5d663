"""What the engine shows before it is trusted: that it samples from the checkpoint that it was given."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch

from cort_framework import Generation, Sampling
from cort_framework.errors import EngineError

LENGTH, NEW = 24, 16
TEMPERATURE = 0.8  # not 1: log-probs that forget the temperature must not pass


def probe(vocabulary: int, context: int) -> tuple[list[int], Sampling]:
    """A prompt that looks like nothing, so that every part of the model has a say; and how to go on from it."""
    noise = random.Random(0)
    new = min(NEW, context - 1)
    ids = [noise.randrange(vocabulary) for _ in range(max(1, min(LENGTH, context - new)))]
    return ids, Sampling(temperature=TEMPERATURE, top_p=1.0, max_tokens=new, seed=0)


def largest_gap(model: Any, ids: Sequence[int], generation: Generation) -> float:
    """The largest difference, in nats, between the log-probs that came with the tokens and those of one forward pass of
    ``model`` (the checkpoint, in float32) over the same tokens."""
    whole = torch.tensor([[*ids, *generation.ids]])
    with torch.inference_mode():
        logits = model(input_ids=whole, use_cache=False).logits[0, len(ids) - 1 : -1]
    own = torch.log_softmax(logits.float() / TEMPERATURE, -1).gather(-1, whole[0, len(ids) :, None])[:, 0]
    return float((own - torch.tensor(generation.logprobs)).abs().max())


@torch.no_grad()
def take(model: Any, module: Any) -> dict[str, torch.Tensor]:
    """Give ``model`` (float32, on the processor) the weights of a trainer's live module. Those weights by the names of a
    checkpoint, each once where some are tied. Raises ``EngineError`` where the two are not of one shape."""
    given, own = module.state_dict(), model.state_dict(keep_vars=True)
    unlike = [
        name
        for name in given.keys() | own.keys()
        if name not in given or name not in own or given[name].shape != own[name].shape
    ]
    if unlike:
        raise EngineError(
            f"the trainer's model is not what its checkpoint says: they differ in {min(unlike)}",
            'weights that are sharded, or that are not named as in a checkpoint, reach vLLM by placement = "disk"',
        )
    once = {id(tensor): name for name, tensor in reversed(own.items())}
    for name, tensor in own.items():
        tensor.copy_(given[name])
    return {name: given[name] for name in reversed(once.values())}
