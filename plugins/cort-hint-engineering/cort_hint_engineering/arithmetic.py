"""Finding written-out arithmetic in text, plain or LaTeX, and weighing it.

The unit of weight is the *digit operation*: one step of a calculation on paper. A product of a two-digit and a three-digit
number takes six, a sum of three-digit numbers three.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise


@dataclass(frozen=True)
class Chain:
    """Numeric sides joined by equality signs: ``37*48 = 37*50 - 37*2 = 1776``."""

    start: int
    end: int
    weight: int
    """Digit operations on all sides."""
    sides: int
    operands: frozenset[Fraction]
    """The numbers that are operated on."""
    results: frozenset[Fraction]
    """The numbers that an equality sign comes to."""
    result: Fraction
    """The last number."""


NUMBER = r"(?<![A-Za-z0-9_.])\d{1,200}(?:(?:,|___)\d{3}){0,20}(?:\.\d{1,200})?(?![A-Za-z0-9_])"
_TOKEN = re.compile(
    rf"(?P<number>{NUMBER})|(?P<operator>[*/%^+\-])|(?P<equals>=+)|(?P<space>\s+)|(?P<power>[²³])|(?P<other>[A-Za-z_]\w*|.)"
)

_SYMBOLS = (
    (re.compile(r"\{,\}"), "___"),
    (
        re.compile(
            r"\\(?:times|cdot|ast)(?![a-z])|[×·⋅∙]|\b(?:times|multiplied by)\b|(?<=\d\s)x(?=\s\d)|乘以?"
        ),
        "*",
    ),
    (re.compile(r"(?<=\d)\s?的(?=\d{1,3}次方)|(?<=\d)\s?的(?=平方|立方)"), "^"),
    (re.compile(r"(?<=\d)次方"), " "),
    (re.compile(r"平方|立方"), "2"),
    (re.compile(r"\\div(?![a-z])|÷|\bdivided by\b|除以"), "/"),
    (re.compile(r"\\[bp]?mod(?![a-z])|\bmod(?:ulo)?\b"), "%"),
    (re.compile(r"\bplus\b|加上?|＋"), "+"),
    (re.compile(r"\bminus\b|[−–－]|减去?"), "-"),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\bsquared\b"), "^2"),
    (re.compile(r"\bcubed\b"), "^3"),
    (
        re.compile(
            r"\\equiv(?![a-z])|\\approx(?![a-z])|[≡＝≈]|\b(?:equals|is|gives|makes)\b|等于|[得到]{1,2}|就?是|(?<=\d)有(?=\d)|约?为"
        ),
        "=",
    ),
    (re.compile(r"\\(?:left|right|displaystyle|,|;|!|quad|\(|\)|\[|\])|[(){}\[\]$&（）]"), " "),
)
_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")


def plain(text: str) -> str:
    """The text with its operators written in one way and its brackets blank; every character stays where it was."""
    text = _FRACTION.sub(lambda m: " " * (m.start(1) - m.start()) + m[1] + " /" + m[2] + " ", text)
    for pattern, symbol in _SYMBOLS:
        text = pattern.sub(lambda m, s=symbol: s[: len(m[0])].ljust(len(m[0])), text)  # type: ignore[misc]
    return text


def value_of(number: str) -> Fraction:
    return Fraction(number.replace(",", "").replace("_", ""))


def digits(number: str) -> int:
    """Digits that cost work: 1200 has two, 0.05 one."""
    return len(re.sub(r"\D", "", number).strip("0")) or 1


def _weight(left: str, operator: str, right: str) -> int:
    a, b = digits(left), digits(right)
    if operator in "+-":
        return max(a, b)
    if operator == "^":
        exponent = int(right) if right.isdigit() and len(right) < 4 else 2
        if exponent >= 20:  # a power that is reasoned about, not multiplied out
            return 2
        return a * a * min(max(exponent - 1, 0), 4)
    if value_of(right) == 1 or (operator == "*" and value_of(left) == 1):
        return 0
    return a * b


def chains(text: str) -> list[Chain]:
    """All chains of equalities between numbers in which something is worked out. Linear in the length of the text."""
    found: list[Chain] = []
    parts: list[re.Match[str]] = []  # numbers, and one operator or equality sign between two of them
    powers: list[re.Match[str]] = []  # those numbers that a raised digit follows
    line_ended = False

    def finish() -> None:
        while parts and parts[-1].lastgroup != "number":
            parts.pop()
        if any(part.lastgroup == "equals" for part in parts):
            found.append(_chain(parts, powers))
        parts.clear()
        powers.clear()

    for token in _TOKEN.finditer(plain(text)):
        kind = token.lastgroup
        if kind == "space":
            line_ended = line_ended or "\n" in token[0]
            continue
        if kind == "power":
            if parts and parts[-1].end() == token.start():
                powers.append(parts[-1])
            continue
        after_number = bool(parts) and parts[-1].lastgroup == "number"
        # A line ends a chain unless an equality sign stands at the break, as in aligned LaTeX.
        if line_ended and kind != "equals" and not (parts and parts[-1].lastgroup == "equals"):
            finish()
            after_number = False
        line_ended = False
        if kind == "number":
            if after_number:
                finish()
            parts.append(token)
        elif kind in ("operator", "equals") and after_number:
            parts.append(token)
        elif not (token[0] == "-" and parts):  # a sign before a number belongs to it
            finish()
    finish()
    return [chain for chain in found if chain.weight]


def _chain(parts: list[re.Match[str]], powers: list[re.Match[str]]) -> Chain:
    weight = sum(_weight(number[0], "^", "2") for number in powers)
    operands = {value_of(number[0]) for number in powers}
    for left, sign, right in zip(parts, parts[1:], parts[2:], strict=False):
        if sign.lastgroup == "operator":
            weight += _weight(left[0], sign[0], right[0])
            operands |= {value_of(left[0]), value_of(right[0])}
    return Chain(
        parts[0].start(),
        parts[-1].end(),
        weight=weight,
        sides=1 + sum(part.lastgroup == "equals" for part in parts),
        operands=frozenset(operands),
        results=frozenset(
            value_of(right[0]) for sign, right in pairwise(parts) if sign.lastgroup == "equals"
        ),
        result=value_of(parts[-1][0]),
    )
