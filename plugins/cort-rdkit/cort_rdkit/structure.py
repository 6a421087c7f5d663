"""Atoms and bonds: rings, stereochemistry, functional groups."""

from __future__ import annotations

from typing import Any

from cort_python.operations import Lazy, Operations
from cort_rdkit.molecules import Chem, Molecule, atom_of

labeler: Any = Lazy("rdkit.Chem.rdCIPLabeler")
calculated: Any = Lazy("rdkit.Chem.rdMolDescriptors")
structure = Operations()

GROUPS = {
    "carboxylic acid": "[CX3](=O)[OX2H1]",
    "ester": "[#6][CX3](=O)[OX2H0][#6]",
    "amide": "[CX3](=O)[NX3]",
    "anhydride": "[CX3](=O)[OX2][CX3](=O)",
    "acyl halide": "[CX3](=O)[F,Cl,Br,I]",
    "aldehyde": "[CX3H1](=O)[#6,H]",
    "ketone": "[#6][CX3](=O)[#6]",
    "alcohol": "[CX4][OX2H]",
    "phenol": "c[OX2H]",
    "ether": "[OD2;!$(OC=O)]([#6])[#6]",
    "primary amine": "[NX3;H2;!$(NC=O);!$(N[#7,#8,#16])][#6]",
    "secondary amine": "[NX3;H1;!$(NC=O);!$(N[#7,#8,#16])]([#6])[#6]",
    "tertiary amine": "[NX3;H0;!$(NC=O);!$(N[#7,#8,#16])]([#6])([#6])[#6]",
    "nitrile": "[CX2]#[NX1]",
    "nitro": "[$([NX3](=O)=O),$([NX3+](=O)[O-])]",
    "thiol": "[#6][SX2H]",
    "sulfonamide": "[SX4](=O)(=O)[NX3]",
    "alkene": "[CX3;!$(C=[!#6])]=[CX3;!$(C=[!#6])]",
    "alkyne": "[CX2]#[CX2]",
    "halide": "[#6;!$(C=O)][F,Cl,Br,I]",
    "aromatic ring": "aromatic",
}
"""SMARTS of the functional groups, in the order in which they are told."""


@structure.add('atom_table("CC=O")')
def atom_table(smiles: Molecule) -> str:
    """A line an atom, hydrogens left out: index, element, hydrogens, charge, hybridisation, rings, neighbours."""
    rings = smiles.GetRingInfo()
    lines = []
    for atom in smiles.GetAtoms():
        neighbours = " ".join(str(n.GetIdx()) for n in atom.GetNeighbors()) or "none"
        kind = "aromatic " if atom.GetIsAromatic() else ""
        lines.append(
            f"{atom.GetIdx()} {atom.GetSymbol()}: H {atom.GetTotalNumHs()}, charge {atom.GetFormalCharge()},"
            f" {kind}{str(atom.GetHybridization()).lower()}, rings {rings.NumAtomRings(atom.GetIdx())},"
            f" bonded to {neighbours}"
        )
    return "\n".join(lines)


@structure.add('hybridization("CC#N", 1)')
def hybridization(smiles: Molecule, atom: int) -> str:
    """The hybridisation of the atom with that index (the first in the SMILES is 0)."""
    return str(atom_of(smiles, atom).GetHybridization()).lower()


@structure.add('functional_groups("CC(=O)Oc1ccccc1C(=O)O")')
def functional_groups(smiles: Molecule) -> str:
    """How often each functional group occurs."""
    found = []
    for name, smarts in GROUPS.items():
        if smarts == "aromatic":
            number = aromatic_rings(smiles)
        else:
            number = len(smiles.GetSubstructMatches(Chem.MolFromSmarts(smarts), maxMatches=100_000))
        if number:
            found.append(f"{name}: {number}")
    return "\n".join(found) or "none of those known"


# --- rings ------------------------------------------------------------------------------------------------------
@structure.add('rings("c1ccc2ccccc2c1")', "ring_count")
def rings(smiles: Molecule) -> int:
    """How many rings there are (smallest set)."""
    return int(calculated.CalcNumRings(smiles))


@structure.add('ring_sizes("C1CCC2CCCCC2C1")')
def ring_sizes(smiles: Molecule) -> list[int]:
    """The number of atoms of each ring (smallest set)."""
    return sorted(len(ring) for ring in smiles.GetRingInfo().AtomRings())


@structure.add('aromatic_rings("c1ccccc1C1CC1")')
def aromatic_rings(smiles: Molecule) -> int:
    """How many of them are aromatic."""
    return int(calculated.CalcNumAromaticRings(smiles))


@structure.add('spiro_atoms("C1CCC2(C1)CC2")')
def spiro_atoms(smiles: Molecule) -> int:
    """Atoms that two rings have as their only common one."""
    return int(calculated.CalcNumSpiroAtoms(smiles))


@structure.add('bridgeheads("C1CC2CCC1C2")')
def bridgeheads(smiles: Molecule) -> int:
    """Atoms at the ends of bridges of rings."""
    return int(calculated.CalcNumBridgeheadAtoms(smiles))


# --- stereochemistry --------------------------------------------------------------------------------------------
@structure.add('stereo_centers("C[C@H](N)C(=O)O")', "stereocenters", "chiral_centers")
def stereo_centers(smiles: Molecule) -> str:
    """How many stereocentres there are, and each one: atom index, element, R, S or ? where it is not given."""
    found = Chem.FindMolChiralCenters(smiles, includeUnassigned=True, useLegacyImplementation=False)
    each = ", ".join(f"{index} {smiles.GetAtomWithIdx(index).GetSymbol()} {label}" for index, label in found)
    return f"{len(found)}: {each}" if found else "0"


@structure.add('stereo_bonds("C/C=C\\C")', "double_bond_stereo")
def stereo_bonds(smiles: Molecule) -> str:
    """How many double bonds can be E or Z, and each one: its atoms' indices, E, Z or ? where it is not given."""
    labelled = Chem.Mol(smiles)
    labeler.AssignCIPLabels(labelled)
    found = []
    for info in Chem.FindPotentialStereo(labelled):
        if info.type == Chem.StereoType.Bond_Double:
            bond = labelled.GetBondWithIdx(info.centeredOn)
            label = bond.GetProp("_CIPCode") if bond.HasProp("_CIPCode") else "?"
            found.append(f"{bond.GetBeginAtomIdx()}-{bond.GetEndAtomIdx()} {label}")
    return f"{len(found)}: {', '.join(found)}" if found else "0"


@structure.add('is_chiral("C[C@H](N)C(=O)O")')
def is_chiral(smiles: Molecule) -> bool:
    """Whether the molecule as it is written differs from its mirror image."""
    mirrored = Chem.Mol(smiles)
    for atom in mirrored.GetAtoms():
        atom.InvertChirality()
    return bool(Chem.MolToSmiles(mirrored) != Chem.MolToSmiles(smiles))


@structure.add('mirror_image("C[C@H](N)C(=O)O")', "enantiomer")
def mirror_image(smiles: Molecule) -> str:
    """The SMILES with every stereocentre inverted."""
    mirrored = Chem.Mol(smiles)
    for atom in mirrored.GetAtoms():
        atom.InvertChirality()
    return str(Chem.MolToSmiles(mirrored))
