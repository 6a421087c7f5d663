"""What sampling takes, in bytes of tensors. Nothing is started and no library is loaded for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cort_framework.machine.footprint import BYTES, Footprint, Need, Work

if TYPE_CHECKING:
    from cort_transformers.engine import TransformersEngine

SHORT, STEP = 256, 2048
"""Positions that the store of keys and values begins with, and the most that it grows by (``attention.Slots``)."""
READ_AT_ONCE = 256
"""Prompt tokens in a forward pass at most (``decoder``)."""
SAMPLING_BYTES = 53
"""``sampling.sample``, of a row and a token of the vocabulary: log-probs in single, and all that top-p sorts, sums and
cuts in double precision."""


def room(length: int) -> int:
    """Positions that the store has for sequences of this length: doubled while it is short, then step by step, so that a
    prompt that goes a little beyond 16,384 does not take twice as much."""
    found = SHORT
    while found < length:
        found += min(found, STEP)
    return found


def footprint(config: TransformersEngine.Config, work: Work) -> Footprint:
    """At the worst moment of ``work.at_once`` trajectories of ``work.longest`` tokens."""
    model, longest = work.model, work.longest
    if model is None or longest is None:
        return Footprint()
    number = BYTES[model.dtype if config.dtype == "auto" or work.lent else config.dtype]
    token = model.key_value_bytes(number)
    length = room(longest)
    slots = config.max_batch + 1  # one for padding
    kept = config.keep_mb << 20
    if work.sequences is not None:
        kept = min(kept, work.sequences * longest * token)
    rows = min(config.max_batch, work.at_once)
    tokens = rows + READ_AT_ONCE
    layer = 2 * model.hidden + 2 * model.heads * model.head_dim + 3 * model.intermediate
    # to grow, the store is copied: both are there, but no forward pass is under way
    grow = 0 if length == SHORT else slots * (length - min(STEP, length // 2)) * token
    logits = model.vocabulary * (tokens * number + rows * (number + SAMPLING_BYTES))
    if grow > logits + tokens * layer * number:
        working = [Need("keys and values while they grow", grow, change="max_batch")]
    else:
        working = [
            Need("logits and sampling", logits, change="max_batch"),
            Need("one layer's activations", tokens * layer * number),
        ]
    needs = [
        Need("keys and values", slots * length * token, "awake", "max_batch"),
        Need("keys and values of those that wait for a tool", kept, "awake", "keep_mb"),
        *working,
    ]
    if not work.lent:
        # asleep, they leave a GPU, but not the machine's memory
        held = "awake" if work.device.gpu else "always"
        smaller = "dtype" if number > 2 else ""
        needs.insert(0, Need("weights", model.parameters * number, held, smaller))
    return Footprint(memory=tuple(need for need in needs if need.bytes))
