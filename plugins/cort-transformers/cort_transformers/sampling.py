"""From logits to tokens. The noise is a function of (seed, position), never of what else is in the batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def uniform(seed: int, position: int) -> float:
    """The number in [0, 1) that decides the token at ``position``: 53 bits of two rounds of splitmix64's finalizer
    (Steele, Lea, Flood 2014) over the counter ``position`` keyed with ``seed``."""
    return (_mix(_mix(seed & _MASK) ^ (position * 0x9E3779B97F4A7C15 & _MASK)) >> 11) * 2.0**-53


def _mix(z: int) -> int:
    z = (z + 0x9E3779B97F4A7C15) & _MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return z ^ (z >> 31)


def sample(
    logits: Tensor, temperatures: Sequence[float], top_ps: Sequence[float], noise: Sequence[float]
) -> tuple[list[int], list[float]]:
    """One token a row, and its log-probability.

    ``logits`` is ``[rows, vocabulary]``. A row's token is the one in whose share of the cumulative distribution, over
    the vocabulary in order, the row's noise falls. ``top_p`` first takes away all but the smallest set of likeliest
    tokens that holds at least that much (and what is exactly as likely as the last of them). Temperature 0 takes the
    likeliest token. The log-probability is that of the full softmax at the row's temperature (1 for temperature 0),
    before ``top_p`` takes anything away: the quantity that a trainer recomputes.
    """
    device = logits.device
    scale = torch.tensor([t if t > 0 else 1.0 for t in temperatures], device=device)
    logprobs = torch.log_softmax(logits.float() / scale[:, None], dim=-1)
    probs = logprobs.double().exp()
    cut = [i for i, p in enumerate(top_ps) if p < 1]
    if cut:
        rows = torch.tensor(cut, device=device)
        top_p = torch.tensor([top_ps[i] for i in cut], device=device, dtype=torch.float64)
        some = probs[rows]
        ranked = _descending(some)
        count = ((ranked.cumsum(-1) - ranked) < top_p[:, None]).sum(-1, keepdim=True)
        probs[rows] = some * (some >= ranked.gather(-1, (count - 1).clamp_(min=0)))
    picks = _invert(probs, torch.tensor(noise, device=device, dtype=torch.float64))
    greedy = [i for i, t in enumerate(temperatures) if t <= 0]
    if greedy:
        rows = torch.tensor(greedy, device=device)
        picks[rows] = logprobs[rows].argmax(-1)
    chosen = logprobs.gather(1, picks[:, None])[:, 0]
    return picks.tolist(), chosen.tolist()


def _descending(values: Tensor) -> Tensor:
    if values.device.type != "cpu":
        return torch.sort(values, dim=-1, descending=True).values
    return torch.from_numpy(np.sort(values.numpy(), axis=-1)).flip(
        -1
    )  # without indices: twenty times as fast


def _invert(probs: Tensor, u: Tensor) -> Tensor:
    """Index of the token in whose share of the cumulative distribution ``u`` falls, ``[rows]``."""
    cumulative = probs.cumsum(-1)
    index = torch.searchsorted(cumulative, (u * cumulative[:, -1])[:, None], right=True)[:, 0]
    return index.clamp_(max=probs.shape[-1] - 1)
