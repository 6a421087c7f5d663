"""Import this before anything is forked: SymPy is loaded, and the paths that calls usually take are taken once."""

from __future__ import annotations

from cort_sympy.operations import operations

operations.warm(
    "integrate(x**2*cos(x), x, 0, 1)",
    "integrate(cos(x)**3*exp(x), x)",
    "integrate(1/(x**3 + 1), x)",
    "solve(x**3 - 3*x + 1, x)",
    "solve(sqrt(x + 1) == x - 1, x)",
    "solve(exp(2*x) - 3*exp(x) + 2, x)",
    "limit((1 + 2/n)**n, n, oo)",
    "summation(1/(k*(k + 1)), k, 1, oo)",
    "simplify(log(x**2)/sqrt(8) + tan(x)*cos(x))",
    "factorint(2**67 - 1)",
)
