"""Counting and recurrences. Factorials, binomials, Fibonacci, Catalan, Bell and Stirling numbers are functions of expressions."""

from __future__ import annotations

from typing import Any

from cort_python.operations import Lazy, Operations
from cort_sympy.expressions import Integer, Items

sympy: Any = Lazy("sympy")
numbers: Any = Lazy("sympy.functions.combinatorial.numbers")
discrete = Operations()


@discrete.add("partitions(100)", "npartitions")
def partitions(n: Integer) -> Any:
    """In how many ways n is a sum of positive whole numbers, whatever their order."""
    return numbers.partition(n)


@discrete.add("multinomial([4, 4, 2, 1])")
def multinomial(counts: Items) -> Any:
    """In how many orders things can stand, so many of each kind."""
    whole = list(map(int, counts))
    return sympy.factorial(sum(whole)) / sympy.Mul(*map(sympy.factorial, whole))


@discrete.add("derangements(10)", "subfactorial")
def derangements(n: Integer) -> Any:
    """How many permutations leave nothing in its place."""
    return sympy.subfactorial(n)


@discrete.add("stirling(10, 3)")
def stirling(n: Integer, k: Integer, kind: int = 2) -> Any:
    """Ways to part n things into k groups (kind 2), or into k cycles (kind 1)."""
    return numbers.stirling(int(n), int(k), kind=kind, signed=False)


@discrete.add("recurrence_term([1, 1], [0, 1], 100)")
def recurrence_term(coefficients: Items, initial: Items, n: Integer, modulus: Integer = None) -> Any:
    """a(n) for a(k) = c1*a(k-1) + c2*a(k-2) + … with a(0), a(1), … given; modulo a number where one is given."""
    if not coefficients or len(coefficients) != len(initial):
        raise ValueError("as many initial values as coefficients are expected")
    if n < 0:
        raise ValueError("n is 0 or more")
    size = len(initial)
    step = sympy.zeros(size)
    step[0, :] = sympy.Matrix([coefficients])
    for row in range(1, size):
        step[row, row - 1] = 1
    state = sympy.Matrix(list(reversed(initial)))
    exponent = int(n)

    def reduced(matrix: Any) -> Any:
        return matrix if modulus is None else matrix.applyfunc(lambda entry: entry % modulus)

    while exponent:
        if exponent & 1:
            state = reduced(step * state)
        step = reduced(step * step)
        exponent >>= 1
    return reduced(state)[size - 1]


@discrete.add("recurrence_formula([1, 1], [0, 1])", "rsolve")
def recurrence_formula(coefficients: Items, initial: Items) -> Any:
    """A formula in n for a(n) = c1*a(n-1) + c2*a(n-2) + … with a(0), a(1), … given."""
    if not coefficients or len(coefficients) != len(initial):
        raise ValueError("as many initial values as coefficients are expected")
    n, a = sympy.Symbol("n", integer=True), sympy.Function("a")
    equation = a(n) - sum(c * a(n - k) for k, c in enumerate(coefficients, 1))
    formula = sympy.rsolve(equation, a(n), {a(k): value for k, value in enumerate(initial)})
    if formula is None:
        raise ValueError("no formula was found; recurrence_term gives single terms")
    return formula


@discrete.add("interpolate([1, 2, 3], [1, 4, 9])")
def interpolate(arguments: Items, values: Items) -> Any:
    """The polynomial in x of lowest degree that takes these values."""
    return sympy.interpolate(list(zip(arguments, values, strict=True)), sympy.Symbol("x"))
