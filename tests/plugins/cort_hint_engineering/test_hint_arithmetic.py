"""Arithmetic in text: what is one calculation, and what it costs on paper."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cort_hint_engineering.arithmetic import chains


@pytest.mark.parametrize(
    ("text", "weight"),
    [
        ("2 + 2 = 4", 1),
        ("84+78=162", 2),
        ("7 × 346 = 2422", 3),
        ("37*48=1776", 4),
        ("$347 \\times 289 = 100{,}283$", 9),
        ("347 \\cdot 289 &= 100283", 9),
        ("\\frac{1776}{48} = 37", 8),
        ("1776 / 48 = 37", 8),
        ("12^3 = 1728", 8),
        ("12 squared is 144", 4),
        ("1,200 + 345 = 1,545", 3),
        ("100 * 37 = 3700", 2),
        ("1 * 37 = 37", 0),
        ("37 times 48 is 1776", 4),
        ("3(4+5) = 27", 1),
        ("37×48＝x, 37 乘 48 等于 1776", 4),
    ],
)
def test_a_calculation_weighs_the_digit_operations_that_it_takes_on_paper(text: str, weight: int) -> None:
    assert sum(chain.weight for chain in chains(text)) == weight


@pytest.mark.parametrize(
    "text",
    [
        "x = 5",
        "n^2 + n + 1 = 0",
        "3 = 3",
        "k = 1, 2, 3",
        "2x + 3y = 12z",
        "version 1.2.3-4 = old",
        "f(3) = 12",
        "3 + 4",
        "a_12 = b_13 + c",
    ],
)
def test_what_works_nothing_out_is_no_calculation(text: str) -> None:
    assert [chain for chain in chains(text) if chain.weight] == []


def test_a_chain_of_equalities_is_one_calculation_with_its_end_as_the_result() -> None:
    text = "So 37*48 = 37*50 - 37*2 = 1850 - 74 = 1776."
    (chain,) = chains(text)
    assert (chain.sides, chain.result) == (4, 1776)
    assert text[chain.start : chain.end] == "37*48 = 37*50 - 37*2 = 1850 - 74 = 1776"


@given(
    st.integers(2, 10**6),
    st.sampled_from("+-*/^"),
    st.integers(2, 10**6),
    st.text(alphabet="ab ,.\n", max_size=20),
)
def test_every_plain_equality_is_found_where_it_stands(a: int, operator: str, b: int, around: str) -> None:
    equality = f"{a} {operator} {b} = {a + b}"
    text = f"{around} {equality} {around}"
    assert [text[c.start : c.end] for c in chains(text)] == [equality]
