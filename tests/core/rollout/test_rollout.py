"""A model that follows a script, tools that run: what a rollout puts down."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from scripted import PythonHere, Recording, idle, model, python, roll, show

from cort_framework import (
    Generation,
    Outcome,
    RolloutRequest,
    RolloutSettings,
    Sampling,
    Task,
    ToolResult,
)
from cort_framework.rendering import render
from cort_framework.rollout import LIMIT_NOTE, RolloutSetup, rollout
from cort_framework.rollout.sessions import clip


def test_a_call_is_answered_and_the_model_goes_on() -> None:
    (trajectory,) = roll(["<think>\n" + python("a = 2\nprint(a + 2)"), "So</think>4"])
    assert trajectory.finished and trajectory.error is None
    assert [t.author for t in trajectory.turns] == ["prompt", "model", "tool", "model"]
    assert trajectory.response == (
        "<think>\n```python\na = 2\nprint(a + 2)\n```\n```output\n4\n```\nSo</think>4<|end|>"
    )
    (turn,) = trajectory.calls
    assert turn.call is not None and turn.call.code == "a = 2\nprint(a + 2)\n" and turn.call.index == 0
    assert turn.result is not None and (turn.result.outcome, turn.result.text) == (Outcome.OK, "4\n")


def test_the_ids_that_were_sampled_are_the_ids_that_stay() -> None:
    engine = Recording(
        f"hm 😀 `\n\n{python('print(1)')}", python("print(2)"), "</think>2", words=["`\n\n", "prin", "`\n"]
    )
    (trajectory,) = roll(engine, injectors=[idle()], check_every=3)
    seen = render(trajectory)
    assert len(engine.said) > 10
    for before, generation in engine.said:
        n = len(before)
        assert seen.input_ids[:n] == before
        assert tuple(seen.input_ids[n : n + len(generation.ids)]) == generation.ids
        assert tuple(seen.logprobs[n : n + len(generation.ids)]) == generation.logprobs
    tokenizer = engine.tokenizer
    for turn in trajectory.turns:
        assert tokenizer.decode(turn.ids) == turn.text
        if turn.author == "tool":
            assert list(turn.ids) == tokenizer.encode(turn.text) and turn.logprobs is None
    assert "".join(t.text for t in trajectory.turns) == tokenizer.decode(trajectory.ids)


def test_a_token_that_crosses_a_closing_fence_stays_whole() -> None:
    (trajectory,) = roll(["```python\n1\n```\n\nSo", "</think>1"], words=["`\n\nS"])
    assert trajectory.turns[1].text == "```python\n1\n```\n\nS"
    assert trajectory.turns[2].text.startswith("\n```output")
    assert trajectory.discarded_tokens == 0


class Deaf(Recording):
    """Ignores stop strings, as an engine may that looks for them only now and then."""

    async def generate(self, ids: Sequence[int], sampling: Sampling) -> Generation:
        return await super().generate(ids, sampling.replace(stop=()))


STRETCHES = (
    f"<think>`\n```json\n{{}}\n```\n{python('print(3)')}It is 5.",
    f"x```\n{python('print(4)')}😀",
    "so</think>4",
)


@given(st.integers(1, 70), st.booleans(), st.booleans())
def test_a_trajectory_does_not_depend_on_where_its_stretches_end(every: int, deaf: bool, wide: bool) -> None:
    words = ["`\n\n", "```", "`py", "print("] if wide else []
    (whole,) = roll(Recording(*STRETCHES, words=words))
    engine = (Deaf if deaf else Recording)(*STRETCHES, words=words)
    (trajectory,) = roll(engine, injectors=[idle()], check_every=every)
    assert [(t.author, t.ids, t.text) for t in trajectory.turns] == [
        (t.author, t.ids, t.text) for t in whole.turns
    ], show(trajectory)
    sampled = sum(len(g.ids) for _, g in engine.said)
    assert trajectory.generated_tokens == sampled
    assert len(trajectory.calls) == 2


def test_a_stop_string_outside_a_block_does_not_stop_the_model() -> None:
    (trajectory,) = roll("as JSON:\n```json\n{}\n```\nor x```\nso</think>4")
    assert [t.author for t in trajectory.turns] == ["prompt", "model"]
    assert trajectory.finished and trajectory.response.endswith("so</think>4<|end|>")


def test_a_closing_fence_at_the_end_of_the_turn_is_a_call_and_its_end_of_sequence_goes() -> None:
    (trajectory,) = roll(["<think>\n```python\nprint(1)\n```", "</think>1"])
    assert show(trajectory).endswith("print(1)\n``` | tool: \n```output\n1\n```\n | model: </think>1<|end|>")
    assert trajectory.discarded_tokens == 1
    assert trajectory.ids.count(256) == 1


def test_a_block_at_the_end_of_the_answer_is_part_of_the_answer() -> None:
    (trajectory,) = roll("<think>hm</think>Run this:\n```python\nprint(1)\n```")
    assert not trajectory.calls and trajectory.finished


def test_an_output_that_the_model_invents_is_its_own_text() -> None:
    tool = PythonHere()
    (trajectory,) = roll("```python\nprint(1)\n```output\n1\n```\nSo </think>1", tool)
    assert [t.author for t in trajectory.turns] == ["prompt", "model"]
    assert tool.log == []


def test_the_last_call_says_so_and_no_further_one_is_answered() -> None:
    tool = PythonHere()
    script = [python("print(1)"), python("print(2)"), python("print(3)") + "</think>"]
    (trajectory,) = roll(script, tool, max_tool_calls=2)
    first, second = trajectory.calls
    assert LIMIT_NOTE not in first.text and second.text == f"```output\n2\n{LIMIT_NOTE}\n```\n"
    assert second.result is not None and second.result.text == "2\n"
    assert tool.log == ["open", "print(1)", "print(2)", "close"]
    assert trajectory.finished and "print(3)" in trajectory.turns[-1].text


def test_no_tool_and_no_calls_leave_the_text_alone() -> None:
    for trajectory in (roll(python("print(1)") + "x", max_tool_calls=0)[0],):
        assert not trajectory.calls and trajectory.finished


class Native(PythonHere):
    """The same tool by native calls alone."""

    language = None
    parameters = {"type": "object", "properties": {"code": {"type": "string"}}}


def test_a_native_call_is_answered_and_a_bad_one_is_told_what_is_wrong() -> None:
    tool = Native()
    outputs = [
        '<tool_call>{"name": "python", "arguments": {"code": "print(6)"}}</tool_call>',
        '<tool_call>{"name": "pyhton", "arguments": {}}</tool_call>',
        "<tool_call>{</tool_call>",
        "</think>6",
    ]

    def write(prompt: str, response: str) -> str:
        return outputs[response.count("<tool_response>")]

    (trajectory,) = roll(write, tool)
    assert trajectory.finished
    assert trajectory.calls[0].text == "\n<tool_response>\n6\n</tool_response>\n"
    good, unknown, broken = (t.result for t in trajectory.calls)
    assert good is not None and good.outcome == Outcome.OK
    for result in (unknown, broken):
        assert result is not None and result.outcome == Outcome.PROGRAM_ERROR and result.text == result.error
    assert "there is no tool 'pyhton'" in trajectory.calls[1].text
    assert tool.log == ["open", "print(6)", "close"]


def test_a_trajectory_ends_when_its_tokens_are_used_up() -> None:
    (trajectory,) = roll([python("print(1)"), "a" * 1000], max_tokens=100)
    assert trajectory.stop_reason == "length" and trajectory.response_tokens == 100
    assert not trajectory.finished and trajectory.usable


def test_a_trajectory_that_ends_inside_a_character_shows_what_there_is_of_it() -> None:
    engine = Recording("😀" * 50)
    (trajectory,) = roll(engine, max_tokens=10)
    assert trajectory.response == "😀😀\ufffd"
    assert trajectory.prompt + trajectory.response == engine.tokenizer.decode(trajectory.ids)


def test_a_turn_ends_where_the_weights_change() -> None:
    class Changing(Recording):
        async def generate(self, ids: Sequence[int], sampling: Sampling) -> Generation:
            self.version += 1
            return await super().generate(ids, sampling)

    (trajectory,) = roll(Changing("abcdef"), injectors=[idle()], check_every=4)
    assert [(t.text, t.weights_version) for t in trajectory.turns[1:]] == [("abcd", 1), ("ef<|end|>", 2)]


def test_what_no_utf8_can_hold_does_not_end_the_trajectory() -> None:
    class Odd(PythonHere):
        async def run(self, code: str, names: dict[str, Any]) -> ToolResult:
            return ToolResult(Outcome.OK, "\ud800!")

    (trajectory,) = roll([python("1"), "</think>"], Odd())
    assert trajectory.finished and trajectory.calls[0].text == "```output\n?!\n```\n"


def test_a_long_output_keeps_its_head_and_tail() -> None:
    assert clip("a" * 800, 800) == ("a" * 800, 0)
    text, dropped = clip("a" * 400 + "b" * 50 + "c" * 400, 800)
    assert dropped == 50 and text == "a" * 400 + "\n[... 50 characters left out ...]\n" + "c" * 400
    (trajectory,) = roll([python("print('x' * 5000)"), "</think>"], max_output_characters=10)
    result = trajectory.calls[0].result
    assert result is not None and result.dropped_characters == 4991
    assert result.text.startswith("xxxxx\n[... 4991") and result.text.endswith("xxxx\n")


def test_a_seed_of_its_own_for_every_sample() -> None:
    async def seeds() -> list[int]:
        setup = RolloutSetup(model("x"), {}, RolloutSettings(), "{problem}", seed=7)
        requests = [RolloutRequest(Task(i, ""), n) for i in "ab" for n in range(2)]
        return [(await rollout(r, setup))[-1].seed for r in requests]

    one, two = asyncio.run(seeds()), asyncio.run(seeds())
    assert one == two and len(set(one)) == 4
