"""Reads molecules and patterns from text, with RDKit's reason where it cannot."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema


def molecule(text: object) -> Any:
    """The sanitized molecule of a SMILES. Raises ``ValueError``."""
    from rdkit import Chem, RDLogger

    if not isinstance(text, str) or not text.strip():
        raise ValueError('a SMILES in quotes is expected, as in "CCO"')
    RDLogger.DisableLog("rdApp.*")
    raw = Chem.MolFromSmiles(text.strip(), sanitize=False)
    if raw is None:
        raise ValueError(f"{text!r} is no valid SMILES (brackets, ring numbers or symbols are wrong)")
    problems = Chem.DetectChemistryProblems(raw)
    if problems:
        raise ValueError(f"{text!r} is no possible molecule: {'; '.join(p.Message() for p in problems)}")
    return Chem.MolFromSmiles(text.strip())


def pattern(text: object) -> Any:
    """The query of a SMARTS. Raises ``ValueError``."""
    from rdkit import Chem, RDLogger

    RDLogger.DisableLog("rdApp.*")
    query = Chem.MolFromSmarts(text.strip()) if isinstance(text, str) and text.strip() else None
    if query is None:
        raise ValueError(f"{text!r} is no valid SMARTS pattern")
    return query


Molecule = Annotated[
    Any, BeforeValidator(molecule), WithJsonSchema({"type": "string", "description": "a SMILES: CC(=O)O"})
]
Pattern = Annotated[
    Any,
    BeforeValidator(pattern),
    WithJsonSchema({"type": "string", "description": "a SMARTS, or a SMILES: C(=O)[OH]"}),
]
