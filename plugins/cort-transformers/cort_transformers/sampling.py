"""From logits to tokens. The noise is a function of (seed, position), never of what else is in the batch."""

from __future__ import annotations

from collections.abc import Sequence

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

    ``logits`` is ``[rows, vocabulary]``. A row's token is the inverse of its cumulative distribution at its noise:
    over the vocabulary in order at ``top_p`` 1, over the smallest set of likeliest tokens that holds ``top_p`` below
    it. Temperature 0 takes the likeliest token. The log-probability is that of the full softmax at the row's
    temperature (1 for temperature 0), before ``top_p`` cuts anything: the quantity that a trainer recomputes.
    """
    device = logits.device
    scale = torch.tensor([t if t > 0 else 1.0 for t in temperatures], device=device)
    logprobs = torch.log_softmax(logits.float() / scale[:, None], dim=-1)
    u = torch.tensor(noise, device=device, dtype=torch.float64)

    picks = _invert(logprobs.double().exp(), u)
    cut = [i for i, p in enumerate(top_ps) if p < 1 and temperatures[i] > 0]
    if cut:
        rows = torch.tensor(cut, device=device)
        top = torch.tensor([top_ps[i] for i in cut], device=device, dtype=torch.float64)
        probs, order = torch.sort(logprobs[rows], dim=-1, descending=True, stable=True)
        probs = probs.double().exp()
        before = probs.cumsum(-1) - probs
        picks[rows] = order.gather(1, _invert(probs * (before < top[:, None]), u[rows])[:, None])[:, 0]
    greedy = [i for i, t in enumerate(temperatures) if t <= 0]
    if greedy:
        rows = torch.tensor(greedy, device=device)
        picks[rows] = logprobs[rows].argmax(-1)
    chosen = logprobs.gather(1, picks[:, None])[:, 0]
    return picks.tolist(), chosen.tolist()


def _invert(probs: Tensor, u: Tensor) -> Tensor:
    """Index of the token in whose share of the cumulative distribution ``u`` falls, ``[rows]``."""
    cumulative = probs.cumsum(-1)
    index = torch.searchsorted(cumulative, (u * cumulative[:, -1])[:, None], right=True)[:, 0]
    return index.clamp_(max=probs.shape[-1] - 1)
