"""Reads molecules, patterns and reactions from text, with RDKit's reason where it cannot."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from cort_python.operations import Lazy

Chem: Any = Lazy("rdkit.Chem")
RDLogger: Any = Lazy("rdkit.RDLogger")
rdChemReactions: Any = Lazy("rdkit.Chem.rdChemReactions")


def quiet() -> None:
    """RDKit's own log lines come back as the reasons of errors."""
    RDLogger.DisableLog("rdApp.*")


def molecule(text: object) -> Any:
    """The sanitized molecule of a SMILES or an InChI. Raises ``ValueError``."""
    if not isinstance(text, str) or not text.strip():
        raise ValueError('a SMILES is expected, as in "CCO"')
    quiet()
    written = text.strip().replace("\\\\", "\\")
    if written.startswith("InChI="):
        found = Chem.MolFromInchi(written)
        if found is None:
            raise ValueError(f"{text!r} is no valid InChI")
        return found
    raw = Chem.MolFromSmiles(written, sanitize=False)
    if raw is None:
        raise ValueError(f"{text!r} is no valid SMILES{what_is_wrong(written)}")
    problems = Chem.DetectChemistryProblems(raw)
    if problems:
        raise ValueError(f"{text!r} is no possible molecule: {'; '.join(p.Message() for p in problems)}")
    return Chem.MolFromSmiles(written)


def what_is_wrong(smiles: str) -> str:
    """The fault that a reader would find first."""
    for opening, closing, what in (("(", ")", "branches"), ("[", "]", "square brackets")):
        if smiles.count(opening) != smiles.count(closing):
            return f": {smiles.count(opening)} {opening} but {smiles.count(closing)} {closing} ({what})"
    bare = re.sub(r"\[[^\]]*\]", "", smiles)
    numbers = re.findall(r"%\d\d|\d", bare)
    if odd := sorted({n for n in numbers if numbers.count(n) % 2}):
        return f": ring {', '.join(odd)} is not closed"
    if re.search(r"\s", smiles) or re.fullmatch(r"[a-z]{4,}", smiles):
        return ": names are not understood, write the structure"
    return " (brackets, ring numbers or symbols are wrong)"


def pattern(text: object) -> Any:
    """The query of a SMARTS. Raises ``ValueError``."""
    quiet()
    query = Chem.MolFromSmarts(text.strip()) if isinstance(text, str) and text.strip() else None
    if query is None:
        raise ValueError(f"{text!r} is no valid SMARTS pattern")
    return query


def reaction(text: object) -> Any:
    """The reaction of a reaction SMARTS. Raises ``ValueError``."""
    quiet()
    try:
        found = rdChemReactions.ReactionFromSmarts(str(text).strip().replace("\\\\", "\\"))
        _, errors = found.Validate(silent=True)
    except ValueError:
        raise ValueError(
            f"{text!r} is no reaction SMARTS, as in [C:1](=[O:2])O.[N:3]>>[C:1](=[O:2])[N:3]"
        ) from None
    if errors or not found.GetNumReactantTemplates() or not found.GetNumProductTemplates():
        raise ValueError(f"{text!r} has no reactants, no products or numbers that do not fit")
    return found


Molecule = Annotated[
    Any,
    BeforeValidator(molecule),
    WithJsonSchema({"type": "string", "description": "a SMILES or InChI: CC(=O)O"}),
]
Pattern = Annotated[
    Any,
    BeforeValidator(pattern),
    WithJsonSchema({"type": "string", "description": "a SMARTS, or a SMILES: C(=O)[OH]"}),
]
Reaction = Annotated[
    Any,
    BeforeValidator(reaction),
    WithJsonSchema({"type": "string", "description": "a reaction SMARTS: [C:1][OH]>>[C:1]Cl"}),
]


def atom_of(found: Any, index: int) -> Any:
    """The atom with that index. Raises ``ValueError`` where there is none."""
    if not 0 <= index < found.GetNumAtoms():
        raise ValueError(f"there is no atom {index}: they go from 0 to {found.GetNumAtoms() - 1}")
    return found.GetAtomWithIdx(index)
