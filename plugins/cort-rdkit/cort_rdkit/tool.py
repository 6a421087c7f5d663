"""Tool ``rdkit``."""

from __future__ import annotations

from cort_python.operations import OperationTool


class RdkitTool(OperationTool):
    """RDKit's answers about molecules, one call a line, with SMILES in quotes: ``formula("CCO")``."""

    name = "rdkit"
    language = "rdkit"
    requires = ("rdkit>=2024.9",)
    description = "Properties and comparison of molecules written as SMILES."
    preload = ("cort_rdkit.warm",)
    operations = "cort_rdkit.operations:operations"
