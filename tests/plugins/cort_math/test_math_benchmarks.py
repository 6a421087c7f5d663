"""The reference answers of real benchmarks, written as models write them, and wrong ones beside them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from random import Random

import pytest

from cort_math.grading import quick

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("CORT_BENCHMARKS" not in os.environ, reason="CORT_BENCHMARKS names no folder"),
]

WHOLE = re.compile(r"-?\d+")
BASED = re.compile(r"(\d+)_\{?(\d)\}?")
DECIMAL = re.compile(r"-?\d*\.\d*[1-9]")
FRACTION = re.compile(r"(-?)\\frac\{(\d+)\}\{(\d+)\}")


def references() -> list[str]:
    paths = [Path(os.environ["CORT_BENCHMARKS"]) / f"{name}.jsonl" for name in ("math500", "amc23")]
    lines = [line for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    return list(dict.fromkeys(json.loads(line)["answer"] for line in lines))


def equal(gold: str, answer: str) -> bool:
    from cort_math.comparison import correct  # in this process: none of these runs away

    known = quick(gold, answer)
    return correct(gold, answer) if known is None else known


def as_models_write(answer: str) -> Iterator[str]:
    yield from (answer, f"${answer}$", f"{answer}.")
    yield answer.replace("\\frac", "\\dfrac")
    yield answer.replace("\\frac", "\\tfrac")
    yield answer.replace("\\left", "").replace("\\right", "")
    if WHOLE.fullmatch(answer):
        yield from (
            f"{answer}.0",
            f"{answer}.00",
            f"\\text{{{answer}}}",
            f"\\mathbf{{{answer}}}",
            f"x = {answer}",
        )
        yield from (
            f"{answer}\\text{{ cm}}",
            f"{answer} \\text{{ square units}}",
            f"{answer}\\ \\mathrm{{cm}}^2",
        )
        yield from (
            f"{answer}^\\circ",
            f"{answer}^{{\\circ}}",
            f"{answer} degrees",
            f"{answer}\\text{{ degrees}}",
        )
        yield from (f"\\${answer}", f"\\frac{{{answer}}}{{1}}")
        separated = f"{int(answer):,}"
        yield from (separated.replace(",", mark) for mark in (",", "{,}", "\\,", ",\\!"))
    if fraction := FRACTION.fullmatch(answer):
        sign, top, bottom = fraction.groups()
        yield from (f"{sign}{top}/{bottom}", f"\\frac{{{sign}{top}}}{{{bottom}}}")
        yield f"{sign}\\frac{{{2 * int(top)}}}{{{2 * int(bottom)}}}"
        yield repr(float(Fraction(f"{sign}{top}/{bottom}")))
    if based := BASED.fullmatch(answer):
        digits, base = based.groups()
        yield from (digits, f"{digits}_{base}", f"{digits}_{{{base}}}", f"{digits}_{{\\text{{{base}}}}}")
    if DECIMAL.fullmatch(answer):
        value = Fraction(answer)
        yield from (f"{answer}0", f"\\frac{{{value.numerator}}}{{{value.denominator}}}")
    if text := re.fullmatch(r"\\text\{([^{}]*)\}", answer):
        yield from (text[1], f"\\mathrm{{{text[1]}}}", f"\\textbf{{{text[1]}}}")
        yield text[1].strip("()")
    if re.search(r"\\infty|\\cup", answer):
        yield f"x \\in {answer}"
    if re.fullmatch(r"-?\d+\.0", answer):
        yield answer.removesuffix(".0")


def wrong(answer: str) -> Iterator[str]:
    if WHOLE.fullmatch(answer):
        n = int(answer)
        yield from (
            str(n + 1),
            f"{n}1",
            f"{n}.5",
            f"{n}, {n + 1}",
            f"\\{{{n}, {n + 2}\\}}",
            "none",
            "\\text{ }",
        )
        if n not in (0, 1):
            yield from (str(-n), f"{n}0", f"\\frac{{{n}}}{{2}}", f"\\sqrt{{{n}}}", f"{n}\\pi", f"({n})^2")
    if fraction := FRACTION.fullmatch(answer):
        sign, top, bottom = fraction.groups()
        value = Fraction(f"{sign}{top}/{bottom}")
        yield from (str(-value), str(1 / value), str(round(value)))
        if Fraction(f"{float(value):.1f}") != value:
            yield f"{float(value):.1f}"
        yield repr(float(value) * (1 + 1e-5))
    if based := BASED.fullmatch(answer):
        digits, base = based.groups()
        yield from (f"{digits}_{{{int(base) + 1}}}", f"{digits}_{{10}}", f"{digits}1_{base}")
    if DECIMAL.fullmatch(answer):
        yield from (answer[:-1], f"{answer}1", f"{answer[:-1]}{int(answer[-1]) - 1}")
    if pair := re.fullmatch(r"(?:\\left)?\(([^,()]*),([^,()]*?)(?:\\right)?\)", answer):
        first, second = pair.groups()
        yield from (f"\\{{{first},{second}\\}}", f"{first},{second}", f"({second},{first})", first)
    if re.fullmatch(r"\\text\{[^{}]*\}", answer):
        yield from ("\\text{Other}", "5")


@pytest.mark.timeout(600)
def test_no_reference_answer_is_missed_in_any_form_that_a_model_gives_it() -> None:
    missed = [
        (gold, form) for gold in references() for form in as_models_write(gold) if not equal(gold, form)
    ]
    assert missed == []


@pytest.mark.timeout(600)
def test_the_comparison_itself_reads_each_reference_answer() -> None:
    from cort_math.comparison import correct  # equal strings would be right without it

    assert [gold for gold in references() if not correct(gold, gold)] == []


@pytest.mark.timeout(600)
def test_no_wrong_answer_is_taken_for_a_reference() -> None:
    everything, noise = references(), Random(0)
    taken = []
    for gold in everything:
        others = [o for o in noise.sample(everything, 3) if o != gold]
        others = [o for o in others if quick(gold, o) is not True and not same_but_unit(gold, o)]
        taken += [(gold, form) for form in [*wrong(gold), *others] if equal(gold, form)]
    assert taken == []


def same_but_unit(a: str, b: str) -> bool:
    """15 cm² and 15: references of two problems that agree when the unit is left out."""
    bare = [re.sub(r"\\(?:mbox|text)\{[^{}]*\}(?:\^\d)?", "", text).strip() for text in (a, b)]
    return bare[0] == bare[1]


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("(1,2]", "1 < x \\le 2"),
        ("[0,\\infty)", "x \\ge 0"),
        ("(-\\infty,2)\\cup(3,\\infty)", "x \\in (3,\\infty)\\cup(-\\infty,2)"),
        ("1,2", "x = 2 \\text{ or } x = 1"),
        ("\\{1,2\\}", "2, 1"),
        ("2\\frac{1}{2}", "\\frac{5}{2}"),
        ("90^\\circ", "90"),
        ("10\\%", "10"),
        ("\\$32,\\!348", "32348"),
        ("1 \\pm \\sqrt{19}", "1+\\sqrt{19}, 1-\\sqrt{19}"),
        ("y = 2x+1", "2x + 1"),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{bmatrix}1\\\\2\\end{bmatrix}"),
    ],
)
def test_an_answer_in_another_notation_is_right(gold: str, answer: str) -> None:
    assert equal(gold, answer)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("(1,2]", "1 < x < 2"),
        ("(2,\\infty)", "x > 3"),
        ("(-2,1)", "\\{-2,1\\}"),
        ("\\{1,2\\}", "(1,2)"),
        ("1,2", "1"),
        ("1 \\pm \\sqrt{19}", "1 + \\sqrt{19}"),
        ("\\frac{14}{3}", "4.67"),
        ("\\pi", "3.14"),
        ("2516_8", "2517_8"),
        ("11{:}45", "11{:}46"),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}2\\\\1\\end{pmatrix}"),
    ],
)
def test_an_answer_that_is_near_is_not_right(gold: str, answer: str) -> None:
    assert not equal(gold, answer)
