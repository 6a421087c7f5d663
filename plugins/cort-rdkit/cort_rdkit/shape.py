"""Molecules in space, and on paper. Conformers are those of a fixed seed, so that a call repeats."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from cort_python.operations import File, Lazy, Operations
from cort_rdkit.molecules import Chem, Molecule, Pattern, atom_of

AllChem: Any = Lazy("rdkit.Chem.AllChem")
transforms: Any = Lazy("rdkit.Chem.rdMolTransforms")
rdMolDraw2D: Any = Lazy("rdkit.Chem.Draw.rdMolDraw2D")
shape = Operations()

SEED = 42
Side = Annotated[int, Field(ge=50, le=2000)]


def embedded(smiles: Any, seed: int) -> Any:
    """The molecule with hydrogens and a conformer, relaxed in the MMFF94 (else UFF) force field; ``.energy`` in
    kcal/mol is the molecule's property. Raises ``ValueError`` where RDKit finds none."""
    molecule = Chem.AddHs(smiles)
    parameters = AllChem.ETKDGv3()
    parameters.randomSeed = seed
    if AllChem.EmbedMolecule(molecule, parameters) != 0:
        raise ValueError("no conformer was found: the structure may be too strained")
    if AllChem.MMFFHasAllMoleculeParams(molecule):
        field = AllChem.MMFFGetMoleculeForceField(molecule, AllChem.MMFFGetMoleculeProperties(molecule))
        name = "MMFF94"
    else:
        field, name = AllChem.UFFGetMoleculeForceField(molecule), "UFF"
    field.Minimize(maxIts=5000)
    molecule.SetDoubleProp("energy", field.CalcEnergy())
    molecule.SetProp("field", name)
    return molecule


@shape.add('conformer_energy("CCO")', "energy")
def conformer_energy(smiles: Molecule, seed: int = SEED) -> str:
    """The energy in kcal/mol of one relaxed conformer, and the force field's name."""
    found = embedded(smiles, seed)
    return f"{found.GetDoubleProp('energy'):.2f} ({found.GetProp('field')})"


@shape.add('conformers("CCCC", 5)')
def conformers(smiles: Molecule, count: Annotated[int, Field(ge=1, le=100)] = 10, seed: int = SEED) -> str:
    """The energies of several relaxed conformers in kcal/mol above the lowest of them, in order."""
    energies = sorted(embedded(smiles, seed + n).GetDoubleProp("energy") for n in range(count))
    return ", ".join(f"{energy - energies[0]:.2f}" for energy in energies)


@shape.add('coordinates("O")', "xyz")
def coordinates(smiles: Molecule, seed: int = SEED) -> str:
    """The atoms' positions in Å in one relaxed conformer, hydrogens included."""
    found = embedded(smiles, seed)
    lines = []
    for atom, (x, y, z) in zip(found.GetAtoms(), found.GetConformer().GetPositions(), strict=True):
        lines.append(f"{atom.GetSymbol():2} {x:9.4f} {y:9.4f} {z:9.4f}")
    return "\n".join(lines)


@shape.add('atom_distance("CC", 0, 1)')
def atom_distance(smiles: Molecule, first: int, second: int, seed: int = SEED) -> str:
    """The distance in Å between two atoms of a relaxed conformer."""
    found = embedded(smiles, seed)
    ends = [atom_of(found, index).GetIdx() for index in (first, second)]
    return f"{transforms.GetBondLength(found.GetConformer(), *ends):.3f}"


@shape.add('bond_angle("O", 1, 0, 2)')
def bond_angle(smiles: Molecule, first: int, corner: int, second: int, seed: int = SEED) -> str:
    """The angle in degrees at the second of three atoms of a relaxed conformer; hydrogens come last in the counting."""
    found = embedded(smiles, seed)
    atoms = [atom_of(found, index).GetIdx() for index in (first, corner, second)]
    return f"{transforms.GetAngleDeg(found.GetConformer(), *atoms):.1f}"


@shape.add('depict("CC(=O)Oc1ccccc1C(=O)O")', "draw")
def depict(smiles: Molecule, width: Side = 400, height: Side = 300, highlight: Pattern = None) -> File:
    """A PNG of the structural formula, in which the atoms of a pattern may be highlighted."""
    marked = (
        sorted({i for match in smiles.GetSubstructMatches(highlight) for i in match}) if highlight else []
    )
    drawer = rdMolDraw2D.MolDraw2DCairo(width, height)
    rdMolDraw2D.PrepareAndDrawMolecule(drawer, smiles, highlightAtoms=marked)
    drawer.FinishDrawing()
    return File(drawer.GetDrawingText(), ".png", f"a PNG of {width} × {height} pixels")
