"""The nouns: what goes to disk comes back, and what is read off a trajectory."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cort_framework.testing import make_trajectory
from cort_framework.types import (
    Outcome,
    Reward,
    Task,
    ToolCall,
    ToolResult,
    Trajectory,
    Turn,
    Verdict,
    derive_seed,
)

texts = st.text(max_size=20)
numbers = st.floats(allow_nan=False)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
tables = st.dictionaries(texts, plain, max_size=3)
calls = st.builds(ToolCall, texts, st.none() | texts, st.none() | tables, st.integers(0, 20))
results = st.builds(
    ToolResult,
    st.sampled_from(Outcome),
    texts,
    st.floats(0, 100),
    st.integers(0, 10**6),
    st.booleans(),
    st.none() | texts,
)


@st.composite
def turns(draw: st.DrawFn) -> Turn:
    ids = tuple(draw(st.lists(st.integers(0, 200_000), max_size=8)))
    author = draw(st.sampled_from(("prompt", "model", "tool", "hint")))
    return Turn(
        author,
        ids,
        draw(texts),
        tuple(draw(numbers) for _ in ids) if author == "model" else None,
        draw(st.none() | st.integers(0, 100)),
        draw(calls) if author == "tool" else None,
        draw(results) if author == "tool" else None,
        draw(st.none() | texts),
    )


trajectories = st.builds(
    Trajectory,
    texts,
    st.builds(Task, texts, texts, st.none() | texts, tables),
    st.integers(0, 99),
    st.integers(0, 2**63 - 1),
    st.lists(turns(), max_size=5),
    st.sampled_from((None, "eos", "length", "deadline", "error", "rewound")),
    st.none() | texts,
    st.dictionaries(texts, st.builds(Reward, st.none() | numbers, numbers, st.none() | texts), max_size=3),
    st.lists(
        st.builds(Verdict, st.booleans(), texts, st.none() | st.tuples(st.integers(), st.integers()), texts),
        max_size=3,
    ),
    st.none() | texts,
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.floats(0, 1e6),
    tables,
)


@given(trajectories)
def test_a_trajectory_comes_back_from_json_equal(trajectory: Trajectory) -> None:
    line = trajectory.to_json()
    assert "\n" not in line
    assert Trajectory.from_json(line) == trajectory


def test_to_json_leaves_the_trajectory_as_it_was() -> None:
    trajectory = make_trajectory([("prompt", "p"), ("model", "m")])
    json.loads(trajectory.to_json())["turns"].clear()
    assert len(trajectory.turns) == 2


@given(st.lists(turns(), max_size=6))
def test_segments_lie_end_to_end_in_the_response(given_turns: list[Turn]) -> None:
    trajectory = Trajectory("t/0", Task("t", ""), turns=given_turns)
    position = 0
    for turn, start, end in trajectory.segments():
        assert start == position and trajectory.response[start:end] == turn.text
        position = end
    assert position == len(trajectory.response)
    assert trajectory.ids == [i for turn in given_turns for i in turn.ids]


def test_a_turn_with_a_log_prob_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match="3 ids but 2 log-probs"):
        Turn("model", (1, 2, 3), "abc", (-0.1, -0.2))


def test_seeds_are_the_same_on_every_machine_and_differ_by_every_part() -> None:
    assert derive_seed(0, "task", 3) == 2504513003128718599
    seeds = {derive_seed(*parts) for parts in ((0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2), (0, "a1"))}
    assert len(seeds) == 5 and all(0 <= s < 2**63 for s in seeds)


# --- what the model answered ------------------------------------------------------------------------------------
def final_text(*pieces: tuple[str, ...]) -> str:
    return make_trajectory(list(pieces)).final_text


def test_the_final_text_is_what_the_model_wrote_after_its_thinking() -> None:
    assert final_text(("prompt", "2+2?<think>"), ("model", "hm, 4</think>It is 4.")) == "It is 4."
    assert final_text(("prompt", "2+2?"), ("model", "<think>hm</think>a</think>b")) == "b"


def test_unfinished_thinking_has_no_final_text() -> None:
    assert final_text(("prompt", "2+2?<think>\n"), ("model", "4, so \\boxed{4}")) == ""
    assert final_text(("prompt", "2+2?"), ("model", "<think>4, so \\boxed{4}")) == ""


def test_a_model_that_does_not_think_answers_with_all_that_it_wrote() -> None:
    assert final_text(("prompt", "2+2?"), ("model", "It is 4.")) == "It is 4."
    assert final_text(("prompt", "2+2?<think>\n\n</think>\n\n"), ("model", "It is 4.")) == "It is 4."


def test_neither_tool_nor_hint_is_ever_in_the_final_text() -> None:
    ask, code = ("prompt", "2+2?<think>"), ("model", "a</think>b\n```python\n2+2\n```\n")
    assert "tool says" not in final_text(ask, code, ("tool", "tool says 4"), ("model", "c"))
    assert final_text(ask, code, ("tool", "4"), ("hint", "think again"), ("model", "c")).endswith("c")
    assert "think again" not in final_text(ask, code, ("hint", "think again"), ("model", "c"))


def test_an_end_of_thinking_that_a_tool_prints_is_none() -> None:
    ask, code = ("prompt", "2+2?<think>"), ("model", "a\n```python\nx\n```\n")
    assert final_text(ask, code, ("tool", "</think>"), ("model", "\\boxed{5}")) == ""


def test_generated_tokens_count_what_was_thrown_away_and_response_tokens_do_not() -> None:
    trajectory = make_trajectory([("prompt", "pp"), ("model", "mmm"), ("hint", "hhhh")], discarded_tokens=10)
    assert (trajectory.generated_tokens, trajectory.response_tokens) == (13, 7)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("task", "id"), 5),
        (("sample",), 10**30),
        (("sample",), True),
        (("seconds",), -1),
        (("seconds",), float("nan")),
        (("stop_reason",), "bored"),
        (("turns", 1, "author"), "nobody"),
        (("turns", 1, "ids"), ["a"]),
        (("turns", 1, "ids"), [0.5]),
        (("turns", 1, "text"), None),
        (("turns", 1, "logprobs"), ["x", 1]),
        (("turns", 2, "result", "outcome"), "well"),
        (("turns", 2, "call", "arguments"), "x"),
        (("rewards", "r", "value"), "1"),
        (("verdicts", 0, "span"), [1, "x"]),
        (("verdicts", 0, "span"), [1, 2, 3]),
        (("metadata",), None),
    ],
    ids=str,
)
def test_what_has_the_shape_of_a_trajectory_but_not_its_types_is_none(
    place: tuple[Any, ...], value: Any
) -> None:
    trajectory = make_trajectory([("prompt", "p"), ("model", "```python\n1\n```\n"), ("tool", "1")])
    trajectory.rewards, trajectory.verdicts = {"r": Reward(1.0)}, [Verdict(True, span=(0, 1))]
    data = json.loads(trajectory.to_json())
    assert Trajectory.from_json(json.dumps(data)) == trajectory
    *holders, last = place
    found = data
    for part in holders:
        found = found[part]
    found[last] = value
    with pytest.raises((ValueError, TypeError, AttributeError)):
        Trajectory.from_json(json.dumps(data))
