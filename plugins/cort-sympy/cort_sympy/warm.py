"""Import this before anything is forked: SymPy is loaded, and the paths that calls usually take are taken once."""

from __future__ import annotations

import os

os.environ.setdefault(
    "SYMPY_CACHE_SIZE", "20000"
)  # else what is warmed last pushes out what was warmed first

from cort_sympy.operations import operations

operations.warm(
    "integrate(x**2*cos(x), x, 0, 1)",
    "integrate(cos(x)**3*exp(x), x)",
    "integrate(cos(x)**2, x, 0, pi/2)",
    "integrate(sin(3*x)*cos(x), x, 0, pi)",
    "integrate(1/(x**3 + 1), x)",
    "integrate(sqrt(1 - x**2), x, -1, 1)",
    "integrate(1/(1 + x**2), x, -oo, oo)",
    "solve(x**3 - 3*x + 1, x)",
    "solve(sqrt(x + 1) == x - 1, x)",
    "solve(exp(2*x) - 3*exp(x) + 2, x)",
    "limit((1 + 2/n)**n, n, oo)",
    "summation(1/(k*(k + 1)), k, 1, oo)",
    "simplify(log(x**2)/sqrt(8) + tan(x)*cos(x))",
    "factorint(2**67 - 1)",
)
