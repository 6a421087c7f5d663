"""How calls of operations are read from a fence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cort_python.notation import NotationError, Written, read_calls


@pytest.mark.parametrize(
    ("code", "name", "arguments"),
    [
        ("gcd(12, 18)", "gcd", ("12", "18")),
        ("det([[1, 2], [3, 4]])", "det", ("[[1, 2], [3, 4]]",)),
        ("solve([x + y == 3,\n  x - y == 1], [x, y])", "solve", ("[x + y == 3,\n  x - y == 1]", "[x, y]")),
        ('similarity("C(,", "C)N")', "similarity", ('"C(,"', '"C)N"')),
        ("formula(CC(=O)Oc1ccccc1)", "formula", ("CC(=O)Oc1ccccc1",)),
        ("f(y'' + y, x)", "f", ("y'' + y", "x")),
        (r"canonical(F/C=C\F)  # trans", "canonical", (r"F/C=C\F",)),
        ("print(isprime(7))", "isprime", ("7",)),
        ("nothing( )", "nothing", ()),
    ],
)
def test_an_argument_is_the_text_between_commas_outside_brackets_and_quotes(
    code: str, name: str, arguments: tuple[str, ...]
) -> None:
    assert list(read_calls(code)) == [Written(name, arguments)]


def test_calls_come_one_a_line_with_comments_between() -> None:
    calls = list(read_calls("# first\n\ngcd(1, 2); \n  lcm(3, 4)\n# last"))
    assert [call.name for call in calls] == ["gcd", "lcm"]
    assert list(read_calls(" \n# nothing\n")) == []


def test_only_the_operation_s_own_names_give_an_argument_by_name() -> None:
    call = Written("f", ("C=O", "x = 4", "digits = 30", 'smiles="C,C"'))
    assert call.split(frozenset({"digits", "smiles"})) == (
        ["C=O", "x = 4"],
        {"digits": "30", "smiles": "C,C"},
    )


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("x = 3", "line 1: write operation"),
        ("gcd(1, 2)\n2 + 2", "line 2: write operation"),
        ("gcd(1, 2) + 1", "line 1: after gcd(…) comes nothing more"),
        ("gcd(1, 2", "line 1: gcd: a bracket is not closed"),
        ('canonical("CC)', "line 1: canonical: a quote is not closed"),
        ("gcd(1, , 2)", "line 1: gcd: an argument is missing"),
    ],
)
def test_what_is_no_call_is_told_where(code: str, fault: str) -> None:
    with pytest.raises(NotationError, match=fault.replace("(", r"\(").replace(")", r"\)")):
        list(read_calls(code))


@given(st.text(alphabet="ab(),=\"'#\n []x1\\", max_size=40))
def test_any_text_is_calls_or_a_fault(text: str) -> None:
    try:
        calls = list(read_calls(text))
    except NotationError:
        return
    for call in calls:
        assert call.name in text and all(argument in text for argument in call.arguments)
