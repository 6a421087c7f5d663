"""Task source ``molecules``: questions about generated molecules, answered by RDKit (paper, "out of domain")."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from pydantic import Field, field_validator

from cort_framework import PluginConfig, Task, TaskSource
from cort_python.operations import Lazy
from cort_rdkit.molecules import Chem, quiet

descriptors: Any = Lazy("rdkit.Chem.Descriptors")
calculated: Any = Lazy("rdkit.Chem.rdMolDescriptors")
crippen: Any = Lazy("rdkit.Chem.Crippen")
fingerprints: Any = Lazy("rdkit.Chem.rdFingerprintGenerator")
structs: Any = Lazy("rdkit.DataStructs")

AnswerKind = Literal["number", "formula", "text"]


@dataclass(frozen=True)
class Question:
    """What is asked of ``{}``, in one wording or another, RDKit's answer, and how near another has to be."""

    words: tuple[str, ...]
    answer: Callable[[Any], str]
    kind: AnswerKind = "number"
    tolerance: float = 0.0
    applies: Callable[[Any], bool] = bool
    """Whether the question is worth asking of a molecule."""


GROUPS = {
    "carbonyl group": "[#6](=[#8])",
    "hydroxyl group": "[OX2H]",
    "ether or ester oxygen between two carbons": "[OX2]([#6])[#6]",
    "nitrogen that is not aromatic": "[N]",
    "aromatic carbon": "c",
    "aromatic bond": "a:a",
    "methyl group": "[CH3]",
    "methylene group": "[CH2]",
    "saturated carbon": "[CX4]",
    "halogen": "[F,Cl,Br,I]",
    "bond of carbon to oxygen": "[#6]~[#8]",
    "single bond of carbon to nitrogen": "[#6]-[#7]",
    "atom in a ring": "[R]",
    "bond between two carbons outside rings": "[#6]~;!@[#6]",
}
"""What substructures are counted: their names and their SMARTS. Some are seldom there once only, lest 1 be the answer."""


def _count(name: str, smarts: str) -> Question:
    def found(molecule: Any) -> int:
        return len(molecule.GetSubstructMatches(Chem.MolFromSmarts(smarts)))

    return Question(
        (
            f"How many times does the SMARTS pattern {smarts} ({name}) match in {{}}, a set of atoms counted once?",
        ),
        lambda m: str(found(m)),
        applies=lambda m: found(m) > 0,
    )


def _centers(molecule: Any) -> str:
    found = Chem.FindMolChiralCenters(molecule, includeUnassigned=True, useLegacyImplementation=False)
    return str(len(found))


def _fingerprint(molecule: Any) -> Any:
    return fingerprints.GetMorganGenerator(radius=2, fpSize=2048).GetFingerprint(molecule)


REFERENCES = {
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "paracetamol": "CC(=O)Nc1ccc(O)cc1",
    "ibuprofen": "CC(C)Cc1ccc(C(C)C(=O)O)cc1",
    "caffeine": "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
    "toluene": "Cc1ccccc1",
    "indole": "c1ccc2[nH]ccc2c1",
    "naphthalene": "c1ccc2ccccc2c1",
    "cyclohexanol": "OC1CCCCC1",
    "ethyl acetate": "CCOC(C)=O",
    "L-alanine": "C[C@H](N)C(=O)O",
}
"""What similarities are asked to."""


def _similarity(name: str, smiles: str) -> Question:
    def tanimoto(molecule: Any) -> float:
        other = _fingerprint(Chem.MolFromSmiles(smiles))
        return float(structs.TanimotoSimilarity(_fingerprint(molecule), other))

    return Question(
        (
            f"What is the Tanimoto similarity of {{}} to {name}, {smiles}, by Morgan fingerprints of radius 2 "
            "and 2048 bits, to two decimals?",
        ),
        lambda m: f"{tanimoto(m):.4f}",
        tolerance=0.01,
    )


QUESTIONS: dict[str, tuple[Question, ...]] = {
    "heavy-atoms": (
        Question(
            ("How many heavy atoms does {} have?", "Count the atoms other than hydrogen in {}."),
            lambda m: str(m.GetNumAtoms()),
        ),
    ),
    "rings": (
        Question(
            ("How many rings does {} have?", "Count the rings in the smallest set of smallest rings of {}."),
            lambda m: str(m.GetRingInfo().NumRings()),
        ),
    ),
    "formula": (
        Question(
            ("What is the molecular formula of {}?", "Give the molecular formula of {} in Hill order."),
            lambda m: str(calculated.CalcMolFormula(m)),
            kind="formula",
        ),
    ),
    "exact-mass": (
        Question(
            ("What is the monoisotopic mass of {} in Da, to three decimals?",),
            lambda m: f"{descriptors.ExactMolWt(m):.4f}",
            tolerance=0.005,
        ),
    ),
    "stereo-centers": (
        Question(
            ("How many stereocenters does {} have, assigned or not?",),
            _centers,
            applies=lambda m: _centers(m) != "0",
        ),
    ),
    "h-bond-donors": (
        Question(
            (
                "How many hydrogen bond donors does {} have, "
                "counted as the number of N and O atoms that bear at least one hydrogen?",
            ),
            lambda m: str(sum(a.GetSymbol() in ("N", "O") and a.GetTotalNumHs() > 0 for a in m.GetAtoms())),
        ),
    ),
    "substructure": tuple(_count(name, smarts) for name, smarts in GROUPS.items()),
    "similarity": tuple(_similarity(name, smiles) for name, smiles in REFERENCES.items()),
    "logp": (
        Question(
            ("Estimate the octanol-water logP of {} by Crippen's method, to one decimal.",),
            lambda m: f"{crippen.MolLogP(m):.4f}",
            tolerance=0.06,
        ),
    ),
    "canonical": (
        Question(
            ("Write {} as RDKit's canonical SMILES.",),
            lambda m: str(Chem.MolToSmiles(m)),
            kind="text",
        ),
    ),
}
"""The questions of each kind, of which a task asks one that applies to its molecule."""

# --- molecules --------------------------------------------------------------------------------------------------
_CORES = (
    *(
        "c1ccc({})cc1{}",
        "c1cc({})ccc1{}",
        "n1ccc({})cc1{}",
        "c1cc({})oc1{}",
        "c1cc({})sc1{}",
        "C1CCC({})CC1{}",
    ),
    *("C1CC({})NC1{}", "C1COC({})CN1{}", "c1ccc2c(c1)cc({})cc2{}", "c1ccc2[nH]c({})cc2c1{}", "C1CC({})C1{}"),
    *("C({})C{}", "CC({})C{}", "CCC({})CC{}", "C({})=C{}", "CC(C)C({})C{}", "O=C({})C{}", "CN({})C{}"),
)
_SUBSTITUENTS = (
    *(
        "C",
        "CC",
        "C(C)C",
        "C(C)(C)C",
        "O",
        "OC",
        "OCC",
        "N",
        "NC",
        "N(C)C",
        "C(=O)O",
        "C(=O)OC",
        "C(=O)N",
        "C(=O)C",
    ),
    *(
        "C#N",
        "F",
        "Cl",
        "Br",
        "C(F)(F)F",
        "S(=O)(=O)N",
        "[N+](=O)[O-]",
        "[C@@H](N)C(=O)O",
        "[C@H](O)C",
        "C1CC1",
    ),
    *("c1ccccc1", "CCO", "CCN", "OC(=O)C", "NC(=O)C", "SC", "C=C", "C#C"),
)


def molecule(rng: Random) -> tuple[str, Any]:
    """A SMILES as a chemist may write it, not canonical, and its molecule."""
    quiet()
    while True:
        core, first, second = rng.choice(_CORES), rng.choice(_SUBSTITUENTS), rng.choice(_SUBSTITUENTS)
        rings = iter("345678")  # a substituent's ring must not close the core's
        first, second = (s.replace("1", next(rings)) if "1" in s else s for s in (first, second))
        smiles = core.format(first, second)
        found = Chem.MolFromSmiles(smiles)
        if found is not None:
            return smiles, found


class Molecules(TaskSource):
    """Questions about generated molecules, the kinds in turn; no molecule is asked about twice in the same way."""

    name = "molecules"
    requires = ("rdkit>=2024.9",)

    class Config(PluginConfig):
        """What to ask."""

        size: int = Field(200, ge=1)
        """How many tasks."""
        seed: int = Field(0, ge=0)
        """The same seed gives the same tasks in the same order; a larger `size` only adds to them."""
        kinds: tuple[str, ...] = ()
        """Only these kinds of question; all of them where empty."""
        max_atoms: int = Field(40, ge=4)
        """Heavy atoms of a molecule at most."""

        @field_validator("kinds")
        @classmethod
        def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
            for name in names:
                if name not in QUESTIONS:
                    raise ValueError(f"there is no kind {name!r}; the kinds are {', '.join(QUESTIONS)}")
            return names

    config: Config

    def tasks(self) -> Iterator[Task]:
        config = self.config
        rng = Random(f"molecules-{config.seed}")
        kinds = config.kinds or tuple(QUESTIONS)
        asked: set[tuple[str, str]] = set()
        for number in range(config.size):
            kind = kinds[number % len(kinds)]
            for _ in range(1000):
                smiles, found = molecule(rng)
                key = kind, str(Chem.MolToSmiles(found))
                if found.GetNumAtoms() > config.max_atoms or key in asked:
                    continue
                fitting = [(q, words) for q in QUESTIONS[kind] if q.applies(found) for words in q.words]
                if fitting:
                    break
            else:
                raise ValueError(
                    f"there are no more molecules for the kind {kind!r} after {number} tasks: "
                    "ask for a smaller size, or allow more atoms"
                )
            asked.add(key)
            question, words = rng.choice(fitting)
            prompt = words.format(f"the molecule {smiles}")
            metadata = {"kind": kind, "answer_kind": question.kind, "tolerance": question.tolerance}
            yield Task(f"molecules-{config.seed}-{number:05d}", prompt, question.answer(found), metadata)
