"""What ``cort doctor`` asks of the tool ``rdkit``."""

from __future__ import annotations

from cort_python.operation_tool import OperationTool
from cort_python.rehearsal import OperationCheck


class RdkitCheck(OperationCheck):
    """One call of the tool, in a process of its own."""

    name = "rdkit"
    requires = ("rdkit>=2024.9",)
    code = 'formula("CCO")'
    answer = "C2H6O"

    def tool(self) -> type[OperationTool]:
        from cort_rdkit.tool import RdkitTool

        return RdkitTool
