"""What a molecule is: canonical forms, names, variants."""

from __future__ import annotations

from typing import Any

from cort_python.operations import Lazy, Operations
from cort_rdkit.molecules import Chem, Molecule

stereo: Any = Lazy("rdkit.Chem.EnumerateStereoisomers")
standardize: Any = Lazy("rdkit.Chem.MolStandardize.rdMolStandardize")
identity = Operations()

MAX_LISTED = 200
"""Molecules in a list at most."""


def listed(found: list[str]) -> str:
    """How many, and each one on a line of its own."""
    shown = found[:MAX_LISTED]
    return "\n".join([str(len(found)), *shown, *(["…"] if len(found) > len(shown) else [])])


@identity.add('canonical("OC(=O)C")', "canonical_smiles")
def canonical(smiles: Molecule) -> str:
    """The canonical SMILES."""
    return str(Chem.MolToSmiles(smiles))


@identity.add('kekule("c1ccccc1O")')
def kekule(smiles: Molecule) -> str:
    """The SMILES with single and double bonds in place of aromatic ones."""
    drawn = Chem.Mol(smiles)
    Chem.Kekulize(drawn, clearAromaticFlags=True)
    return str(Chem.MolToSmiles(drawn, kekuleSmiles=True))


@identity.add('inchi("CCO")')
def inchi(smiles: Molecule) -> str:
    """The InChI."""
    return str(Chem.MolToInchi(smiles))


@identity.add('inchi_key("CCO")')
def inchi_key(smiles: Molecule) -> str:
    """The InChIKey."""
    return str(Chem.MolToInchiKey(smiles))


@identity.add('is_same("OCC", "CCO")', "same")
def is_same(first: Molecule, second: Molecule) -> bool:
    """Whether two SMILES write the same molecule, stereochemistry included."""
    return bool(canonical(first) == canonical(second))


@identity.add('without_stereo("C[C@H](N)C(=O)O")', "flatten")
def without_stereo(smiles: Molecule) -> str:
    """The canonical SMILES without stereochemistry."""
    return str(Chem.MolToSmiles(smiles, isomericSmiles=False))


@identity.add('parent("CC(=O)[O-].[Na+]")', "standardize")
def parent(smiles: Molecule) -> str:
    """The largest fragment, with charges taken away where hydrogens can do it: salts and ions to their compound."""
    largest = standardize.LargestFragmentChooser().choose(smiles)
    return str(Chem.MolToSmiles(standardize.Uncharger().uncharge(largest)))


@identity.add('fragments("CC(=O)[O-].[Na+]")')
def fragments(smiles: Molecule) -> str:
    """How many separate molecules or ions there are, and each."""
    return listed(sorted(Chem.MolToSmiles(part) for part in Chem.GetMolFrags(smiles, asMols=True)))


@identity.add('tautomers("CC(=O)CC(C)=O")')
def tautomers(smiles: Molecule) -> str:
    """How many tautomers RDKit's rules find, and each."""
    found = standardize.TautomerEnumerator().Enumerate(smiles)
    return listed(sorted(Chem.MolToSmiles(tautomer) for tautomer in found))


@identity.add('canonical_tautomer("CC(O)=CC(C)=O")')
def canonical_tautomer(smiles: Molecule) -> str:
    """The tautomer that stands for all of a compound's."""
    return str(Chem.MolToSmiles(standardize.TautomerEnumerator().Canonicalize(smiles)))


@identity.add('stereoisomers("CC(O)C(C)O")', "isomers")
def stereoisomers(smiles: Molecule) -> str:
    """How many stereoisomers there are where stereochemistry is not given, and each; meso forms count once."""
    options = stereo.StereoEnumerationOptions(unique=True, onlyUnassigned=True)
    isomers = stereo.EnumerateStereoisomers(smiles, options)
    return listed(sorted({Chem.MolToSmiles(isomer) for isomer in isomers}))
