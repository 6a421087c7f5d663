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

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from cort_transformers.memory import room

NAME = "cort_slots"
GRAIN, BLOCK = 64, 256


@dataclass(frozen=True)
class Span:
    """Tokens ``[first, first + count)`` of the batch that attend in one call: one each of as many slots from ``slot`` on,
    or (``one_slot``) all of the sequence in ``slot``."""

    first: int
    count: int
    slot: int
    one_slot: bool
    length: int
    """Keys that are looked at."""
    mask: Tensor
    """``[count, 1, 1, length]``, additive."""


@dataclass(frozen=True)
class Batch:
    """One forward pass. Tokens ``0 .. rows - 1`` are one each of the slots ``0 .. rows - 1``; what else is read follows,
    then padding, which is written to a slot that nobody reads."""

    ids: Tensor
    """``[tokens, 1]``"""
    positions: Tensor
    """``[tokens, 1]``: where in its sequence each token stands."""
    slots: Tensor
    """``[tokens]``: whose sequence it is."""
    spans: Sequence[Span]
    """In the order of their tokens; only padding is in none."""


class Slots:
    """Room for the keys and values of ``count`` sequences, ``[layers, 2, count + 1, kv heads, length, head dim]``.

    It grows in length with the longest sequence, never in the number of slots. Slot ``count`` is for padding.
    """

    def __init__(self, count: int, layers: int) -> None:
        self.count = count
        self.layers = layers
        self.store: Tensor | None = None
        self.length = room(1)

    def reserve(self, length: int) -> None:
        """Make room for sequences of ``length`` tokens."""
        if length <= self.length:
            return
        self.length = room(length)
        if self.store is not None:
            grown = self.store.new_zeros(*self.store.shape[:4], self.length, self.store.shape[5])
            grown[..., : self.store.shape[4], :] = self.store
            self.store = grown

    def write(self, layer: int, batch: Batch, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put ``[tokens, kv heads, head dim]`` in their places; the layer's whole store comes back."""
        if self.store is None:
            # zeros, not empty: a masked key has weight zero, and zero times what was never written may be no number
            self.store = value.new_zeros(
                self.layers, 2, self.count + 1, key.shape[1], self.length, key.shape[2]
            )
        keys, values = self.store[layer, 0], self.store[layer, 1]
        positions = batch.positions[:, 0]
        keys[batch.slots, :, positions] = key.to(keys.dtype)  # under autocast, rotation makes it float32
        values[batch.slots, :, positions] = value
        return keys, values

    def copy(self, source: int, target: int, length: int) -> None:
        """The first ``length`` positions of one slot into another."""
        if length and self.store is not None and source != target:
            self.store[:, :, target, :, :length] = self.store[:, :, source, :, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        """Exchange the first ``length`` positions of two slots."""
        if self.store is not None:
            saved = self.take(one, length)
            self.copy(other, one, length)
            self.put(other, saved, length)

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
    parts = []
    for span in batch.spans:
        slots_read = slice(span.slot, span.slot + (1 if span.one_slot else span.count))
        part = scaled_dot_product_attention(
            grouped[span.first : span.first + span.count],
            keys[slots_read, :, : span.length].expand(span.count, -1, -1, -1),
            values[slots_read, :, : span.length].expand(span.count, -1, -1, -1),
            span.mask,
            scale=scaling,
        )
        parts.append(part)
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
    """The batch in which slot ``i`` reads ``reads[i] = (ids, position of the first of them)``, padded to ``width``.

    Neighbouring slots with keys of one ``padded`` length attend together: sort the slots by it.
    """
    ids = [row[-1] for row, _ in reads]
    positions = [first + len(row) - 1 for row, first in reads]
    slots = list(range(len(reads)))
    pieces: list[tuple[int, int, int, bool, int]] = []
    for length, run in itertools.groupby(slots, key=lambda slot: padded(positions[slot] + 1)):
        members = list(run)
        pieces.append((members[0], len(members), members[0], False, length))
    for slot, (row, first) in enumerate(reads):
        if (more := len(row) - 1) > 0:
            pieces.append((len(ids), more, slot, True, padded(first + more)))
            ids += row[:-1]
            positions += range(first, first + more)
            slots += [slot] * more
    padding = max(0, width - len(ids))
    where = torch.tensor(positions + [0] * padding, device=device)

    def mask(first: int, count: int, length: int) -> Tensor:
        hidden = torch.arange(length, device=device) > where[first : first + count, None]
        return torch.zeros(count, length, device=device, dtype=dtype).masked_fill_(hidden, float("-inf"))[
            :, None, None
        ]

    return Batch(
        ids=torch.tensor(ids + [0] * padding, device=device)[:, None],
        positions=where[:, None],
        slots=torch.tensor(slots + [spare_slot] * padding, device=device),
        spans=[
            Span(first, count, slot, one_slot, length, mask(first, count, length))
            for first, count, slot, one_slot, length in pieces
        ],
    )


def padded(length: int) -> int:
    """Keys are summed in blocks of 256; a rest between 257 and 511 would be cut in two at a place that moves with it."""
    grain = GRAIN if length <= BLOCK else BLOCK
    return -(-length // grain) * grain
