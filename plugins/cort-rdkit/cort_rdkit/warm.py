"""Import this before kernels are forked: RDKit and what its descriptors and fingerprints load are there."""

from __future__ import annotations

from rdkit import Chem
from rdkit.Chem import AllChem, Descriptors, rdFingerprintGenerator, rdMolDescriptors

_molecule = Chem.MolFromSmiles("C[C@H](N)C(=O)Oc1ccccc1")
Chem.MolToSmiles(_molecule)
Descriptors.MolWt(_molecule)
rdMolDescriptors.CalcMolFormula(_molecule)
rdFingerprintGenerator.GetMorganGenerator(radius=2).GetFingerprint(_molecule)
AllChem.AddHs(_molecule)
