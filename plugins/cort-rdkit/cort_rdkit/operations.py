"""RDKit's answers about molecules, as a model asks for them. Imports RDKit only when one is called."""

from __future__ import annotations

from cort_python.operations import Operations
from cort_rdkit.molecules import Molecule, Pattern

operations = Operations()


# --- identity ---------------------------------------------------------------------------------------------------
@operations.add("canonical_smiles")
def canonical(smiles: Molecule) -> str:
    """The canonical SMILES."""
    from rdkit import Chem

    return str(Chem.MolToSmiles(smiles))


@operations.add()
def inchi_key(smiles: Molecule) -> str:
    """The InChIKey."""
    from rdkit import Chem

    return str(Chem.MolToInchiKey(smiles))


@operations.add("same")
def is_same(first: Molecule, second: Molecule) -> bool:
    """Whether two SMILES write the same molecule, stereochemistry included."""
    return canonical(first) == canonical(second)


# --- composition ------------------------------------------------------------------------------------------------
@operations.add("molecular_formula")
def formula(smiles: Molecule) -> str:
    """The molecular formula, in Hill order, with the charge."""
    from rdkit.Chem.rdMolDescriptors import CalcMolFormula

    return str(CalcMolFormula(smiles))


@operations.add("weight", "molecular_mass")
def molecular_weight(smiles: Molecule) -> str:
    """The average molecular weight in g/mol."""
    from rdkit.Chem.Descriptors import MolWt

    return f"{MolWt(smiles):.3f}"


@operations.add("monoisotopic_mass")
def exact_mass(smiles: Molecule) -> str:
    """The mass of the molecule of the most abundant isotopes, in Da."""
    from rdkit.Chem.Descriptors import ExactMolWt

    return f"{ExactMolWt(smiles):.5f}"


@operations.add("formal_charge")
def charge(smiles: Molecule) -> int:
    """The formal charge."""
    from rdkit import Chem

    return int(Chem.GetFormalCharge(smiles))


@operations.add()
def heavy_atoms(smiles: Molecule) -> int:
    """How many atoms are no hydrogen."""
    return int(smiles.GetNumHeavyAtoms())


@operations.add()
def atoms(smiles: Molecule, symbol: str = "") -> int:
    """How many atoms there are, hydrogens included; with a symbol, how many of that element."""
    from rdkit import Chem

    elements = [atom.GetSymbol() for atom in Chem.AddHs(smiles).GetAtoms()]
    if symbol:
        try:
            Chem.GetPeriodicTable().GetAtomicNumber(symbol)
        except RuntimeError:
            raise ValueError(f"there is no element {symbol!r}") from None
    return elements.count(symbol) if symbol else len(elements)


@operations.add("degree_of_unsaturation")
def unsaturation(smiles: Molecule) -> int:
    """Rings and multiple bonds together: the degree of unsaturation of the drawn structure."""
    from rdkit import Chem

    drawn = Chem.Mol(smiles)
    Chem.Kekulize(drawn, clearAromaticFlags=True)
    multiple = sum(
        int(bond.GetBondTypeAsDouble()) - 1 for bond in drawn.GetBonds() if bond.GetBondTypeAsDouble() > 1
    )
    return rings(smiles) + multiple


# --- structure --------------------------------------------------------------------------------------------------
@operations.add("ring_count")
def rings(smiles: Molecule) -> int:
    """How many rings there are (smallest set)."""
    from rdkit.Chem.rdMolDescriptors import CalcNumRings

    return int(CalcNumRings(smiles))


@operations.add()
def aromatic_rings(smiles: Molecule) -> int:
    """How many of them are aromatic."""
    from rdkit.Chem.rdMolDescriptors import CalcNumAromaticRings

    return int(CalcNumAromaticRings(smiles))


@operations.add("stereocenters", "chiral_centers")
def stereo_centers(smiles: Molecule) -> str:
    """How many stereocentres there are, and each one: atom index, element, R, S or ? where it is not given."""
    from rdkit import Chem

    found = Chem.FindMolChiralCenters(smiles, includeUnassigned=True, useLegacyImplementation=False)
    each = ", ".join(f"{index} {smiles.GetAtomWithIdx(index).GetSymbol()} {label}" for index, label in found)
    return f"{len(found)}: {each}" if found else "0"


@operations.add()
def h_bond_donors(smiles: Molecule) -> int:
    """Hydrogen-bond donors (Lipinski's counting by RDKit)."""
    from rdkit.Chem.rdMolDescriptors import CalcNumHBD

    return int(CalcNumHBD(smiles))


@operations.add()
def h_bond_acceptors(smiles: Molecule) -> int:
    """Hydrogen-bond acceptors (Lipinski's counting by RDKit)."""
    from rdkit.Chem.rdMolDescriptors import CalcNumHBA

    return int(CalcNumHBA(smiles))


@operations.add()
def rotatable_bonds(smiles: Molecule) -> int:
    """Rotatable bonds (RDKit's strict counting)."""
    from rdkit.Chem.rdMolDescriptors import CalcNumRotatableBonds

    return int(CalcNumRotatableBonds(smiles))


@operations.add("log_p")
def logp(smiles: Molecule) -> str:
    """The octanol-water partition coefficient's logarithm, after Wildman and Crippen."""
    from rdkit.Chem.Crippen import MolLogP

    return f"{MolLogP(smiles):.4f}"


@operations.add()
def tpsa(smiles: Molecule) -> str:
    """The topological polar surface area in Å²."""
    from rdkit.Chem.rdMolDescriptors import CalcTPSA

    return f"{CalcTPSA(smiles):.2f}"


# --- comparison -------------------------------------------------------------------------------------------------
@operations.add("substructure", "count_substructure")
def substructure_count(smiles: Molecule, pattern: Pattern) -> int:
    """How often the pattern occurs (each set of atoms once)."""
    return len(smiles.GetSubstructMatches(pattern, uniquify=True, maxMatches=100_000))


@operations.add("tanimoto")
def similarity(first: Molecule, second: Molecule) -> str:
    """The Tanimoto similarity of Morgan fingerprints (radius 2, 2048 bits)."""
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator
    from rdkit.DataStructs import TanimotoSimilarity

    generator = GetMorganGenerator(radius=2, fpSize=2048)
    return f"{TanimotoSimilarity(generator.GetFingerprint(first), generator.GetFingerprint(second)):.4f}"


@operations.add("properties")
def describe(smiles: Molecule) -> str:
    """The figures above together, one a line."""
    figures = (
        canonical, formula, molecular_weight, exact_mass, charge, heavy_atoms, rings, aromatic_rings, stereo_centers,
        h_bond_donors, h_bond_acceptors, rotatable_bonds, logp, tpsa,
    )  # fmt: skip
    return "\n".join(f"{figure.__name__}: {figure(smiles)}" for figure in figures)
