"""Continuous batching: rows that end are replaced at once, and no row waits for another.

One ``step`` is one forward pass over a token of every row that decodes and a piece of every prompt that is being
read. A row that ends frees its slot in the same step; the last slot moves into the hole, so live rows are always slots
``0 .. n - 1`` and nothing is computed for a row that is gone. The keys and values of what a row leaves behind are
kept: a trajectory that comes back from a tool call, or a sample of a prompt that another sample has read, reads
only what is new. All of it is exact: see ``attention`` for why no bit of a row depends on any of this.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from cort_framework import Generation, Sampling
from cort_framework.errors import EngineError
from cort_transformers.attention import NAME, Slots, lay_out, padded
from cort_transformers.sampling import sample, uniform
from cort_transformers.tokenizer import StopWatch

MINIMUM_WIDTH = 16
"""Tokens in a forward pass at least. Matrix products of fewer rows take other paths, with other roundings."""
WIDTH_GRAIN = 8
"""A forward pass has a multiple of so many tokens, so that no element of an elementwise operation falls into the
remainder of a vectorised loop, where sines and exponentials are computed by another routine."""
READ_AT_ONCE = 256
"""Prompt tokens a step at most: more would hold up the rows that decode."""
WORTH_WAITING = 32
"""A prompt waits for another that is being read if it can copy this many more tokens from it."""


@dataclass
class Row:
    """One stretch that is being generated."""

    ids: list[int]
    sampling: Sampling
    eos_ids: frozenset[int]
    future: Future[Generation] = field(default_factory=Future)
    prompt: int = 0
    computed: int = 0
    """Positions whose keys and values are in the slot."""
    logprobs: list[float] = field(default_factory=list)
    generation: Generation | None = None
    """There when the row has ended."""

    def __post_init__(self) -> None:
        self.prompt = len(self.ids)


class Decoder:
    """Runs rows over one model. Not thread-safe: one thread calls ``submit`` and ``step``."""

    def __init__(
        self, model: Any, stops: StopWatch, *, max_batch: int, keep_bytes: int, version: int = 0
    ) -> None:
        self.model = model
        self.stops = stops
        self.max_batch = max_batch
        self.version = version
        self.width: int | None = None
        """Where set, every forward pass has exactly this many tokens."""
        self.context = int(getattr(model.config, "max_position_embeddings", 1 << 30))
        self.pending: deque[Row] = deque()
        self.rows: list[Row] = []
        self._slots = Slots(max_batch, model.config.num_hidden_layers)
        self._kept = _Kept(keep_bytes)

    @property
    def idle(self) -> bool:
        return not self.rows and not self.pending

    @property
    def number_format(self) -> str:
        """What it computes in: a trainer's module may do so in another format than its weights have (autocast)."""
        dtype = self.model.dtype if self._slots.store is None else self._slots.store.dtype
        return str(dtype).removeprefix("torch.")

    def submit(self, row: Row) -> None:
        self.pending.append(row)

    def step(self) -> list[Row]:
        """One forward pass; the rows that ended in it come back. Raises ``EngineError`` on logits that are no numbers."""
        self._drop_cancelled()
        self._admit()
        if not self.rows:
            return []
        self._arrange()
        budget = READ_AT_ONCE if self.width is None else self.width - len(self.rows)
        reads: list[tuple[list[int], int]] = []
        for row in self.rows:
            extra = min(len(row.ids) - row.computed - 1, budget)
            budget -= extra
            reads.append((row.ids[row.computed : row.computed + extra + 1], row.computed))
        logits = self._forward(reads)

        ready: list[int] = []
        for slot, (row, (ids, _)) in enumerate(zip(self.rows, reads, strict=True)):
            row.computed += len(ids)
            if row.computed == len(row.ids):
                ready.append(slot)
        if not ready:
            return []
        settings = [self.rows[slot].sampling for slot in ready]
        tokens, logprobs = sample(
            logits[ready],
            [s.temperature for s in settings],
            [s.top_p for s in settings],
            [uniform(s.seed, len(self.rows[slot].ids)) for s, slot in zip(settings, ready, strict=True)],
        )
        if not all(map(math.isfinite, logprobs)):
            raise EngineError(
                "the model's logits are no numbers",
                "the weights are broken: look at the loss of the training before",
            )
        done: list[tuple[int, Literal["eos", "stop", "length"]]] = []
        for slot, token, logprob in zip(ready, tokens, logprobs, strict=True):
            row = self.rows[slot]
            row.ids.append(token)
            row.logprobs.append(logprob)
            reason = self._reason_to_stop(row)
            if reason is not None:
                done.append((slot, reason))
        return [self._finish(slot, reason) for slot, reason in reversed(done)]

    def run(self, rows: Sequence[Row]) -> list[Generation]:
        """Generate all of these, and what else was submitted."""
        for row in rows:
            self.submit(row)
        while not self.idle:
            self.step()
        return [row.generation for row in rows if row.generation is not None]

    def abandon(self) -> list[Row]:
        """Drop every row that is live or waits, and all that was computed; the rows come back."""
        rows = [*self.rows, *self.pending]
        self.rows.clear()
        self.pending.clear()
        self.release()
        return rows

    def forget(self) -> None:
        """Drop what was computed with earlier weights. No row may be live."""
        assert self.idle
        self._kept = _Kept(self._kept.limit)

    def release(self) -> None:
        """Give the device's memory back."""
        self.forget()
        self._slots = Slots(self.max_batch, self._slots.layers)

    # --- a row's life -----------------------------------------------------------------------------------------
    def _admit(self) -> None:
        waiting: list[Row] = []
        while self.pending and len(self.rows) < self.max_batch:
            row = self.pending.popleft()
            if row.future.cancelled():
                continue
            usable = len(row.ids) - 1  # the last token is computed in any case: its logits are wanted
            live, soon = 0, 0
            for slot, other in enumerate(self.rows):
                shared = _common_prefix(row.ids, other.ids)
                soon = max(soon, min(shared, usable))
                if (have := min(shared, usable, other.computed)) > live:
                    live, donor = have, slot
            saved, kept = self._kept.find(row.ids, usable)
            if soon >= max(live, kept) + WORTH_WAITING:
                waiting.append(row)
                continue
            self._slots.reserve(min(len(row.ids) + row.sampling.max_tokens, self.context))
            slot = len(self.rows)
            if kept > live and saved is not None:
                self._slots.put(slot, saved, kept)
            elif live:
                self._slots.copy(donor, slot, live)
            row.computed = max(live, kept)
            self.rows.append(row)
        self.pending.extendleft(reversed(waiting))

    def _reason_to_stop(self, row: Row) -> Literal["eos", "stop", "length"] | None:
        if row.ids[-1] in row.eos_ids:
            return "eos"
        if self.stops.hit(row.ids, row.sampling.stop):
            return "stop"
        if len(row.logprobs) >= row.sampling.max_tokens or len(row.ids) >= self.context:
            return "length"
        return None

    def _finish(self, slot: int, reason: Literal["eos", "stop", "length"]) -> Row:
        row = self.rows[slot]
        if reason != "eos" and row.computed:
            self._kept.add(row.ids[: row.computed], self._slots.take(slot, row.computed))
        self._remove(slot)
        row.generation = Generation(tuple(row.ids[row.prompt :]), tuple(row.logprobs), reason, self.version)
        return row

    def _remove(self, slot: int) -> None:
        last = self.rows.pop()
        if slot < len(self.rows):
            self._slots.copy(len(self.rows), slot, last.computed)
            self.rows[slot] = last

    def _arrange(self) -> None:
        """Longest rows in the first slots, so that short ones do not attend over the length of long ones. A row moves a
        few times in its life."""
        lengths = [padded(row.computed + 1) for row in self.rows]
        if all(a >= b for a, b in itertools.pairwise(lengths)):
            return
        for slot in range(len(lengths)):
            while (
                longer := max(
                    (i for i in range(slot + 1, len(lengths)) if lengths[i] > lengths[slot]), default=0
                )
            ) > 0:
                self._slots.swap(slot, longer, max(self.rows[slot].computed, self.rows[longer].computed))
                self.rows[slot], self.rows[longer] = self.rows[longer], self.rows[slot]
                lengths[slot], lengths[longer] = lengths[longer], lengths[slot]

    def _drop_cancelled(self) -> None:
        for slot in reversed(range(len(self.rows))):
            if self.rows[slot].future.cancelled():
                self._remove(slot)

    # --- the model --------------------------------------------------------------------------------------------
    def _forward(self, reads: Sequence[tuple[list[int], int]]) -> Tensor:
        """Logits after the last token of each read, ``[rows, vocabulary]``."""
        tokens = sum(len(ids) for ids, _ in reads)
        batch = lay_out(
            reads,
            width=self.width or max(MINIMUM_WIDTH, -(-tokens // WIDTH_GRAIN) * WIDTH_GRAIN),
            spare_slot=self._slots.count,
            device=self.model.device,
            dtype=self.model.dtype,
        )
        with serving(self.model):
            output = self.model(
                input_ids=batch.ids,
                position_ids=batch.positions,
                use_cache=False,
                slots=self._slots,
                batch=batch,
            )
        logits: Tensor = output.logits[: len(reads), 0]
        return logits


@contextmanager
def serving(model: Any, attention: str = NAME) -> Iterator[None]:
    """The model as it samples: no gradients, no dropout, our attention. Afterwards it is as it was, so that a trainer's
    own module can be lent in the middle of its training."""
    config, was_training = model.config, model.training
    usual = config._attn_implementation
    try:
        config._attn_implementation = attention
        if was_training:
            model.eval()
        with torch.no_grad():
            yield
    finally:
        config._attn_implementation = usual
        if was_training:
            model.train()


class _Kept:
    """Keys and values of sequences that are not live, the least recently used dropped first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self.entries: list[tuple[list[int], Tensor]] = []

    def add(self, ids: list[int], saved: Tensor) -> None:
        for at, (other, old) in enumerate(self.entries):
            if len(other) <= len(ids) and ids[: len(other)] == other:
                self.size -= old.nbytes
                del self.entries[at]
                break
        self.entries.append((ids, saved))
        self.size += saved.nbytes
        while self.size > self.limit and self.entries:
            self.size -= self.entries.pop(0)[1].nbytes

    def find(self, ids: Sequence[int], at_most: int) -> tuple[Tensor | None, int]:
        """What shares the longest prefix with ``ids``, and how long that is."""
        best, found, place = 0, None, 0
        for at, (other, saved) in enumerate(self.entries):
            if len(other) > best and other[best] == ids[best]:
                shared = min(_common_prefix(ids, other), at_most)
                if shared > best:
                    best, found, place = shared, saved, at
            if best == at_most:
                break
        if found is not None:
            self.entries.append(self.entries.pop(place))
        return found, best


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    low, high = 0, n  # a[:low] is shared, a[:high] is not
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
