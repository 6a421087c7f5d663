"""Keys and values of many sequences of different lengths, and the attention over them.

Every token of a forward pass is a batch row of its own, ``input_ids`` of shape ``[tokens, 1]``: one token for each
sequence that decodes, and as many as fit for each that reads its prompt. There is no padding between them, and a
token's arithmetic is the same whether it is read or sampled, alone or in company:

- linear layers see one ``[tokens, features]`` matrix, and a row of a matrix product does not depend on how many rows
  there are (from 16 rows on; ``decoder.MINIMUM_WIDTH``);
- attention runs a query at a time over its own keys, padded with keys of weight zero to a length at which the order of summation stays the same.

``decoder.Decoder`` does not take this on trust: it checks it on the machine that it runs on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "cort_slots"
GRAIN, BLOCK = 64, 256


@dataclass(frozen=True)
class Chunk:
    """A piece of a sequence to read: tokens ``[first, first + count)`` of the batch, seen by ``mask``
    ``[count, 1, 1, length]``."""

    slot: int
    first: int
    count: int
    length: int
    mask: Tensor


@dataclass(frozen=True)
class Batch:
    """One forward pass. Tokens ``0 .. rows - 1`` are one each of the slots ``0 .. rows - 1``; the chunks follow, then
    padding, which is written to a slot that nobody reads."""

    ids: Tensor
    """``[tokens, 1]``"""
    positions: Tensor
    """``[tokens, 1]``: where in its sequence each token stands."""
    slots: Tensor
    """``[tokens]``: whose sequence it is."""
    rows: int
    length: int
    """Keys that the first ``rows`` tokens look at."""
    mask: Tensor
    """``[rows, 1, 1, length]``, additive."""
    chunks: Sequence[Chunk]


class Slots:
    """Room for the keys and values of ``count`` sequences, ``[layers, 2, count + 1, kv heads, length, head dim]``.

    It grows in length with the longest sequence, never in the number of slots. Slot ``count`` is for padding.
    """

    def __init__(self, count: int, layers: int) -> None:
        self.count = count
        self.layers = layers
        self.store: Tensor | None = None
        self.length = 4 * GRAIN

    def reserve(self, length: int) -> None:
        """Make room for sequences of ``length`` tokens."""
        if length <= self.length:
            return
        while self.length < length:
            self.length *= 2
        if self.store is not None:
            grown = self.store.new_zeros(*self.store.shape[:4], self.length, self.store.shape[5])
            grown[..., : self.store.shape[4], :] = self.store
            self.store = grown

    def write(self, layer: int, batch: Batch, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put ``[tokens, kv heads, head dim]`` in their places; the layer's whole store comes back."""
        if self.store is None:
            # zeros, not empty: a masked key has weight zero, and zero times what was never written may be no number
            self.store = key.new_zeros(
                self.layers, 2, self.count + 1, key.shape[1], self.length, key.shape[2]
            )
        keys, values = self.store[layer, 0], self.store[layer, 1]
        positions = batch.positions[:, 0]
        keys[batch.slots, :, positions] = key
        values[batch.slots, :, positions] = value
        return keys, values

    def copy(self, source: int, target: int, length: int) -> None:
        """The first ``length`` positions of one slot into another."""
        if length and self.store is not None and source != target:
            self.store[:, :, target, :, :length] = self.store[:, :, source, :, :length]

    def take(self, slot: int, length: int) -> Tensor:
        """A copy of a slot's first positions, ``[layers, 2, kv heads, length, head dim]``."""
        assert self.store is not None
        return self.store[:, :, slot, :, :length].clone()

    def put(self, slot: int, saved: Tensor, length: int) -> None:
        """What ``take`` gave, as far as ``length``, into a slot."""
        assert self.store is not None
        self.store[:, :, slot, :, :length] = saved[..., :length, :]


def slot_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    slots: Slots,
    batch: Batch,
    **ignored: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls in every layer.

    ``query`` is ``[tokens, heads, 1, head dim]``, ``key`` and ``value`` ``[tokens, kv heads, 1, head dim]``. The query
    heads that share a key-value head go in as so many query positions, so that no key is copied for them.
    """
    tokens, heads, _, width = query.shape
    keys, values = slots.write(int(module.layer_idx), batch, key[:, :, 0], value[:, :, 0])  # type: ignore[arg-type]
    grouped = query.view(tokens, keys.shape[1], heads // keys.shape[1], width)
    n, length = batch.rows, batch.length
    parts = [
        scaled_dot_product_attention(
            grouped[:n], keys[:n, :, :length], values[:n, :, :length], batch.mask, scale=scaling
        )
    ]
    for chunk in batch.chunks:
        parts.append(
            scaled_dot_product_attention(
                grouped[chunk.first : chunk.first + chunk.count],
                keys[chunk.slot, None, :, : chunk.length].expand(chunk.count, -1, -1, -1),
                values[chunk.slot, None, :, : chunk.length].expand(chunk.count, -1, -1, -1),
                chunk.mask,
                scale=scaling,
            )
        )
    seen = sum(len(part) for part in parts)
    if seen < tokens:
        parts.append(grouped[seen:])  # padding: any finite number will do
    output = parts[0] if len(parts) == 1 else torch.cat(parts)
    return output.reshape(tokens, 1, heads, width), None


AttentionInterface.register(NAME, slot_attention)


def lay_out(
    reads: Sequence[tuple[Sequence[int], int]],
    *,
    width: int,
    spare_slot: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Batch:
    """The batch in which slot ``i`` reads ``reads[i] = (ids, position of the first of them)``, padded to ``width``."""
    ids = [row[-1] for row, _ in reads]
    positions = [first + len(row) - 1 for row, first in reads]
    slots = list(range(len(reads)))
    spans: list[tuple[int, int, int, int]] = []
    for slot, (row, first) in enumerate(reads):
        if len(row) > 1:
            spans.append((slot, len(ids), len(row) - 1, first))
            ids += row[:-1]
            positions += range(first, first + len(row) - 1)
            slots += [slot] * (len(row) - 1)
    padding = max(0, width - len(ids))
    ids += [0] * padding
    positions += [0] * padding
    slots += [spare_slot] * padding

    where = torch.tensor(positions, device=device)
    length = _padded(max(positions[: len(reads)]) + 1)

    def mask(first: int, count: int, keys: int) -> Tensor:
        visible = torch.arange(keys, device=device) <= where[first : first + count, None]
        return torch.zeros(count, keys, device=device, dtype=dtype).masked_fill_(~visible, float("-inf"))[
            :, None, None
        ]

    chunks = [
        Chunk(slot, start, count, keys := _padded(first + count), mask(start, count, keys))
        for slot, start, count, first in spans
    ]
    return Batch(
        ids=torch.tensor(ids, device=device)[:, None],
        positions=where[:, None],
        slots=torch.tensor(slots, device=device),
        rows=len(reads),
        length=length,
        mask=mask(0, len(reads), length),
        chunks=chunks,
    )


def _padded(length: int) -> int:
    """Keys are summed in blocks of 256; a rest between 257 and 511 would be cut in two at a place that moves with it."""
    grain = GRAIN if length <= BLOCK else BLOCK
    return -(-length // grain) * grain
