"""Import this before kernels are forked: SymPy is loaded, and the paths that a first integral takes are taken once."""

from __future__ import annotations

import sympy

_x = sympy.Symbol("x")
sympy.integrate(sympy.sin(_x) ** 2 * sympy.exp(_x), _x)
sympy.solve(_x**2 + _x - 1, _x)
sympy.simplify(sympy.sin(_x) ** 2 + sympy.cos(_x) ** 2)
sympy.factorint(2**20 + 7)
