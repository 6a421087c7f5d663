"""Tool ``rdkit``."""

from __future__ import annotations

from pathlib import Path

from cort_framework import OpenContext
from cort_python.operation_tool import OperationTool


class RdkitTool(OperationTool):
    """RDKit's answers about molecules, one call a line: ``formula("CCO")``."""

    name = "rdkit"
    language = "rdkit"
    requires = ("rdkit>=2024.9",)
    description = "Properties, structure, comparison, reactions and pictures of molecules written as SMILES."
    preload = ("cort_rdkit.warm",)
    rehearsal = "formula(C)"
    operations = "cort_rdkit.operations:operations"

    class Config(OperationTool.Config):
        pictures: Path | None = None
        """Folder that keeps the PNGs of ``depict``; without one they go with the run's scratch folder."""

    config: Config

    async def open(self, context: OpenContext) -> None:
        await super().open(context)
        if self.config.pictures is not None:
            self.files = self.config.pictures
