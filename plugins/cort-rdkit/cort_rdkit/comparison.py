"""Parts in common: substructures, scaffolds, similarity."""

from __future__ import annotations

from typing import Any, Literal

from cort_python.operations import Lazy, Operations
from cort_rdkit.identity import listed
from cort_rdkit.molecules import Chem, Molecule, Pattern

generators: Any = Lazy("rdkit.Chem.rdFingerprintGenerator")
scaffolds: Any = Lazy("rdkit.Chem.Scaffolds.MurckoScaffold")
rdFMCS: Any = Lazy("rdkit.Chem.rdFMCS")
MACCSkeys: Any = Lazy("rdkit.Chem.MACCSkeys")
DataStructs: Any = Lazy("rdkit.DataStructs")
comparison = Operations()

MAX_MATCHES = 100_000


@comparison.add('substructure_count("OCCO", "[OH]")', "substructure", "count_substructure")
def substructure_count(smiles: Molecule, pattern: Pattern) -> int:
    """How often the pattern occurs (each set of atoms once)."""
    return len(smiles.GetSubstructMatches(pattern, uniquify=True, maxMatches=MAX_MATCHES))


@comparison.add('has_substructure("CCO", "[OH]")')
def has_substructure(smiles: Molecule, pattern: Pattern) -> bool:
    """Whether the pattern occurs; stereochemistry in it counts."""
    return bool(smiles.HasSubstructMatch(pattern, useChirality=True))


@comparison.add('substructure_atoms("OCCO", "CO")')
def substructure_atoms(smiles: Molecule, pattern: Pattern) -> list[tuple[int, ...]]:
    """The indices of the atoms of each occurrence, in the pattern's order."""
    return [*smiles.GetSubstructMatches(pattern, uniquify=True, maxMatches=MAX_MATCHES)]


@comparison.add('common_substructure("CCOc1ccccc1", "CNc1ccccc1")', "mcs")
def common_substructure(*molecules: Molecule) -> str:
    """The largest connected part that all the molecules have, as it is in the first one, rings whole."""
    if len(molecules) < 2:
        raise ValueError("two molecules or more are expected")
    found = rdFMCS.FindMCS(list(molecules), ringMatchesRingOnly=True, completeRingsOnly=True)
    if not found.numAtoms:
        return "nothing"
    match = molecules[0].GetSubstructMatch(found.queryMol)
    return f"{found.numAtoms} atoms, {found.numBonds} bonds: {Chem.MolFragmentToSmiles(molecules[0], match)}"


@comparison.add('scaffold("CCOc1ccc(CN2CCCC2)cc1")', "murcko_scaffold")
def scaffold(smiles: Molecule) -> str:
    """The Bemis-Murcko scaffold: rings and what links them."""
    return str(Chem.MolToSmiles(scaffolds.GetScaffoldForMol(smiles))) or "there are no rings"


@comparison.add('similarity("CCO", "CCN")', "tanimoto")
def similarity(
    first: Molecule,
    second: Molecule,
    fingerprint: Literal["morgan", "rdkit", "atompair", "torsion", "maccs"] = "morgan",
) -> str:
    """The Tanimoto similarity of two fingerprints (morgan: radius 2, 2048 bits)."""
    one, other = (bits(molecule, fingerprint) for molecule in (first, second))
    return f"{DataStructs.TanimotoSimilarity(one, other):.4f}"


def bits(molecule: Any, fingerprint: str) -> Any:
    if fingerprint == "maccs":
        return MACCSkeys.GenMACCSKeys(molecule)
    generator = {
        "morgan": lambda: generators.GetMorganGenerator(radius=2, fpSize=2048),
        "rdkit": lambda: generators.GetRDKitFPGenerator(),
        "atompair": lambda: generators.GetAtomPairGenerator(),
        "torsion": lambda: generators.GetTopologicalTorsionGenerator(),
    }[fingerprint]()
    return generator.GetFingerprint(molecule)


@comparison.add('replace("CCO", "[OH]", "Cl")', "replace_substructure")
def replace(smiles: Molecule, pattern: Pattern, replacement: Molecule) -> str:
    """Every molecule that replacing one or all occurrences of the pattern gives: how many, and each."""
    results = [
        *Chem.ReplaceSubstructs(smiles, pattern, replacement),
        *Chem.ReplaceSubstructs(smiles, pattern, replacement, replaceAll=True),
    ]
    return listed(sorted(valid(results)))


def valid(results: list[Any]) -> set[str]:
    """The canonical SMILES of those that are possible molecules."""
    found = set()
    for result in results:
        if Chem.SanitizeMol(result, catchErrors=True) == Chem.SanitizeFlags.SANITIZE_NONE:
            found.add(Chem.MolToSmiles(result))
    return found
