"""Sums written out as a careful person writes them: column by column, every carry spelt out.

Each function returns one line of text that ends in its result, so that a small language model can do every step from what
stands directly before it.
"""

from __future__ import annotations


def _digits(number: int) -> list[int]:
    return [int(digit) for digit in reversed(str(number))]


def addition(a: int, b: int) -> str:
    """``84+78: 4+8=12, 8+7+1=16, giving 162``."""
    columns, carry = [], 0
    left, right = _digits(a), _digits(b)
    for place in range(max(len(left), len(right))):
        terms = [column[place] for column in (left, right) if place < len(column)]
        if carry:
            terms.append(carry)
        total = sum(terms)
        columns.append(f"{'+'.join(map(str, terms))}={total}" if len(terms) > 1 else str(total))
        carry = total // 10
    return f"{a}+{b}: {', '.join(columns)}, giving {a + b}" if len(columns) > 1 else f"{a}+{b}={a + b}"


def multiplication(a: int, digit: int) -> str:
    """``37*4: 7*4=28, 3*4+2=14, giving 148``; ``digit`` is below ten."""
    columns, carry = [], 0
    for value in _digits(a):
        total = value * digit + carry
        columns.append(f"{value}*{digit}{f'+{carry}' if carry else ''}={total}")
        carry = total // 10
    return (
        f"{a}*{digit}: {', '.join(columns)}, giving {a * digit}"
        if len(columns) > 1
        else f"{a}*{digit}={a * digit}"
    )


def division(a: int, digit: int) -> str:
    """``87/4: 8=2*4+0, 7=1*4+3, giving 21``: long division by a number below ten, rounded down."""
    columns, rest = [], 0
    for value in reversed(_digits(a)):
        rest = 10 * rest + value
        columns.append(f"{rest}={rest // digit}*{digit}+{rest % digit}")
        rest %= digit
    return f"{a}/{digit}: {', '.join(columns)}, giving {a // digit}"
