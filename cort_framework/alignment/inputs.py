"""What a trainer is fed, held against the trajectory that it is made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

from cort_framework.alignment.findings import Boundary, Finding, quoted
from cort_framework.interfaces import Tokenizer
from cort_framework.types import Trajectory

AUTHORS: Mapping[str, Boundary] = {"prompt": "prompt", "tool": "output", "hint": "hint"}


def check_inputs(
    trajectory: Trajectory, ids: Sequence[int], trained: Sequence[int], who: str, tokenizer: Tokenizer
) -> Iterator[Finding]:
    """The same ids, and a loss on all of an author's tokens or on none; on the model's always, its last one included.

    The very first token carries none in any case: nothing predicts it.
    """
    for index, (sampled, fed) in enumerate(zip_longest(trajectory.ids, ids)):
        if sampled != fed:
            have, get = (
                "nothing" if i is None else f"{quoted(tokenizer.decode([i]))} (id {i})"
                for i in (sampled, fed)
            )
            text = f"{who}: token {index} is {have} in the rollout and {get} in what it is fed"
            yield Finding(
                boundary_of(trajectory, index), "fault", text, f"mend `inputs` and `train` of {who}"
            )
            return
    authors = [turn.author for turn in trajectory.turns for _ in turn.ids]
    learnt = {"model"} | {a for a, on in zip(authors[1:], trained[1:], strict=True) if on}
    for index, (author, on) in enumerate(zip(authors, trained, strict=True)):
        if index and bool(on) != (author in learnt):
            token = quoted(tokenizer.decode([trajectory.ids[index]]))
            text = (
                f"{who}: token {index}, {token}, written by the {author}, carries {'a' if on else 'no'} loss"
            )
            yield Finding(
                boundary_of(trajectory, index), "fault", text, f"mend `inputs` and `train` of {who}"
            )
            return
    for author in dict.fromkeys(authors):
        what = "learnt" if author in learnt else "no loss on it"
        yield Finding(AUTHORS.get(author, "end"), "ok", f"{who}: {what}")


def boundary_of(trajectory: Trajectory, index: int) -> Boundary:
    """Where in the trajectory a token stands: the model's at a call belong to the fence, its very last is the end."""
    last = len(trajectory.turns) - 1
    for number, turn in enumerate(trajectory.turns):
        if index < len(turn.ids):
            if turn.author != "model":
                return AUTHORS[turn.author]
            if number == last:
                return "end" if index == len(turn.ids) - 1 else "thinking"
            return "fence" if trajectory.turns[number + 1].author == "tool" else "thinking"
        index -= len(turn.ids)
    return "end"
