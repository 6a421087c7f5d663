"""Sequences of different lengths laid end to end in one row, so that nothing is computed for padding.

Exact, with any attention: positions begin anew with each sequence, and none sees another. Attention runs a sequence at a
time, with the fused causal kernel of the device, so its cost is that of the sequences one by one: a block-diagonal mask
would cost the square of the row. A model whose attention has more to it than that (sliding windows, sinks, soft caps)
keeps its own, with transformers' mask for packed rows or flash attention's sequence lengths. Which of them it is, and
that it keeps sequences apart, is tried on the model itself before it is trained.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

import cort_framework as cort

NAME = "cort_packed"


class Unsuited(Exception):
    """A model asks more of attention than ``packed_attention`` does; it keeps its own then."""


def packs(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Share samples among ``count`` rows of nearly equal length: the longest first, each to the shortest row so far.
    No row is empty where there are ``count`` samples or more."""
    rows: list[list[int]] = [[] for _ in range(count)]
    shortest = [(0, row) for row in range(count)]
    for sample in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length, row = heapq.heappop(shortest)
        rows[row].append(sample)
        heapq.heappush(shortest, (length + lengths[sample], row))
    return rows


def layout(lengths: Sequence[int], attention: str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What tells a model that its one row, ``[1, sum(lengths)]``, holds sequences of these lengths."""
    position_ids = torch.cat([torch.arange(n, device=device) for n in lengths])[None]
    if attention == NAME:
        return {"position_ids": position_ids, "sequences": tuple(lengths)}
    if not attention.startswith("flash"):
        return {"position_ids": position_ids}  # the mask is made from them
    ends = torch.tensor([0, *lengths], device=device).cumsum(0).to(torch.int32)
    return {
        "position_ids": position_ids,
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
    }


class PackedCollator:
    """Rows with ``input_ids``, ``labels`` and ``seq_lengths`` to a batch of one row."""

    def __init__(self, attention: str) -> None:
        self.attention = attention

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        together = {name: [x for row in rows for x in row[name]] for name in rows[0]}
        return {
            "input_ids": torch.tensor([together["input_ids"]]),
            "labels": torch.tensor([together["labels"]]),
            **layout(together["seq_lengths"], self.attention),
        }


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sequences: tuple[int, ...] | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **ignored: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls in every layer: causal, and within each sequence alone.

    ``query`` is ``[1, heads, tokens, head dim]``, ``key`` and ``value`` ``[1, kv heads, tokens, head dim]``.
    """
    if sliding_window is not None or softcap is not None or s_aux is not None:
        raise Unsuited("its attention has sliding windows, soft caps or sinks")
    if len(query) > 1:
        raise Unsuited(f"it has {len(query)} rows in one pass, and sequences are packed into one")
    lengths = list(sequences or (query.shape[2],))
    parts = [
        scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=True
        )
        for q, k, v in zip(
            query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True
        )
    ]
    output = parts[0] if len(parts) == 1 else torch.cat(parts, 2)
    return output.transpose(1, 2), None


AttentionInterface.register(NAME, packed_attention)


def prepare(model: Any) -> str:
    """Choose the attention for packed rows, and prove that no sequence in a row sees another; its name comes back.

    Raises ``RequestError`` where the model mixes them, as recurrent layers do.
    """
    usual = model.config._attn_implementation
    for name in (usual,) if usual.startswith("flash") else (NAME, usual):
        model.config._attn_implementation = name
        try:
            if _keeps_apart(model, name):
                return name
        except Unsuited:
            continue
    raise cort.RequestError(
        f"{type(model).__name__} does not keep packed sequences apart", "leave out packing = true"
    )


@torch.no_grad()
def _keeps_apart(model: Any, attention: str) -> bool:
    """What the second sequence of a row is given must not depend on what the first one is."""
    lengths, most = (7, 5), model.config.get_text_config().vocab_size - 1
    second = [(3 * i + 1) % most for i in range(lengths[1])]
    was_training = model.training
    model.eval()
    try:
        found = [
            model(
                input_ids=torch.tensor([[*first, *second]], device=model.device),
                use_cache=False,
                **layout(lengths, attention, model.device),
            ).logits[0, lengths[0] :]
            for first in (
                [i % most for i in range(lengths[0])],
                [(5 * i + 2) % most for i in range(lengths[0])],
            )
        ]
    finally:
        model.train(was_training)
    # not bit for bit: other tokens may go to other experts, in matrices of other sizes
    return torch.allclose(found[0], found[1], rtol=0, atol=1e-3 * float(found[0].abs().max()))
