"""Hints appended, and rewinds that make a child."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from scripted import TASK, PythonHere, hints, model, python, roll, show

from cort_framework import (
    Hint,
    HintInjector,
    Outcome,
    RolloutRequest,
    RolloutSettings,
    Trajectory,
)
from cort_framework.rendering import render
from cort_framework.rollout import RolloutSetup, go_on, rollout
from cort_framework.testing import says


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
    [(KeyError("x"), "raised KeyError: 'x'"), ("do this", "TypeError: it has to give a Hint, not 'do this'")],
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


# --- with a real kernel ----------------------------------------------------------------------------------------
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


# --- by hand ----------------------------------------------------------------------------------------------------
def wrong_unless_told(prompt: str, response: str) -> str:
    """A model that gets 41 by hand, and 42 once a person has cut that away."""
    first = f"Let me compute.\n{python('x = 40')}"
    if "Again.\n" in response:
        return says(first, "Again.\n" + python("print(x + 2)"), "</think>42")(prompt, response)
    return says(first, f"By hand it is 41.\n{python('print(x + 1)')}", "</think>41")(prompt, response)


def test_a_person_may_cut_a_finished_trajectory_and_the_model_goes_on_from_there() -> None:
    async def review() -> tuple[list[Trajectory], list[Trajectory], list[Trajectory]]:
        setup = RolloutSetup(
            model(wrong_unless_told), {"python": PythonHere()}, RolloutSettings(), "{problem}"
        )
        before = await rollout(RolloutRequest(TASK), setup)
        hint = Hint("Again.\n", before[-1].response.index("By hand"), reason="review")
        after = await go_on(before, hint, setup)
        return before, after, await go_on(after, Hint("Again.\n", 0, reason="review"), setup)

    before, after, again = asyncio.run(review())
    assert [t.id for t in after] == ["sum/0", "sum/0~1"]
    assert before[-1].stop_reason == "eos" and before[-1].response.endswith("</think>41<|end|>")  # as it was
    assert after[0].stop_reason == "rewound" and after[0].response == before[-1].response
    child = after[1]
    assert (child.error, child.parent) == (None, "sum/0") and "</think>42" in child.response
    assert [t.result.text.strip() for t in child.calls if t.result] == [
        "",
        "42",
    ]  # the kept cell was replayed: x is there
    assert [t.id for t in again] == ["sum/0", "sum/0~1", "sum/0~2"]
