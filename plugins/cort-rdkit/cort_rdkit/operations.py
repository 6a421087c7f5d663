"""RDKit's answers about molecules, as a model asks for them: all of this folder's groups together."""

from __future__ import annotations

from cort_python.operations import Operations
from cort_rdkit.comparison import comparison
from cort_rdkit.composition import composition
from cort_rdkit.identity import identity
from cort_rdkit.properties import properties
from cort_rdkit.reactions import reactions
from cort_rdkit.shape import shape
from cort_rdkit.structure import structure

operations = Operations(identity, composition, structure, properties, comparison, reactions, shape)
