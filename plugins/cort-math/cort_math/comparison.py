"""Math-Verify's comparison of answers. For processes of calls alone: it may run away in time or memory on an
innocent-looking input, out of reach of any Python exception, and it evaluates what it reads.

Importing this takes a good part of a second, after which comparisons are quick.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

import sympy  # type: ignore[import-untyped]
from math_verify import (  # type: ignore[import-untyped]
    ExprExtractionConfig,
    LatexExtractionConfig,
    parse,
    verify,
)
from sympy import Basic, Float, MatrixBase, Rational, preorder_traversal

from cort_math.notation import comparable

TARGETS = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())
APPROXIMATION = Rational(1, 10**6)


def correct(gold: str, answer: str) -> bool:
    """Whether ``answer``, the content of a ``\\boxed{}``, means the same as ``gold``. An inequality means its interval.

    Decimals are exact, except that one of six digits or more, and within a relative 10⁻⁶ of a number in ``gold`` that no
    decimal equals, such as 1/3 or π, stands for that number.
    """
    pair = comparable(gold, answer)
    if pair is None:
        return False
    expected = parse(f"${pair[0]}$", TARGETS, parsing_timeout=None)
    given = parse(f"\\boxed{{{pair[1]}}}", TARGETS, parsing_timeout=None)
    if not expected or not given:
        return False
    endless = [number for part in expected for number in _endless(part)]
    given = [_exact(part, endless) for part in given]
    expected = [_exact(part, []) for part in expected]
    return bool(verify(expected, given, allow_set_relation_comp=True, timeout_seconds=None))


def _endless(expression: Any) -> Iterator[sympy.Expr]:
    """The numbers in an expression that have no end as decimals, without their sign."""
    for part in preorder_traversal(_immutable(expression)):
        if isinstance(part, sympy.Expr) and part.is_number and part.is_extended_real:
            value = part.doit()
            if not (isinstance(value, Rational) and _terminates(value)) and value.is_finite:
                yield abs(value)


def _terminates(value: Rational) -> bool:
    return pow(10, int(value.q).bit_length(), int(value.q)) == 0


def _exact(expression: Any, endless: list[sympy.Expr]) -> Any:
    """The expression with every decimal as a fraction, or as the number of ``endless`` that it stands for."""
    expression = _immutable(expression)
    if not isinstance(expression, Basic):
        return expression
    meant = {}
    for decimal in expression.atoms(Float):
        value = Rational(str(decimal))
        digits = re.sub(r"e.*|\D", "", str(decimal)).strip("0")
        near = (e for e in endless if len(digits) >= 6 and abs(abs(value) - e) <= APPROXIMATION * e)
        meant[decimal] = sympy.sign(value) * next(near, abs(value))
    return expression.xreplace(meant) if meant else expression


def _immutable(expression: Any) -> Any:
    return expression.as_immutable() if isinstance(expression, MatrixBase) else expression


def readable(gold: str) -> bool:
    """Whether ``gold`` can be read as mathematics at all."""
    return bool(parse(f"${gold}$", TARGETS, "no_fallback", parsing_timeout=None))


def answer(request: dict[str, Any]) -> bool:
    """What the grader asks: ``{"gold": …, "answer": …}``, or ``{"gold": …}`` alone."""
    logging.disable()
    if "answer" in request:
        return correct(request["gold"], request["answer"])
    return readable(request["gold"])


# A first comparison loads the parsers' tables: let the process do it that others are forked from.
assert correct("\\frac{\\sqrt{2}}{2} + x^{2}", "x^2 + \\frac{1}{\\sqrt{2}}")
assert not correct("(1, 2]", "\\{1, 2\\}")
