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
    """One kind of question: what is asked of ``{}``, RDKit's answer, and how near another has to be."""

    words: tuple[str, ...]
    answer: Callable[[Any], str]
    kind: AnswerKind = "number"
    tolerance: float = 0.0
    applies: Callable[[Any], bool] = bool
    """Whether the question is worth asking of a molecule."""


def _matches(smarts: str) -> Callable[[Any], str]:
    return lambda molecule: str(len(molecule.GetSubstructMatches(Chem.MolFromSmarts(smarts))))


def _centers(molecule: Any) -> str:
    found = Chem.FindMolChiralCenters(molecule, includeUnassigned=True, useLegacyImplementation=False)
    return str(len(found))


def _fingerprint(molecule: Any) -> Any:
    return fingerprints.GetMorganGenerator(radius=2, fpSize=2048).GetFingerprint(molecule)


REFERENCE = "CC(=O)Oc1ccccc1C(=O)O"
"""Aspirin: what similarities are asked to."""


def _similarity(molecule: Any) -> str:
    other = _fingerprint(Chem.MolFromSmiles(REFERENCE))
    return f"{structs.TanimotoSimilarity(_fingerprint(molecule), other):.4f}"


QUESTIONS: dict[str, Question] = {
    "heavy-atoms": Question(
        ("How many heavy atoms does {} have?", "Count the atoms other than hydrogen in {}."),
        lambda m: str(m.GetNumAtoms()),
    ),
    "rings": Question(
        ("How many rings does {} have?", "Count the rings in the smallest set of smallest rings of {}."),
        lambda m: str(m.GetRingInfo().NumRings()),
    ),
    "formula": Question(
        ("What is the molecular formula of {}?", "Give the molecular formula of {} in Hill order."),
        lambda m: str(calculated.CalcMolFormula(m)),
        kind="formula",
    ),
    "exact-mass": Question(
        ("What is the monoisotopic mass of {} in Da, to three decimals?",),
        lambda m: f"{descriptors.ExactMolWt(m):.4f}",
        tolerance=0.005,
    ),
    "stereo-centers": Question(
        ("How many stereocenters does {} have, assigned or not?",),
        _centers,
        applies=lambda m: _centers(m) != "0",
    ),
    "h-bond-donors": Question(
        ("How many hydrogen bond donors does {} have by Lipinski's count of N and O that bear hydrogen?",),
        lambda m: str(calculated.CalcNumHBD(m)),
    ),
    "substructure": Question(
        ("How many times does the SMARTS pattern [#6](=[#8]) match in {}?",),
        _matches("[#6](=[#8])"),
        applies=lambda m: m.HasSubstructMatch(Chem.MolFromSmarts("[#6](=[#8])")),
    ),
    "similarity": Question(
        (
            f"What is the Tanimoto similarity of {{}} to {REFERENCE} by Morgan fingerprints of radius 2 and 2048 bits, "
            "to two decimals?",
        ),
        _similarity,
        tolerance=0.01,
    ),
    "logp": Question(
        ("Estimate the octanol-water logP of {} by Crippen's method, to one decimal.",),
        lambda m: f"{crippen.MolLogP(m):.4f}",
        tolerance=0.06,
    ),
    "canonical": Question(
        ("Write {} as RDKit's canonical SMILES.",),
        lambda m: str(Chem.MolToSmiles(m)),
        kind="text",
    ),
}

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
            question = QUESTIONS[kind]
            for _ in range(1000):
                smiles, found = molecule(rng)
                key = kind, str(Chem.MolToSmiles(found))
                if found.GetNumAtoms() <= config.max_atoms and key not in asked and question.applies(found):
                    break
            else:
                raise ValueError(
                    f"there are no more molecules for the kind {kind!r} after {number} tasks: "
                    "ask for a smaller size, or allow more atoms"
                )
            asked.add(key)
            words = rng.choice(question.words).format(f"the molecule {smiles}")
            metadata = {"kind": kind, "answer_kind": question.kind, "tolerance": question.tolerance}
            yield Task(f"molecules-{config.seed}-{number:05d}", words, question.answer(found), metadata)
