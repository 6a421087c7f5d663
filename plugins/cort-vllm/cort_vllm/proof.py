"""What the engine shows before it is trusted: that it samples from the checkpoint that it was given."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch

from cort_framework import Generation, Sampling

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
