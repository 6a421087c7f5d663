"""What ``check_tokens`` says of trainers that feed a model something else, and of recipes with few parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from scripted import Language

from cort_framework.alignment import Finding, check_tokens
from cort_framework.interfaces import Trainer
from cort_framework.recipe.settings import PROMPTS
from cort_framework.rendering import render
from cort_framework.testing import ByteTokenizer
from cort_framework.types import Trajectory

TOOLS = [Language("python")]


class Feeds(Trainer):
    """Feeds what it is told to."""

    name = "feeds"

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.change = change

    def inputs(self, trajectory: Trajectory) -> tuple[Sequence[int], Sequence[int]]:
        seen = render(trajectory)
        self.change(trajectory, seen.input_ids, seen.mask)
        return seen.input_ids, seen.mask

    def train(self, context: Any) -> Any:
        raise NotImplementedError


def fault(change: Any) -> Finding:
    found = check_tokens(ByteTokenizer(), PROMPTS, TOOLS, {"sft": Feeds(change)})
    (one,) = (f for f in found if f.level == "fault")
    return one


def at(trajectory: Trajectory, author: str, offset: int = 0) -> int:
    """The token ``offset`` of the first turn by this author."""
    number = next(n for n, turn in enumerate(trajectory.turns) if turn.author == author)
    return sum(len(turn.ids) for turn in trajectory.turns[:number]) + offset


@pytest.mark.parametrize(
    ("author", "boundary"),
    [("prompt", "prompt"), ("model", "thinking"), ("hint", "hint"), ("tool", "output")],
)
def test_another_token_than_the_sampled_one_is_shown_with_its_boundary(author: str, boundary: str) -> None:
    def change(trajectory: Trajectory, ids: list[int], mask: list[int]) -> None:
        ids[at(trajectory, author, 1)] = ord("#")

    one = fault(change)
    assert one.boundary == boundary
    assert "feeds (sft): token" in one.text and 'and "#" (id 35) in what it is fed' in one.text


def test_a_trainer_that_cuts_a_trajectory_short_is_shown_where() -> None:
    one = fault(lambda trajectory, ids, mask: (ids.pop(), mask.pop()))
    assert (
        one.boundary == "end"
        and 'is "<|end|>" (id 256) in the rollout and nothing in what it is fed' in one.text
    )


def test_an_end_that_is_not_learnt_is_a_fault() -> None:
    one = fault(lambda trajectory, ids, mask: mask.__setitem__(-1, 0))
    assert one.boundary == "end" and one.text.endswith('"<|end|>", written by the model, carries no loss')


def test_a_mask_that_is_one_token_late_is_a_fault() -> None:
    one = fault(lambda trajectory, ids, mask: mask.insert(0, mask.pop()))
    assert one.level == "fault" and "loss" in one.text


def test_an_author_that_is_learnt_as_a_whole_is_no_fault_but_said() -> None:
    def change(trajectory: Trajectory, ids: list[int], mask: list[int]) -> None:
        mask[:] = [1] * len(mask)

    found = check_tokens(ByteTokenizer(), PROMPTS, TOOLS, {"sft": Feeds(change)})
    assert {f.level for f in found} <= {"ok", "note"}
    assert any(f.boundary == "output" and f.text == "feeds (sft): learnt" for f in found)


@pytest.mark.parametrize(
    "tools",
    [[], [Language("python")], [Language("sum", parameters={"type": "object"})]],
    ids=["no tool", "a fence", "fence and native"],
)
@pytest.mark.parametrize(
    "words", [(), ("`\n\n",), ("```\n\nNo", ", by", "```python\nprint"), ("<tool_call>\n",)]
)
def test_nothing_but_the_trainer_is_at_fault_whatever_the_tools_and_the_tokens(
    tools: Any, words: tuple[str, ...]
) -> None:
    found = check_tokens(ByteTokenizer(words), {**PROMPTS, "native": "{tools}\n{problem}"}, tools)
    assert [f for f in found if f.level == "fault"] == []
