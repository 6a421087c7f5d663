"""What a call does, and what of a response is the model's own prose."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stories import story

from cort_framework import Author, Outcome, Task, ToolCall, Trajectory, Turn
from cort_framework.evaluation.behaviour import label_calls, numbers, prose, subject


def test_numbers_are_read_with_separators_signs_and_decimals() -> None:
    values = [value for _, value in numbers("1,234 and 5{,}678, −3, 2.50, x2, 7. v1.2.3")]
    assert values[:5] == [1234, 5678, -3, Fraction(5, 2), 7]
    assert numbers("9" * 100_000) == []


def test_prose_is_what_the_model_wrote_and_no_code() -> None:
    trajectory = story("Let me see.\n", ("print(1)", "1"), "So 1.\n```text\nno prose\n```\nEnd")
    hinted = Turn("hint", (), "Use code.\n```python\n")
    trajectory.turns += [hinted, Turn("model", (), "print(2)\n```\nAfter <tool_call>{}</tool_call> all")]
    assert [trajectory.response[a:b] for a, b in prose(trajectory)] == [
        "Let me see.\n",
        "So 1.\n",
        "End",
        "After ",
        " all",
    ]


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.sampled_from(["model", "tool", "hint"]), st.text("a`\n{}<p", max_size=12)), max_size=8
    )
)
def test_prose_never_holds_what_another_wrote(parts: list[tuple[Author, str]]) -> None:
    turns = [Turn(author, (), text) for author, text in parts]
    trajectory = Trajectory("t/0", Task("t", "P"), turns=turns)
    own = {p for turn, a, b in trajectory.segments() if turn.author == "model" for p in range(a, b)}
    assert {p for a, b in prose(trajectory) for p in range(a, b)} <= own


@pytest.mark.parametrize(
    ("parts", "labels"),
    [
        (["It is quicker with code.\n", ("print(37*48)", "1776")], ["calculation"]),
        (["37*40=1480, 37*8=296, so 1,776.\n", ("print(37*48)", "1776")], ["verification"]),
        (["So I get = 12.\n", ("print(4*3)", "12")], ["verification"]),
        (["There are 12 cases.\n", ("print(4*3)", "12")], ["calculation"]),
        (["37 times 48.\n", ("print(37)", "37")], ["calculation"]),
        ([("print(37*48)", "1776"), "Again.\n", ("print(48*37)", "1776")], ["calculation", "verification"]),
        ([("# 1776\nprint(37*48)", "1776")], ["calculation"]),
        (["Compute it.\n", ("print(1/0)", "ZeroDivisionError", Outcome.PROGRAM_ERROR)], [None]),
        (["Is it so?\n", ("print(37*48 == 1776)", "True")], ["verification"]),
        (["Import first.\n", ("import math", "")], ["calculation"]),
        (["The root is 0.5.\n", ("print(1/2)", "0.5")], ["verification"]),
        (["```output\n1776\n```\n", ("print(37*48)", "1776")], ["calculation"]),
    ],
)
def test_a_call_whose_result_was_known_is_verification(
    parts: list[str | tuple[str, str]], labels: list[str | None]
) -> None:
    assert label_calls(story(*parts)) == labels


def test_what_the_model_says_after_a_call_does_not_make_it_verification() -> None:
    assert label_calls(story("Run it.\n", ("print(37*48)", "1776"), "So 37*48 = 1776.\n")) == ["calculation"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("print(37 * 48)", "arithmetic"),
        ("x = 3\nx**7 % 11", "arithmetic"),
        ("print(pow(3, 100, 7))", "number theory"),
        ("from math import gcd\nprint(gcd(12, 18))", "number theory"),
        ("print(int('1201', 3))", "number theory"),
        ("import sympy\nprint(sympy.isprime(97))", "number theory"),
        ("from sympy import symbols, solve\nx = symbols('x')\nprint(solve(x**2 - 2, x))", "symbolic"),
        ("print(sum(n for n in range(100) if n % 7 == 3))", "enumeration"),
        ("def f(n):\n    return 1 if n < 2 else f(n - 1) + f(n - 2)\nprint(f(20))", "enumeration"),
        ("def f(n):\n    return n + 1\nprint(f(20))", "arithmetic"),
        ("import itertools\nprint(len(list(itertools.permutations(range(5)))))", "enumeration"),
        ("import numpy as np\nprint(np.linalg.det([[1, 2], [3, 4]]))", "linear algebra"),
        ("import matplotlib.pyplot as plt\nplt.plot([1, 2])", "plotting"),
        ("import pandas as pd\nprint(pd.DataFrame({'a': [1]}).sum())", "data"),
        ("from statistics import mean\nprint(mean([1, 2]))", "data"),
        ("import random\nprint(sum(random.random() < 0.5 for _ in range(1000)))", "simulation"),
        ("from rdkit import Chem\nprint(Chem.MolFromSmiles('CCO').GetNumAtoms())", "chemistry"),
        ("import pint\nprint(pint.UnitRegistry()('1 mile').to('km'))", "units"),
        ("%timeit sum(range(10))", "arithmetic"),
        ("!pip list\nfrom rdkit import Chem", "chemistry"),
        ("def mean(a, b):\n    return (a + b) / 2\nprint(mean(1, 2))", "arithmetic"),
        ("", "arithmetic"),
    ],
)
def test_a_program_has_the_subject_of_what_it_calls(code: str, expected: str) -> None:
    assert subject(ToolCall("python", code)) == expected


def test_what_python_would_warn_of_in_a_models_program_is_nobodys_news(
    recwarn: pytest.WarningsRecorder,
) -> None:
    assert subject(ToolCall("python", "print(1if 2 else 3, '\\d')")) == "arithmetic"
    assert not recwarn.list


def test_a_native_call_has_the_subject_of_its_tool_and_arguments() -> None:
    assert subject(ToolCall("rdkit", arguments={"smiles": "CCO"})) == "chemistry"
    assert subject(ToolCall("sympy", arguments={"operation": "isprime", "n": "97"})) == "number theory"
    assert subject(ToolCall("sympy", arguments={"call": "integrate(x**2, x)"})) == "symbolic"
    assert subject(ToolCall("calculator", arguments=None)) == "arithmetic"


@given(st.text(max_size=200))
def test_every_text_has_a_subject(code: str) -> None:
    assert subject(ToolCall("python", code))
