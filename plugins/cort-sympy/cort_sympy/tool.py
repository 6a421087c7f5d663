"""Tool ``sympy``."""

from __future__ import annotations

from cort_python.operation_tool import OperationTool


class SympyTool(OperationTool):
    """SymPy's operations, one call a line: ``solve(x**2 - 2, x)``. Expressions are read without running any code."""

    name = "sympy"
    language = "sympy"
    requires = ("sympy>=1.13",)
    description = "Exact mathematics: algebra, calculus, number theory and matrices."
    preload = ("cort_sympy.warm",)
    rehearsal = "expand((x + 1)**2)"
    operations = "cort_sympy.operations:operations"
