"""Figures that medicinal chemistry goes by."""

from __future__ import annotations

import difflib
from typing import Any

from cort_python.operations import Lazy, Operations
from cort_rdkit.composition import charge, exact_mass, formula, heavy_atoms, molecular_weight
from cort_rdkit.identity import canonical
from cort_rdkit.molecules import Molecule
from cort_rdkit.structure import aromatic_rings, rings, stereo_centers

calculated: Any = Lazy("rdkit.Chem.rdMolDescriptors")
crippen: Any = Lazy("rdkit.Chem.Crippen")
drug_likeness: Any = Lazy("rdkit.Chem.QED")
descriptors: Any = Lazy("rdkit.Chem.Descriptors")
properties = Operations()


@properties.add('h_bond_donors("CCO")')
def h_bond_donors(smiles: Molecule) -> int:
    """Hydrogen-bond donors (Lipinski's counting by RDKit)."""
    return int(calculated.CalcNumHBD(smiles))


@properties.add('h_bond_acceptors("CCO")')
def h_bond_acceptors(smiles: Molecule) -> int:
    """Hydrogen-bond acceptors (Lipinski's counting by RDKit)."""
    return int(calculated.CalcNumHBA(smiles))


@properties.add('rotatable_bonds("CCCCO")')
def rotatable_bonds(smiles: Molecule) -> int:
    """Rotatable bonds (RDKit's strict counting)."""
    return int(calculated.CalcNumRotatableBonds(smiles))


@properties.add('logp("CCO")', "log_p")
def logp(smiles: Molecule) -> str:
    """The octanol-water partition coefficient's logarithm, after Wildman and Crippen."""
    return f"{crippen.MolLogP(smiles):.4f}"


@properties.add('molar_refractivity("CCO")')
def molar_refractivity(smiles: Molecule) -> str:
    """The molar refractivity in cm³/mol, after Wildman and Crippen."""
    return f"{crippen.MolMR(smiles):.4f}"


@properties.add('tpsa("CCO")')
def tpsa(smiles: Molecule) -> str:
    """The topological polar surface area in Å²."""
    return f"{calculated.CalcTPSA(smiles):.2f}"


@properties.add('fraction_csp3("CCc1ccccc1")')
def fraction_csp3(smiles: Molecule) -> str:
    """The share of carbon atoms that are sp3."""
    return f"{calculated.CalcFractionCSP3(smiles):.4f}"


@properties.add('qed("CC(=O)Oc1ccccc1C(=O)O")', "drug_likeness")
def qed(smiles: Molecule) -> str:
    """The quantitative estimate of drug-likeness, from 0 to 1."""
    return f"{drug_likeness.qed(smiles):.4f}"


@properties.add('lipinski("CC(=O)Oc1ccccc1C(=O)O")', "rule_of_five")
def lipinski(smiles: Molecule) -> str:
    """Which of Lipinski's rules of five are broken."""
    figures = {
        "molecular weight above 500": float(molecular_weight(smiles)) > 500,
        "logP above 5": float(logp(smiles)) > 5,
        "more than 5 hydrogen-bond donors": calculated.CalcNumLipinskiHBD(smiles) > 5,
        "more than 10 hydrogen-bond acceptors": calculated.CalcNumLipinskiHBA(smiles) > 10,
    }
    broken = [rule for rule, is_broken in figures.items() if is_broken]
    return f"{len(broken)}: {', '.join(broken)}" if broken else "0"


@properties.add('descriptor("CCO", BalabanJ)')
def descriptor(smiles: Molecule, name: str) -> str:
    """Any of RDKit's descriptors, by RDKit's name for it."""
    functions = dict(descriptors.descList)
    if name not in functions:
        near = difflib.get_close_matches(name, functions, n=3, cutoff=0.4)
        guess = f"; near ones: {', '.join(near)}" if near else ""
        raise ValueError(f"there is no descriptor {name!r}{guess}")
    return f"{functions[name](smiles):.6g}"


@properties.add('describe("CC(=O)Oc1ccccc1C(=O)O")', "properties")
def describe(smiles: Molecule) -> str:
    """The usual figures together, one a line."""
    figures = (
        canonical, formula, molecular_weight, exact_mass, charge, heavy_atoms, rings, aromatic_rings, stereo_centers,
        h_bond_donors, h_bond_acceptors, rotatable_bonds, logp, tpsa,
    )  # fmt: skip
    return "\n".join(f"{figure.__name__}: {figure(smiles)}" for figure in figures)
