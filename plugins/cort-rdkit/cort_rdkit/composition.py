"""What a molecule is made of: formula, masses, atoms."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from cort_python.operations import Lazy, Operations
from cort_rdkit.molecules import Chem, Molecule

descriptors: Any = Lazy("rdkit.Chem.Descriptors")
calculated: Any = Lazy("rdkit.Chem.rdMolDescriptors")
composition = Operations()


def known(symbol: str) -> str:
    """The symbol. Raises ``ValueError`` where there is no such element."""
    try:
        Chem.GetPeriodicTable().GetAtomicNumber(symbol)
    except RuntimeError:
        raise ValueError(f"there is no element {symbol!r}") from None
    return symbol


def counts(smiles: Any) -> Counter[str]:
    """How many atoms of each element, hydrogens included."""
    return Counter(atom.GetSymbol() for atom in Chem.AddHs(smiles).GetAtoms())


@composition.add('formula("CC(=O)Oc1ccccc1C(=O)O")', "molecular_formula")
def formula(smiles: Molecule) -> str:
    """The molecular formula, in Hill order, with the charge."""
    return str(calculated.CalcMolFormula(smiles))


@composition.add('molecular_weight("CC(=O)Oc1ccccc1C(=O)O")', "weight", "molecular_mass", "molar_mass")
def molecular_weight(smiles: Molecule) -> str:
    """The average molecular weight in g/mol."""
    return f"{descriptors.MolWt(smiles):.3f}"


@composition.add('exact_mass("CC(=O)Oc1ccccc1C(=O)O")', "monoisotopic_mass")
def exact_mass(smiles: Molecule) -> str:
    """The mass of the molecule of the most abundant isotopes, in Da."""
    return f"{descriptors.ExactMolWt(smiles):.5f}"


@composition.add('formula_weight("Ca(OH)2")', "weight_of_formula")
def formula_weight(formula: str) -> str:
    """The molar mass in g/mol of a formula, which may have brackets and water of crystallisation: CuSO4*5H2O."""
    table = Chem.GetPeriodicTable()
    elements = parse_formula(formula)
    return f"{sum(n * table.GetAtomicWeight(e) for e, n in elements.items()):.3f}"


def parse_formula(text: str) -> Counter[str]:
    """How many atoms of each element. Raises ``ValueError``."""
    total: Counter[str] = Counter()
    for part in re.split(r"[*·.]", re.sub(r"\s", "", text)):
        factor, rest = re.fullmatch(r"(\d*)(.*)", part).groups()  # type: ignore[union-attr]
        stack: list[Counter[str]] = [Counter()]
        for opening, closing, element, number in re.findall(r"([(\[])|([)\]]\d*)|([A-Z][a-z]?)(\d*)|.", rest):
            if opening:
                stack.append(Counter())
            elif closing and len(stack) > 1:
                group, times = stack.pop(), int(closing[1:] or 1)
                stack[-1].update({e: n * times for e, n in group.items()})
            elif element:
                stack[-1][known(element)] += int(number or 1)
            else:
                raise ValueError(f"{text!r} is no formula, as in Ca(OH)2")
        if len(stack) > 1 or not stack[0]:
            raise ValueError(f"{text!r} is no formula, as in Ca(OH)2")
        total.update({e: n * int(factor or 1) for e, n in stack[0].items()})
    return total


@composition.add('mass_percent("CCO")', "elemental_analysis")
def mass_percent(smiles: Molecule) -> str:
    """Each element's share of the mass in percent."""
    table = Chem.GetPeriodicTable()
    masses = {element: n * table.GetAtomicWeight(element) for element, n in sorted(counts(smiles).items())}
    return ", ".join(f"{element} {100 * mass / sum(masses.values()):.2f}" for element, mass in masses.items())


@composition.add('charge("[NH4+]")', "formal_charge")
def charge(smiles: Molecule) -> int:
    """The formal charge."""
    return int(Chem.GetFormalCharge(smiles))


@composition.add('heavy_atoms("CCO")')
def heavy_atoms(smiles: Molecule) -> int:
    """How many atoms are no hydrogen."""
    return int(smiles.GetNumHeavyAtoms())


@composition.add('atoms("CCO", H)')
def atoms(smiles: Molecule, symbol: str = "") -> int:
    """How many atoms there are, hydrogens included; with a symbol, how many of that element."""
    found = counts(smiles)
    return found[known(symbol)] if symbol else found.total()


@composition.add('valence_electrons("CCO")')
def valence_electrons(smiles: Molecule) -> int:
    """How many valence electrons there are."""
    return int(descriptors.NumValenceElectrons(smiles))


@composition.add('unsaturation("c1ccccc1")', "degree_of_unsaturation")
def unsaturation(smiles: Molecule) -> int:
    """Rings and multiple bonds together: the degree of unsaturation of the drawn structure."""
    drawn = Chem.Mol(smiles)
    Chem.Kekulize(drawn, clearAromaticFlags=True)
    orders = [int(bond.GetBondTypeAsDouble()) for bond in drawn.GetBonds()]
    return int(calculated.CalcNumRings(smiles)) + sum(order - 1 for order in orders if order > 1)
