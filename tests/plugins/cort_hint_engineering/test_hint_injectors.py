"""Which hint goes where."""

from __future__ import annotations

import pytest
from hint_stories import cut_back, program, told

from cort_framework import Outcome, Trajectory, Turn
from cort_hint_engineering.filters import NoDelayedComputation, NoResultDistrust
from cort_hint_engineering.injectors import DelayedComputationHint, OpeningHint, ResultDistrustHint

PRODUCT = program("print(37*48)", "1776")
HAND = "Let me compute this by hand. 37*40 = 1480, 37*8 = 296, so 1480+296 = 1776.\n"
DOUBT = "Wait, let me verify that manually. 37*40 = 1480, 37*8 = 296.\n"
HINT_1 = "It looks tedious, and we can use python code to simplify the reasoning.\n```python\n"
HINT_2 = "We don't need to doubt the accuracy of python calculations.\n"


@pytest.mark.parametrize("response", ["", "<think>\n"])
def test_the_opening_comes_before_the_first_word_of_the_thinking(response: str) -> None:
    hint = OpeningHint().inject(told(response))
    assert hint is not None
    assert hint.rewind_to is None
    assert (
        hint.text == "Okay, let's try to solve this problem step by step using multiple python code calls\n"
    )


def test_the_opening_comes_once_and_not_into_running_text() -> None:
    opening = OpeningHint()
    empty = told("")
    hint = opening.inject(empty)
    assert hint is not None
    assert opening.inject(cut_back(empty, hint)) is None
    assert opening.inject(told("Okay")) is None


def test_hint_1_cuts_back_to_the_sentence_that_begins_the_hand_work_and_opens_a_block() -> None:
    trajectory = told("Okay, I need 37 times 48.\n", HAND)
    hint = DelayedComputationHint().inject(trajectory)
    assert hint is not None
    assert cut_back(trajectory, hint).response == f"Okay, I need 37 times 48.\n{HINT_1}"
    assert "1480" in hint.reason


def test_hint_1_begins_on_a_line_of_its_own() -> None:
    trajectory = told(f"Okay, I need 37 times 48. {HAND}")
    hint = DelayedComputationHint().inject(trajectory)
    assert hint is not None
    assert cut_back(trajectory, hint).response == f"Okay, I need 37 times 48.\n{HINT_1}"


def test_hint_2_goes_where_the_doubt_begins() -> None:
    trajectory = told(PRODUCT, f"The output is 1776. {DOUBT}")
    hint = ResultDistrustHint().inject(trajectory)
    assert hint is not None
    assert cut_back(trajectory, hint).response.endswith(f"```\nThe output is 1776. {HINT_2}")
    assert DelayedComputationHint().inject(trajectory) is None


def test_the_texts_are_settings() -> None:
    injector = DelayedComputationHint(DelayedComputationHint.Config(text="Use code.\n```python\n"))
    hint = injector.inject(told(HAND))
    assert hint is not None
    assert hint.text == "Use code.\n```python\n"


def test_a_hint_that_was_not_heeded_is_not_put_to_the_same_place_again_and_the_filter_says_so() -> None:
    injector = ResultDistrustHint()
    first = told(PRODUCT, DOUBT)
    hint = injector.inject(first)
    assert hint is not None
    stubborn = cut_back(first, hint)
    stubborn.turns.append(Turn("model", (), DOUBT))
    assert injector.inject(stubborn) is None
    verdict = NoResultDistrust().judge(stubborn)
    assert not verdict.keep
    assert verdict.span is not None
    assert stubborn.response[slice(*verdict.span)] == DOUBT.rstrip(".\n")


def test_the_same_hint_goes_to_a_later_fault_too() -> None:
    injector = DelayedComputationHint()
    first = told("Okay.\n", HAND)
    hint = injector.inject(first)
    assert hint is not None
    child = cut_back(first, hint)
    child.turns.append(Turn("model", (), "print(37*48\n```\n"))
    failed = told(program("print(37*48", "SyntaxError: '(' was never closed", Outcome.PROGRAM_ERROR)).turns[
        -1
    ]
    child.turns += [failed, Turn("model", (), HAND)]
    again = injector.inject(child)
    assert again is not None
    assert again.rewind_to == len(child.response) - len(HAND)


def test_a_heeded_hint_leaves_no_fault() -> None:
    first = told("Okay.\n", HAND)
    hint = DelayedComputationHint().inject(first)
    assert hint is not None
    child = cut_back(first, hint)
    child.turns.append(Turn("model", (), "print(37*48)\n```\n"))
    child.turns += [
        told(PRODUCT).turns[-1],
        Turn("model", (), "So the answer is 1776.\n</think>\n\n\\boxed{1776}"),
    ]
    _assert_clean(child)


def _assert_clean(trajectory: Trajectory) -> None:
    for injector in (OpeningHint(), DelayedComputationHint(), ResultDistrustHint()):
        assert injector.inject(trajectory) is None
    for judge in (NoDelayedComputation(), NoResultDistrust()):
        assert judge.judge(trajectory).keep


def test_a_filter_gives_the_reason_and_the_span() -> None:
    trajectory = told("Okay.\n", HAND)
    verdict = NoDelayedComputation().judge(trajectory)
    assert not verdict.keep
    assert verdict.filter == "no-delayed-computation"
    assert verdict.reason.startswith("announced as work by hand: ")
    assert verdict.span == (len("Okay.\n"), len("Okay.\n" + HAND) - 2)


def test_a_fault_that_is_only_announced_waits_for_its_first_step() -> None:
    injector = DelayedComputationHint()
    assert injector.inject(told("Okay.\nLet me compute this by hand.\n")) is None
    assert injector.inject(told("Okay.\nLet me compute this by hand.\n37*40 = 14")) is not None
