"""Reactions."""

from __future__ import annotations

from cort_python.operations import Operations
from cort_rdkit.comparison import valid
from cort_rdkit.identity import listed
from cort_rdkit.molecules import Molecule, Reaction

reactions = Operations()


@reactions.add('react("[C:1](=[O:2])[OH].[N;H2:3]>>[C:1](=[O:2])[N:3]", "CC(=O)O", "NC")', "run_reaction")
def react(reaction: Reaction, *reactants: Molecule) -> str:
    """The products of the reaction, for every way in which the reactants fit its left side: how many sets, and each."""
    wanted = reaction.GetNumReactantTemplates()
    if len(reactants) != wanted:
        raise ValueError(f"the reaction has {wanted} reactants, and {len(reactants)} are given")
    sets = set()
    for products in reaction.RunReactants(reactants, maxProducts=1000):
        smiles = [next(iter(valid([product])), "") for product in products]
        if all(smiles):
            sets.add(".".join(sorted(smiles)))
    return (
        listed(sorted(sets)) if sets else "the reactants do not fit the left side, or no product is possible"
    )
