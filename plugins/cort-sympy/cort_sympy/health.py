"""What ``cort doctor`` asks of the tool ``sympy``."""

from __future__ import annotations

from cort_python.operation_tool import OperationTool
from cort_python.rehearsal import OperationCheck


class SympyCheck(OperationCheck):
    """One call of the tool, in a process of its own."""

    name = "sympy"
    requires = ("sympy>=1.13",)
    code = "expand((x + 1)**2)"
    answer = "x**2 + 2*x + 1"

    def tool(self) -> type[OperationTool]:
        from cort_sympy.tool import SympyTool

        return SympyTool
