"""Finding written-out arithmetic in text, plain or LaTeX, and weighing it.

The unit of weight is the *digit operation*: one step of a calculation on paper. A product of a two-digit and a three-digit
number takes six, a sum of three-digit numbers three.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction


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
    result: Fraction
    """The last number."""


_NUMBER = r"(?<![\w.])\d{1,200}(?:(?:,|___)\d{3}){0,20}(?:\.\d{1,200})?(?!\w)"
_ONE_NUMBER = re.compile(_NUMBER)
_LIST = re.compile(rf"{_NUMBER}(?:(?:,|;| and|,? then) {{1,4}}{_NUMBER}){{7,}}")
_TOKEN = re.compile(
    rf"(?P<number>{_NUMBER})|(?P<operator>[*/%^+\-])|(?P<equals>=+)|(?P<space>\s+)|(?P<other>\w+|.)"
)

_SYMBOLS = (
    (re.compile(r"\{,\}"), "___"),
    (
        re.compile(
            r"\\(?:times|cdot|ast)(?![a-z])|[×·⋅∙]|\b(?:times|multiplied by)\b|(?<=\d\s)x(?=\s\d)|乘以?"
        ),
        "*",
    ),
    (re.compile(r"\\div(?![a-z])|÷|\bdivided by\b|除以"), "/"),
    (re.compile(r"\\[bp]?mod(?![a-z])|\bmod(?:ulo)?\b"), "%"),
    (re.compile(r"\bplus\b|加"), "+"),
    (re.compile(r"\bminus\b|[−–]|减"), "-"),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\bsquared\b"), "^2"),
    (re.compile(r"\bcubed\b"), "^3"),
    (re.compile(r"\\equiv(?![a-z])|[≡＝]|\b(?:equals|is|gives|makes)\b|等于|得"), "="),
    (re.compile(r"\\(?:left|right|displaystyle|,|;|!|quad|\(|\)|\[|\])|[(){}\[\]$&]"), " "),
)
_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")


def _plain(text: str) -> str:
    """The text with its operators written in one way and its brackets blank; every character stays where it was."""
    text = _FRACTION.sub(lambda m: " " * (m.start(1) - m.start()) + m[1] + " /" + m[2] + " ", text)
    for pattern, symbol in _SYMBOLS:
        text = pattern.sub(lambda m, s=symbol: s[: len(m[0])].ljust(len(m[0])), text)  # type: ignore[misc]
    return text


def _value(number: str) -> Fraction:
    return Fraction(number.replace(",", "").replace("_", ""))


def _digits(number: str) -> int:
    """Digits that cost work: 1200 has two, 0.05 one."""
    return len(re.sub(r"\D", "", number).strip("0")) or 1


def _weight(left: str, operator: str, right: str) -> int:
    a, b = _digits(left), _digits(right)
    if operator in "+-":
        return max(a, b)
    if operator == "^":
        exponent = int(right) if right.isdigit() and len(right) < 4 else 2
        return a * a * min(max(exponent - 1, 0), 4)
    if 1 in (_value(left), _value(right)):
        return 0
    return a * b


def chains(text: str) -> list[Chain]:
    """All chains of equalities between numbers in which something is worked out. Linear in the length of the text."""
    found: list[Chain] = []
    parts: list[re.Match[str]] = []  # numbers, and one operator or equality sign between two of them
    line_ended = False

    def finish() -> None:
        while parts and parts[-1].lastgroup != "number":
            parts.pop()
        if any(part.lastgroup == "equals" for part in parts):
            found.append(_chain(parts))
        parts.clear()

    for token in _TOKEN.finditer(_plain(text)):
        kind = token.lastgroup
        if kind == "space":
            line_ended = line_ended or "\n" in token[0]
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


def _chain(parts: list[re.Match[str]]) -> Chain:
    weight, operands = 0, set()
    for left, sign, right in zip(parts, parts[1:], parts[2:], strict=False):
        if sign.lastgroup == "operator":
            weight += _weight(left[0], sign[0], right[0])
            operands |= {_value(left[0]), _value(right[0])}
    return Chain(
        parts[0].start(),
        parts[-1].end(),
        weight=weight,
        sides=1 + sum(part.lastgroup == "equals" for part in parts),
        operands=frozenset(operands),
        result=_value(parts[-1][0]),
    )


def listings(text: str, known: frozenset[Fraction]) -> list[Chain]:
    """Values written out one after the other: at least eight numbers, most of them of two digits and not ``known``."""
    found = []
    for match in _LIST.finditer(_plain(text)):
        values = [_value(n) for n in _ONE_NUMBER.findall(match[0])]
        new = sum(value >= 10 and value not in known for value in values)
        if 2 * new > len(values):
            found.append(Chain(match.start(), match.end(), new, len(values), frozenset(values), values[-1]))
    return found
