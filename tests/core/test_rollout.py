"""A model that follows a script, tools that run: what a rollout puts down, and what it does when something breaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import TASK, PythonHere, hints, model, python, roll, show

from cort_framework import (
    Generation,
    Hint,
    HintInjector,
    InfrastructureError,
    Outcome,
    RolloutRequest,
    RolloutSettings,
    Sampling,
    Task,
    ToolResult,
    Trajectory,
)
from cort_framework.rendering import render
from cort_framework.rollout import LIMIT_NOTE, RolloutSetup, rollout
from cort_framework.sessions import clip
from cort_framework.testing import ScriptedEngine, says


def idle() -> HintInjector:
    """Never hints; makes the engine yield every ``check_every`` tokens."""
    return hints(lambda trajectory: None, "idle")


# --- generate, parse, call, append ------------------------------------------------------------------------------
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


class Recording(ScriptedEngine):
    """Keeps what it was asked and what it sampled."""

    def __init__(self, *stretches: str, words: Sequence[str] = ()) -> None:
        super().__init__(words=words)
        self.script = says(*stretches)
        self.said: list[tuple[list[int], Generation]] = []

    def write(self, prompt: str, response: str) -> str:
        return self.script(prompt, response)

    async def generate(self, ids: Sequence[int], sampling: Sampling) -> Generation:
        generation = await super().generate(ids, sampling)
        self.said.append((list(ids), generation))
        return generation


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


# --- when something breaks --------------------------------------------------------------------------------------
class Breaks(PythonHere):
    """Fails in ``how`` at the calls that ``at`` counts, over all sessions."""

    def __init__(self, how: Any, at: set[int]) -> None:
        super().__init__()
        self.how, self.at, self.count = how, at, -1

    async def run(self, code: str, names: dict[str, Any]) -> ToolResult:
        self.count += 1
        if self.count not in self.at:
            return await super().run(code, names)
        if isinstance(self.how, BaseException):
            raise self.how
        if self.how == "hang":
            await asyncio.Event().wait()
        return self.how  # type: ignore[no-any-return]


TROUBLE = [
    InfrastructureError("the worker died"),
    ZeroDivisionError("by the tool"),
    SystemExit(3),
    TimeoutError("its own"),
    ToolResult(Outcome.INFRA_ERROR, "secret trace", error="the socket closed"),
    "no ToolResult",
    "hang",
]
TWO_CALLS = [python("a = 1"), python("print(a + 1)"), "</think>2"]
QUICK = {"call_timeout_s": 0.2}


@pytest.mark.parametrize("how", TROUBLE, ids=str)
def test_a_call_that_the_machinery_failed_is_tried_again_in_a_fresh_session(how: Any) -> None:
    tool = Breaks(how, at={1})
    (trajectory,) = roll(TWO_CALLS, tool, **QUICK)
    assert trajectory.finished and trajectory.error is None
    assert [c.text for c in trajectory.calls] == ["```output\n\n```\n", "```output\n2\n```\n"]
    assert tool.log == ["open", "a = 1", "print(a + 1)", "close", "open", "a = 1", "print(a + 1)", "close"]


@pytest.mark.parametrize("how", TROUBLE, ids=str)
def test_a_call_that_failed_twice_is_recorded_and_never_shown_to_the_model(how: Any) -> None:
    tool = Breaks(how, at={1, 3})
    (trajectory,) = roll(TWO_CALLS, tool, **QUICK)
    assert trajectory.stop_reason == "error" and not trajectory.usable
    assert (
        trajectory.error is not None
        and "tool 'python' (from this script), call 1, failed twice" in trajectory.error
    )
    assert [t.author for t in trajectory.turns] == ["prompt", "model", "tool", "model"]
    assert "secret" not in trajectory.response
    assert tool.log.count("open") == tool.log.count("close") == 2


def test_a_session_that_does_not_open_is_tried_again() -> None:
    class Late(PythonHere):
        def session(self, task: Task, *, trajectory_id: str, seed: int) -> Any:
            self.log.append("try")
            if self.log == ["try"]:
                raise OSError("no worker")
            return super().session(task, trajectory_id=trajectory_id, seed=seed)

    tool = Late()
    (trajectory,) = roll([python("print(1)"), "</think>1"], tool)
    assert trajectory.finished and tool.log == ["try", "try", "open", "print(1)", "close"]


def test_a_session_that_fails_to_close_spoils_nothing() -> None:
    class Stuck(PythonHere):
        @contextlib.asynccontextmanager
        async def session(self, task: Task, *, trajectory_id: str, seed: int) -> Any:
            async with super().session(task, trajectory_id=trajectory_id, seed=seed) as session:
                yield session
            raise OSError("it is gone")

    assert roll([python("print(1)"), "</think>1"], Stuck())[0].finished


def test_a_replay_that_ends_differently_drops_the_sample() -> None:
    class Counts(Breaks):
        async def run(self, code: str, names: dict[str, Any]) -> ToolResult:
            result = await super().run(code, names)
            return result if "a" in names else ToolResult(Outcome.OK, f"{self.count}")

    (trajectory,) = roll([python("1"), python("2"), "</think>"], Counts(OSError("gone"), at={1}))
    assert trajectory.error == (
        "tool 'python' (from this script), call 0, ended differently when it was replayed"
    )


def test_a_hanging_engine_is_named() -> None:
    class Hangs(Recording):
        async def generate(self, ids: Sequence[int], sampling: Sampling) -> Generation:
            await asyncio.Event().wait()
            raise AssertionError

    (trajectory,) = roll(Hangs(""), turn_timeout_s=0.1, call_timeout_s=0.1)
    assert trajectory.stop_reason == "deadline" and not trajectory.usable
    assert trajectory.error == "engine 'scripted' (from this script) did not end within 0.1 s"


def test_the_trajectorys_own_deadline_names_what_it_was_at() -> None:
    limits = {"call_timeout_s": 0.2, "turn_timeout_s": 0.2, "trajectory_timeout_s": 0.2}
    (trajectory,) = roll(TWO_CALLS, Breaks("hang", at={1, 3}), **limits)
    assert trajectory.stop_reason == "deadline" and trajectory.error is not None
    assert "call 1" in trajectory.error and "python" in trajectory.error
    (trajectory,) = roll("x", injectors=[hints(_hang, "slow")], **limits)
    assert trajectory.error == "trajectory sum/0, at its hint injectors, did not end within 0.2 s"


async def _hang(trajectory: Trajectory) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("error", [ValueError("no weights"), SystemExit(1)], ids=str)
def test_an_engine_that_raises_costs_the_trajectory_and_is_named(error: BaseException) -> None:
    class Raises(Recording):
        async def generate(self, ids: Sequence[int], sampling: Sampling) -> Generation:
            raise error

    (trajectory,) = roll(Raises(""))
    assert trajectory.error == f"engine 'scripted' (from this script) raised {type(error).__name__}: {error}"


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (Generation((), (), "length"), "returned 0 tokens where 1 to 1024 were asked for"),
        (Generation((65,) * 2000, (-0.1,) * 2000, "length"), "returned 2000 tokens"),
        (Generation((65, 66), (-0.1,), "length"), "2 ids but 1 log-probs"),
        (None, "NoneType"),
    ],
)
def test_an_engines_nonsense_is_an_error_of_the_engine(answer: Any, complaint: str) -> None:
    class Answers(Recording):
        async def generate(self, ids: Sequence[int], sampling: Sampling) -> Generation:
            return answer  # type: ignore[no-any-return]

    (trajectory,) = roll(Answers(""))
    assert trajectory.error is not None and "engine 'scripted' (from this script)" in trajectory.error
    assert complaint in trajectory.error


def test_a_failing_tokenizer_is_an_error_of_the_engine() -> None:
    engine = Recording("x")
    engine.tokenizer.apply_chat_template = None  # type: ignore[assignment, method-assign]
    (trajectory,) = roll(engine)
    assert trajectory.error is not None and "engine 'scripted' (from this script)" in trajectory.error


# --- hints ------------------------------------------------------------------------------------------------------
def once(marker: str, text: str, rewind: bool = True, name: str = "nudge") -> HintInjector:
    """Puts ``text`` in front of the first ``marker``, or behind what there is when it sees one."""

    def ask(trajectory: Trajectory) -> Hint | None:
        at = trajectory.response.find(marker)
        if at < 0 or text in trajectory.response:
            return None
        return Hint(text, at if rewind else None, f"saw {marker}")

    return hints(ask, name)


def by_hand(prompt: str, response: str) -> str:
    """A model that calculates by hand until it is told to use code."""
    if "Use code.\n" not in response:
        return says(f"<think>\n{python('a = 3')}", "by hand 3 and 3 makes 7</think>7")(prompt, response)
    if "```output\n6" in response:
        return "</think>6"
    return python("print(a + a)")


def test_a_rewind_makes_a_child_and_the_parent_stays_as_it_was() -> None:
    engine = model(["<think>1, 2, by hand 7</think>7"])
    parent, child = roll(engine, injectors=[once("by hand", "Use code. ")], check_every=10)
    assert (
        parent.stop_reason == "rewound"
        and parent.response == "<think>1, 2, by hand 7</think>"[: len(parent.response)]
    )
    assert "by hand" in parent.response
    assert (parent.id, child.id, child.parent) == ("sum/0", "sum/0~1", "sum/0")
    assert child.response.startswith("<think>1, 2, Use code. ")
    prompt, kept, hint, rest = child.turns
    assert (kept.text, hint.author, hint.text) == ("<think>1, 2, ", "hint", "Use code. ")
    assert hint.reason == "nudge: saw by hand" and hint.logprobs is None
    assert child.kept_tokens == len(prompt.ids) + len(kept.ids)
    assert child.ids[: child.kept_tokens] == parent.ids[: child.kept_tokens]
    old, new = render(parent), render(child)
    assert new.logprobs[: child.kept_tokens] == old.logprobs[: child.kept_tokens]
    assert child.discarded_tokens == len(parent.ids) - child.kept_tokens
    assert child.generated_tokens == child.discarded_tokens + len(kept.ids) + len(rest.ids)
    assert child.seed != parent.seed


def test_a_rewind_that_splits_a_token_writes_the_shared_characters_into_the_hint() -> None:
    engine = model(["so by hand 7</think>7"], words=[" by hand"])
    _, child = roll(engine, injectors=[once("by hand", "Use code.\n")])
    assert [t.text for t in child.turns[1:3]] == ["so", " Use code.\n"]


def test_a_rewind_over_a_call_replays_what_is_kept() -> None:
    tool = PythonHere()
    script = [python("a = 1"), f"wrong\n{python('a = 5')}", "", "</think>"]

    def write(prompt: str, response: str) -> str:
        if "Think.\n" not in response:
            return says(*script)(prompt, response)
        return python("print(a)") if "```output\n1" not in response else "</think>1"

    seen = hints(
        lambda t: (
            Hint("Think.\n", t.response.find("wrong"))
            if len(t.calls) == 2 and "Think." not in t.response
            else None
        )
    )
    parent, child = roll(write, tool, injectors=[seen])
    assert len(parent.calls) == 2 and parent.stop_reason == "rewound"
    assert child.finished and child.calls[-1].text == "```output\n1\n```\n", show(child)
    assert tool.log == ["open", "a = 1", "a = 5", "close", "open", "a = 1", "print(a)", "close"]


def test_a_rewind_that_drops_no_call_keeps_the_session() -> None:
    tool = PythonHere()
    _, child = roll(by_hand, tool, injectors=[once("by hand", "Use code.\n")])
    assert child.finished and child.calls[-1].text == "```output\n6\n```\n"
    assert tool.log == ["open", "a = 3", "print(a + a)", "close"]


def test_a_fault_that_ends_in_a_call_is_cut_before_the_call_is_paid_for() -> None:
    tool = PythonHere()
    script = f"by hand\n{python('print(7)')}"
    _, child = roll([script, "</think>"], tool, injectors=[once("by hand", "No.\n")])
    assert tool.log.count("print(7)") == 1 and len(child.calls) == 1


def test_a_hint_without_rewind_is_appended_and_never_between_a_call_and_its_output() -> None:
    (trajectory,) = roll(
        [f"Okay\n{python('print(1)')}", "done</think>"],
        injectors=[once("Okay", "And then? ", rewind=False), once("Okay", "Go on. ", rewind=False, name="b")],
    )
    assert [t.author for t in trajectory.turns] == ["prompt", "model", "tool", "hint", "hint", "model"]
    assert trajectory.parent is None and trajectory.discarded_tokens == 0


def test_a_hint_at_the_very_start_comes_before_the_models_first_word() -> None:
    opening = hints(lambda t: Hint("Okay: ") if not t.response else None, "opening")
    (trajectory,) = roll("4", injectors=[opening])
    assert show(trajectory).endswith("hint: Okay:  | model: 4<|end|>")


def test_a_hint_after_the_end_takes_the_end_back() -> None:
    asks = hints(
        lambda t: Hint(" Sure?") if t.response.endswith("<|end|>") and "Sure" not in t.response else None
    )
    (trajectory,) = roll(lambda p, r: "" if "Sure" in r else "4", injectors=[asks])
    assert trajectory.response == "4 Sure?<|end|>" and trajectory.discarded_tokens == 1


def test_a_hint_may_open_the_fence() -> None:
    opens = once("by hand", "Use code.\n```python\n")
    _, child = roll(
        lambda p, r: (
            "print(6)\n```\n" if "```python" in r and "output" not in r else "by hand" * ("out" not in r)
        ),
        injectors=[opens],
    )
    assert child.calls[0].call is not None and child.calls[0].call.code == "print(6)\n"


def test_of_several_hints_the_one_that_reaches_back_furthest_is_inserted() -> None:
    late, early = once("three", "L ", name="late"), once("two", "E ", name="early")
    line = roll("one two three", injectors=[late, early])
    assert line[1].turns[-2].reason == "early: saw two"
    assert line[1].response.startswith("one E ")


def test_hints_are_limited() -> None:
    always = hints(lambda t: Hint("h", 0) if t.response else None)
    line = roll("abc", injectors=[always], max_hints=3)
    assert len(line) == 4 and line[-1].finished
    assert len({t.id for t in line}) == 4


def test_every_version_of_a_line_that_is_cut_again_and_again_names_its_parent() -> None:
    line = roll("abcdef", injectors=[once("b", "1"), once("a", "2", name="second")], check_every=2)
    assert [t.parent for t in line] == [None, *[t.id for t in line[:-1]]]
    assert [t.stop_reason for t in line[:-1]] == ["rewound"] * (len(line) - 1)


def test_where_no_rewind_is_allowed_asking_for_one_is_an_error() -> None:
    (trajectory,) = roll("by hand", injectors=[once("by hand", "No. ")], allow_rewind=False)
    assert trajectory.error == "the hint 'nudge: saw by hand' asks for a rewind, which RL does not allow"


def test_a_rewind_to_the_end_or_beyond_is_none() -> None:
    beyond = hints(lambda t: Hint("!", len(t.response) + 5) if t.response == "ab" else None)
    (trajectory,) = roll(lambda p, r: "" if "!" in r else "ab"[len(r) :], injectors=[beyond], check_every=2)
    assert trajectory.response == "ab!<|end|>"


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [(KeyError("x"), "raised KeyError: 'x'"), ("do this", "TypeError: inject returns a Hint")],
)
def test_an_injectors_fault_is_its_distributions(answer: Any, complaint: str) -> None:
    def ask(trajectory: Trajectory) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    injector = hints(ask, "bad")
    injector.distribution = "cort-bad"
    (trajectory,) = roll("x", injectors=[injector])
    assert trajectory.error is not None and trajectory.error.startswith("hint injector 'bad' (from cort-bad)")
    assert complaint in trajectory.error


def test_an_injector_may_be_async() -> None:
    class Asks(HintInjector):
        name = "asks"

        async def inject(self, trajectory: Trajectory) -> Hint | None:
            await asyncio.sleep(0)
            return None if trajectory.response else Hint("Hm ")

    (trajectory,) = roll("x", injectors=[Asks()])
    assert trajectory.response == "Hm x<|end|>"


# --- many at once -----------------------------------------------------------------------------------------------
def test_no_trajectory_waits_for_another() -> None:
    """The first call ends only when all other trajectories are done: in lock-step, never."""
    others = asyncio.Event()

    class Waits(PythonHere):
        async def run(self, code: str, names: dict[str, Any]) -> ToolResult:
            if "wait" in code:
                await others.wait()
            return ToolResult(Outcome.OK, "1")

    def script(prompt: str, response: str) -> str:
        code = python("wait" if "slow" in prompt else "1")
        return "</think>1" if response.count("output") == 3 else code

    async def run() -> list[Trajectory]:
        setup = RolloutSetup(model(script), {"python": Waits()}, RolloutSettings(), "{problem}")
        slow = asyncio.create_task(rollout(RolloutRequest(Task("slow", "slow")), setup))
        quick = await asyncio.gather(*(rollout(RolloutRequest(TASK, n), setup) for n in range(20)))
        assert not slow.done()
        others.set()
        return [line[-1] for line in [*quick, await slow]]

    assert all(t.finished and len(t.calls) == 3 for t in asyncio.run(run()))


def test_a_trajectory_that_hangs_does_not_hold_up_the_others() -> None:
    class Hangs(PythonHere):
        async def run(self, code: str, names: dict[str, Any]) -> ToolResult:
            if "hang" in code:
                await asyncio.Event().wait()
            return ToolResult(Outcome.OK, "1")

    def script(prompt: str, response: str) -> str:
        return "</think>1" if "output" in response else python("hang" if "bad" in prompt else "1")

    async def run() -> list[Trajectory]:
        settings = RolloutSettings(call_timeout_s=0.2)
        setup = RolloutSetup(model(script), {"python": Hangs()}, settings, "{problem}")
        tasks = [Task("bad", "bad"), *(Task(f"good{n}", "") for n in range(5))]
        return [
            line[-1] for line in await asyncio.gather(*(rollout(RolloutRequest(t), setup) for t in tasks))
        ]

    bad, *good = asyncio.run(run())
    assert all(t.finished for t in good)
    assert bad.error is not None and "call 0, did not end within 0.2 s" in bad.error


def test_a_rollout_that_is_cancelled_closes_its_sessions() -> None:
    tool = Breaks("hang", at={1})

    async def run() -> None:
        setup = RolloutSetup(model(TWO_CALLS), {"python": tool}, RolloutSettings(), "{problem}")
        task = asyncio.create_task(rollout(RolloutRequest(TASK), setup))
        while len(tool.log) < 3:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert tool.log == ["open", "a = 1", "print(a + 1)", "close"]


# --- with a real kernel -----------------------------------------------------------------------------------------
def test_real_kernels_keep_their_state_and_are_replayed_after_a_rewind(tmp_path: Any) -> None:
    from cort_framework import OpenContext

    PythonTool = pytest.importorskip("cort_python.tool").PythonTool

    def script(prompt: str, response: str) -> str:
        if "Again.\n" in response:
            return python("a") if "output\n3" not in response else "</think>3"
        return says(python("a = 3"), python("a = 4\n1/0"), "wrong")(prompt, response)

    def ask(trajectory: Trajectory) -> Hint | None:
        if "wrong" not in trajectory.response or "Again" in trajectory.response:
            return None
        return Hint("Again.\n", trajectory.response.index("```python\na = 4"))

    async def run() -> list[list[Trajectory]]:
        tool = PythonTool()
        await tool.open(OpenContext(tmp_path))
        try:
            setup = RolloutSetup(
                model(script), {"python": tool}, RolloutSettings(), "{problem}", 0, [hints(ask)]
            )
            return await asyncio.gather(*(rollout(RolloutRequest(TASK, n), setup) for n in range(3)))
        finally:
            await tool.close()

    for parent, child in asyncio.run(run()):
        failed = parent.calls[1].result
        assert failed is not None and failed.outcome == Outcome.PROGRAM_ERROR
        assert failed.error == "ZeroDivisionError: division by zero"
        assert child.finished and child.calls[-1].text == "```output\n3\n```\n", show(child)
