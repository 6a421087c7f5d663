"""What plugin authors test with: the scripted engine keeps an engine's contract, and the checks find what breaks one."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cort_framework as cort
from cort_framework.registry import Registry
from cort_framework.testing import (
    ByteTokenizer,
    check_engine,
    check_filter,
    check_injector,
    check_reward,
    check_tool,
    make_trajectory,
    sample_trajectories,
    says,
    scripted_engine,
)

WORDS = ("`\n\n", "print(", "<think>")


@given(st.text(max_size=20) | st.lists(st.sampled_from([*WORDS, "é", "a"])).map("".join))
def test_the_byte_tokenizer_decodes_what_it_encoded(text: str) -> None:
    tokenizer = ByteTokenizer(WORDS)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def generate(script: Any, response: str = "", **sampling: Any) -> tuple[str, str]:
    engine = scripted_engine(script)()
    ids = [
        *engine.tokenizer.apply_chat_template([{"role": "user", "content": "Q"}]),
        *engine.tokenizer.encode(response),
    ]
    result = asyncio.run(engine.generate(ids, cort.Sampling(**sampling)))
    return engine.tokenizer.decode(result.ids), result.stop


def test_the_scripted_engine_honours_stop_strings_the_limit_and_the_end() -> None:
    script = says("ab```\ncd")
    assert generate(script) == ("ab```\ncd<|end|>", "eos")
    assert generate(script, stop=("```\n",)) == ("ab```\n", "stop")
    assert generate(script, max_tokens=3) == ("ab`", "length")
    assert generate(script, response="ab```\n") == ("cd<|end|>", "eos")


def test_a_script_goes_to_its_next_stretch_after_each_tool_output() -> None:
    script = says("one", "two")
    assert generate(script, response="one\n```output\n1\n```\n")[0] == "two<|end|>"
    assert generate(script, response="one\n```output\n1\n```\ntw")[0] == "o<|end|>"


def test_the_scripted_engine_passes_the_engine_s_own_contract() -> None:
    assert check_engine(scripted_engine(says("yes")), "any").stop == "eos"


def test_pieces_become_a_trajectory_with_its_calls() -> None:
    trajectory = make_trajectory(
        [
            ("prompt", "Q"),
            ("model", "```python\n1/0\n```\n"),
            ("tool", "ZeroDivisionError", "program_error"),
            ("hint", "Hm. "),
            ("model", "0"),
        ]
    )
    assert trajectory.response == "```python\n1/0\n```\n```output\nZeroDivisionError\n```\nHm. 0"
    assert trajectory.calls[0].call == cort.ToolCall("python", "1/0\n", index=0)
    assert trajectory.calls[0].result == cort.ToolResult(cort.Outcome.PROGRAM_ERROR, "ZeroDivisionError")
    assert trajectory.finished
    assert cort.Trajectory.from_json(trajectory.to_json()) == trajectory


class Restless(cort.RewardFunction):
    """Never the same score."""

    name = "restless"

    async def score(self, trajectory: cort.Trajectory) -> float:
        return random.random()


class Meddling(cort.Filter):
    """Changes what it judges."""

    name = "meddling"

    def judge(self, trajectory: cort.Trajectory) -> cort.Verdict:
        trajectory.turns.clear()
        return cort.Verdict(True)


class Astray(cort.HintInjector):
    """Points beyond the text."""

    name = "astray"

    def inject(self, trajectory: cort.Trajectory) -> cort.Hint:
        return cort.Hint("x", rewind_to=len(trajectory.response) + 1)


class Mute(cort.Tool):
    """Answers with nothing."""

    name = "mute"
    language = "mute"

    @contextlib.asynccontextmanager
    async def session(self, task: cort.Task, *, trajectory_id: str, seed: int) -> AsyncIterator[Any]:
        class Session:
            async def call(self, call: cort.ToolCall) -> None:
                return None

        yield Session()


@pytest.mark.parametrize(
    ("check", "cls", "complaint"),
    [
        (check_reward, Restless, "two scores of one trajectory differ"),
        (check_filter, Meddling, "changed the trajectory"),
        (check_injector, Astray, "is outside"),
        (check_tool, Mute, "not a ToolResult"),
    ],
)
def test_a_plugin_that_breaks_its_contract_is_caught(check: Any, cls: Any, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check(cls)


def test_the_fixtures_are_there_without_an_import(
    cort_registry: Registry, cort_trajectories: list[cort.Trajectory]
) -> None:
    assert "evaluate" in cort_registry.names("stage")
    assert cort_trajectories == sample_trajectories()
