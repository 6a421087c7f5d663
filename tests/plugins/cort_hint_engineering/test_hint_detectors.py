"""What is a fault, what is none, and where it begins."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import islice

import pytest
from hint_stories import program, told
from hypothesis import given, settings
from hypothesis import strategies as st

from cort_framework import Outcome, Task, ToolCall, ToolResult, Trajectory, Turn
from cort_hint_engineering.detectors import delayed_computation, result_distrust

PRODUCT = program("print(37*48)", "1776")
SQUARES = program("print(sum(k*k for k in range(1, 21)))", "2870")

BY_HAND = {
    "announced step by step": [
        "Okay, so we need 347 × 289. ",
        "Let me compute this step by step. 347 × 289 = 347 × 300 − 347 × 11 = 104100 − 3817 = 100283.\n",
    ],
    "modular powers in LaTeX": [
        "",
        "First, $7^1 = 7$, $7^2 = 49$, $7^3 = 343 \\equiv 43 \\pmod{100}$, $7^4 = 43 \\cdot 7 = 301 \\equiv 1 \\pmod{100}$.\n",
    ],
    "fractions in LaTeX": [
        "",
        "We have $\\binom{10}{3} = \\frac{10\\cdot 9\\cdot 8}{6} = 120$. Then $120 \\times 346 = 41520$ and $41520 + 2422 = 43942$.\n",
    ],
    "values listed": [
        "We want multiples. ",
        "Let me list them: 7, 14, 21, 28, 35, 42, 49, 56, 63, 70, 77, 84.\n",
    ],
    "long multiplication": [
        "",
        "Let's multiply 1234 by 5678 using long multiplication. 1234*8 = 9872. 1234*70=86380.\n",
    ],
    "long division": [
        "Okay. ",
        "I'd do long division: 1000/7 = 142.857, since 7*142 = 994 and 1000-994=6.\n",
    ],
    "case after case": [
        "The first cases.\n",
        "For n=1: 1+1+1 = 3. For n=2: 4+2+1=7. For n=3: 9+3+1 = 13. For n=4: 16+4+1=21. For n=5: 25+5+1=31.\n",
    ],
    "in words": ["Good. ", "37 times 40 is 1480, 37 times 8 is 296, and 1480 plus 296 is 1776.\n"],
    "in Chinese": ["", "让我手算一下。37 × 48 = 37 × 50 − 37 × 2 = 1850 − 74 = 1776。\n"],
}

DERIVED_AGAIN = {
    "by hand, said so": "Wait, let me double-check that by hand. 37*40 = 1480, 37*8=296, so 1480+296=1776. Good.\n",
    "a doubt, then LaTeX": "Hmm, is that right? Let me verify: $37 \\times 48 = 37 \\times 50 - 74 = 1850 - 74 = 1776$. Yes.\n",
    "unsure and by hand in one sentence": "I'm not sure this is it, let me compute 37*48 by hand: 37*40 = 1480, 37*8 = 296.\n",
    "not trusted": "But I'm not sure about 1776. Let me redo it: 37*40 = 1480 and 37*8 = 296.\n",
    "without a word of doubt": "37*40 = 1480, then 37*8 = 296, and 1480 + 296 = 1776, as the program says.\n",
    "in Chinese": "等等，让我手动验证一下。37 × 40 = 1480，37 × 8 = 296，1480 + 296 = 1776。\n",
}

NO_FAULT = {
    "a trivial sum": ["So 2 + 2 = 4 and the answer is 4.\n"],
    "a short announced product": ["Let me compute 12*5 = 60 minutes.\n"],
    "a result read off the output": [
        "Python can do that.\n",
        program("print(347*289)", "100283"),
        "So 347 × 289 = 100283.\n",
    ],
    "algebra": ["Let n = 3k+1. Then n^2 + n + 1 = 9k^2 + 9k + 3. I can calculate this with code.\n"],
    "an estimate": ["A rough estimate: 350 × 290 = 101500, so about 100000.\n"],
    "a plan": ["Let me write a program that checks 7, 14, 21, 28, 35, 42, 49, 56 and so on.\n"],
    "re-reading the question": [
        "Let me re-read the question. We want n from 1 to 1000, so there are 1000 candidates.\n"
    ],
    "going on from an output": [PRODUCT, "The next multiple of ten is wanted, 1776 + 4 = 1780.\n"],
    "the logic of the code": [
        PRODUCT,
        "Wait, let me double-check the logic of the code: the loop runs from 1 to 48, and range excludes the end. Right.\n",
    ],
    "a check by other code": [
        PRODUCT,
        "Let me verify this with another program.\n",
        program("print(48*37)", "1776"),
        "Same.\n",
    ],
    "a program that failed": [
        program("print(1/0)", "ZeroDivisionError", Outcome.PROGRAM_ERROR),
        "Let me fix it.\n",
        PRODUCT,
    ],
    "hand work declined": ["Doing this by hand would be tedious, so let me use Python.\n", PRODUCT],
    "the opening hint in the model's words": [
        "Okay, let's try to solve this problem step by step using multiple python code calls\nThe area is 1/2 * 3 * 4 = 6.\n"
    ],
    "a list copied from an output": [
        program("print(x)", "[7, 14, 21, 28, 35, 42, 49, 56, 63]"),
        "The list is 7, 14, 21, 28, 35, 42, 49, 56, 63. So nine.\n",
    ],
    "arithmetic in a comment of the code": [
        program("# 347*289 = 347*300 - 347*11 = 104100 - 3817\nprint(347*289)", "100283")
    ],
    "arithmetic in a block that the model never closed": [
        "```python\n# 347*289 = 347*300 - 347*11 = 104100 - 3817 = 100283\n"
    ],
    "arithmetic in the final text": [
        "Done.\n</think>\n\nIndeed 347*289 = 347*300 - 347*11 = 104100 - 3817 = 100283.\n"
    ],
}


@pytest.mark.parametrize("story", BY_HAND.values(), ids=BY_HAND)
def test_work_by_hand_is_found_from_the_sentence_that_begins_it(story: list[str]) -> None:
    before, work = story
    trajectory = told(before + work)
    (span,) = delayed_computation(trajectory)
    assert span.start == len(before)
    assert trajectory.response[span.start : span.end] == span.evidence
    assert not result_distrust(trajectory)


@pytest.mark.parametrize("work", DERIVED_AGAIN.values(), ids=DERIVED_AGAIN)
def test_a_returned_number_derived_again_is_distrust_and_not_delay(work: str) -> None:
    trajectory = told("Python can do that.\n", PRODUCT, "The output is 1776. ", work)
    (span,) = result_distrust(trajectory)
    assert trajectory.response[span.start :] == work
    assert not delayed_computation(trajectory)


def test_a_formula_that_gives_the_sum_of_an_output_again_is_distrust() -> None:
    trajectory = told(
        SQUARES, "To be sure, the formula says 20*21*41/6 = 420*41/6 = 17220/6 = 2870. It matches.\n"
    )
    assert [span.evidence[:10] for span in result_distrust(trajectory)] == ["To be sure"]


@pytest.mark.parametrize("story", NO_FAULT.values(), ids=NO_FAULT)
def test_what_is_no_fault_stays_untouched(story: list[str | tuple[str, str, Outcome]]) -> None:
    trajectory = told(*story)
    assert delayed_computation(trajectory) == []
    assert result_distrust(trajectory) == []


def test_new_work_after_an_output_is_delayed_computation() -> None:
    work = "Now multiply it by 13. 1776 × 13 = 1776×10 + 1776×3 = 17760 + 5328 = 23088.\n"
    trajectory = told(PRODUCT, work)
    assert [trajectory.response[s.start :] for s in delayed_computation(trajectory)] == [work]
    assert not result_distrust(trajectory)


def test_work_by_hand_before_the_code_and_after_it_are_two_faults() -> None:
    work = "Let me compute it by hand. 37*40 = 1480, 37*8 = 296, 1480+296 = 1776.\n"
    trajectory = told(
        work,
        "Let me check this with python.\n",
        PRODUCT,
        "Wait, let me verify 1776 manually.\n37*40 = 1480.\n",
    )
    assert len(delayed_computation(trajectory)) == len(result_distrust(trajectory)) == 1


@pytest.mark.parametrize("author", ["hint", "tool"])
def test_only_what_the_model_wrote_can_be_at_fault(author: str) -> None:
    trajectory = told("Okay.\n")
    text = "Let me compute it by hand. 37*40 = 1480, 37*8 = 296, 1480+296 = 1776.\n"
    trajectory.turns.append(
        Turn(author, (), text, result=ToolResult(Outcome.OK, text) if author == "tool" else None)
    )
    assert delayed_computation(trajectory) == result_distrust(trajectory) == []


def test_an_output_that_the_model_invented_is_not_returned_by_anything() -> None:
    invented = "```python\nprint(37*48)\n```\n```output\n1776\n```\nLet me verify 1776 by hand. 37*40 = 1480, 37*8 = 296.\n"
    trajectory = told(invented)
    assert not result_distrust(trajectory)
    assert len(delayed_computation(trajectory)) == 1


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789+-*/=^(), .\n\\{}$`abx", max_size=300))
def test_any_text_is_looked_through_and_spans_lie_within_it(text: str) -> None:
    trajectory = told(text, PRODUCT, text)
    for span in delayed_computation(trajectory) + result_distrust(trajectory):
        assert 0 <= span.start < span.end <= len(trajectory.response)
        assert trajectory.response[span.start : span.end] == span.evidence


# --- the miniature world ------------------------------------------------------------------------------------------
_CALL = re.compile(r"```python\n(.*?)\n```\n(```output\n(.*?)\n```\n)", re.DOTALL)


def _lived(prompt: str, response: str) -> Trajectory:
    """A text of the miniature corpus, as the trajectory that it shows."""
    turns, position = [Turn("prompt", (), f"{prompt}<think>\n")], 0
    for match in _CALL.finditer(response):
        outcome = Outcome.PROGRAM_ERROR if "Error" in match[3] else Outcome.OK
        turns.append(Turn("model", (), response[position : match.start(2)]))
        turns.append(
            Turn(
                "tool", (), match[2], call=ToolCall("python", match[1]), result=ToolResult(outcome, match[3])
            )
        )
        position = match.end()
    turns.append(Turn("model", (), response[position:]))
    return Trajectory("t/0", Task("t", prompt), turns=turns)


def _until(trajectory: Trajectory, length: int) -> Trajectory:
    turns = [turn for turn in trajectory.turns if turn.author == "prompt"]
    for turn, start, _ in trajectory.segments():
        if start < length:
            turns.append(turn if turn.author == "tool" else replace(turn, text=turn.text[: length - start]))
    return replace(trajectory, turns=turns)


def _places(phrases: tuple[str, ...], text: str) -> list[int]:
    pattern = "|".join(re.escape(phrase).replace(r"\{\}", r"[\w/]+") for phrase in phrases)
    return [match.start() for match in re.finditer(pattern, text)]


def test_in_the_miniature_world_faults_are_found_where_the_texts_have_them_and_nowhere_else() -> None:
    corpus = pytest.importorskip("cort_tiny.corpus")
    texts = pytest.importorskip("cort_tiny.texts")
    right = {"delayed": 0, "distrust": 0}
    missed = {"delayed": 0, "distrust": 0}
    false = {"delayed": 0, "distrust": 0}
    for text in islice(corpus.texts(5), 600):
        trajectory = _lived(text.prompt, text.response)
        places = {
            "delayed": _places(texts.BY_HAND, trajectory.response),
            "distrust": _places(texts.DISTRUST, trajectory.response),
        }
        if text.kind == "gives-up":  # whether anything was worked out before it gave up is chance
            places.pop("delayed")
        for kind, expected in places.items():
            detect = delayed_computation if kind == "delayed" else result_distrust
            found = [span.start for span in detect(trajectory)]
            right[kind] += bool(expected and found and found[0] == expected[0])
            missed[kind] += bool(expected and (not found or found[0] != expected[0]))
            false[kind] += bool(found and not expected)
    for kind in right:
        assert right[kind] > 40
        assert right[kind] / (right[kind] + missed[kind]) >= 0.97, (kind, right, missed)
        assert right[kind] / (right[kind] + false[kind]) >= 0.97, (kind, right, false)


def test_while_text_grows_a_fault_is_found_early_and_at_the_place_where_the_whole_text_has_it() -> None:
    corpus = pytest.importorskip("cort_tiny.corpus")
    checked = 0
    for text in islice(corpus.texts(6), 120):
        trajectory = _lived(text.prompt, text.response)
        for detect in (delayed_computation, result_distrust):
            whole = detect(trajectory)
            lengths = range(32, len(trajectory.response) + 32, 32)
            first = next(((n, spans[0]) for n in lengths if (spans := detect(_until(trajectory, n)))), None)
            assert (first is None) == (not whole)
            if first is not None:
                checked += 1
                assert first[1].start == whole[0].start
                assert first[0] - first[1].start < 250
    assert checked > 50


@pytest.mark.parametrize(
    "unit",
    [
        "1 + ",
        "9",
        "((( ",
        "\n",
        " ",
        "1 + 1 = 2, ",
        "not by ",
        "let me ",
        "...",
        "{",
        "\\frac{1",
        "```\n",
        "1, ",
        "is 3 ",
        "(1,2), ",
        "n = 1: 23, no. ",
        "a_1 = 30, ",
        "x^2 + ",
        "3x - 4y = ",
        "| 1 | 23 |\n",
        "1+1, ",
        "12 → ",
        "12 then ",
        "余3，",
        "ABC, ",
        "not sure ",
        "it ",
        "is it ",
        "with code ",
        "more than i ",
        "should be ",
        "again",
        "的2次方",
        "12²",
        "plug ",
    ],
)
def test_a_model_that_repeats_itself_for_ever_does_not_hold_up_the_detectors(unit: str) -> None:
    trajectory = told(PRODUCT, unit * (40_000 // len(unit)))
    delayed_computation(trajectory)
    result_distrust(trajectory)
