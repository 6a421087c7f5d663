"""What an engine shows before it is trusted: that it samples from its weights, and always in the same way."""

from __future__ import annotations

import random

import torch

from cort_framework import Generation, Sampling
from cort_framework.errors import EngineError
from cort_transformers.decoder import MINIMUM_WIDTH, Decoder, Row, serving

LENGTHS = (20, 90, 270)
"""Of the prompts that are tried alone and in company: one for each way in which keys are summed."""


def largest_gap(decoder: Decoder) -> float:
    """Sample from a probe prompt, then read the same tokens in one plain forward pass of the model, with its usual
    attention: the largest difference of a log-prob, in nats."""
    model = decoder.model
    row = _row(decoder, seed=0, length=24, new=8)
    (generation,) = decoder.run([row])
    ids = torch.tensor([row.ids], device=model.device)
    with serving(model, attention=model.config._attn_implementation):
        logits = model(input_ids=ids, use_cache=False).logits[0, row.prompt - 1 : -1]
    plain = torch.log_softmax(logits.float(), -1).gather(-1, ids[0, row.prompt :, None])[:, 0]
    return float((plain - torch.tensor(generation.logprobs, device=model.device)).abs().max())


def check_reproducible(decoder: Decoder) -> int | None:
    """A row must come out the same, bit for bit, alone and among any others, read at once or piece by piece.

    Small models on a CPU pass as they are. Where matrix products of different sizes round differently (larger models
    on several threads), every forward pass is given one fixed width, which comes back; raises ``EngineError`` where that
    does not help.
    """
    for width in (None, max(MINIMUM_WIDTH, decoder.max_batch)):
        decoder.width = width
        if _alone(decoder) == _in_company(decoder):
            return width
    raise EngineError(
        "this machine does not compute a row of a batch in the same way in every batch, so two runs can differ",
        "set deterministic = false in the recipe",
    )


def _alone(decoder: Decoder) -> list[Generation]:
    found = []
    for seed, length in enumerate(LENGTHS):
        decoder.forget()
        found += decoder.run([_row(decoder, seed, length, new=6)])
    return found


def _in_company(decoder: Decoder) -> list[Generation]:
    decoder.forget()
    for i in range(min(21, decoder.max_batch)):
        decoder.submit(_row(decoder, 100 + i, length=4 + 9 * i % 80, new=2 + i % 7))
    decoder.submit(_row(decoder, 200, length=2 * max(LENGTHS), new=12))
    decoder.step()
    return decoder.run([_row(decoder, seed, length, new=6) for seed, length in enumerate(LENGTHS)])


def _row(decoder: Decoder, seed: int, length: int, new: int) -> Row:
    noise = random.Random(seed)
    length = min(length, decoder.context - new - 1)
    ids = [noise.randrange(decoder.model.config.vocab_size) for _ in range(length)]
    return Row(ids, Sampling(temperature=1.0, top_p=1.0, max_tokens=new, seed=seed), frozenset())
