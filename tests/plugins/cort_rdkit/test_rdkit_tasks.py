"""Tasks about molecules: what is asked, that the answers are right, and how they are graded."""

from __future__ import annotations

import asyncio
import re
from collections import Counter

import pytest
from rdkit import Chem

from cort_framework import Task, Trajectory, Turn
from cort_rdkit.rewards import ChemistryReward, same
from cort_rdkit.tasks import QUESTIONS, REFERENCES, Molecules

ASPIRIN = Chem.MolFromSmiles("CC(=O)Oc1ccccc1C(=O)O")
ALANINE = Chem.MolFromSmiles("C[C@H](N)C(=O)O")


def tasks(**settings: object) -> list[Task]:
    return list(Molecules(Molecules.Config(**settings)).tasks())


@pytest.mark.parametrize(
    ("kind", "molecule", "answer"),
    [
        ("heavy-atoms", ASPIRIN, "13"),
        ("rings", ASPIRIN, "1"),
        ("formula", ASPIRIN, "C9H8O4"),
        ("exact-mass", ASPIRIN, "180.0423"),  # 9 x 12 + 8 x 1.007825 + 4 x 15.994915
        ("stereo-centers", ALANINE, "1"),
        ("h-bond-donors", ASPIRIN, "1"),
        ("h-bond-donors", ALANINE, "2"),
        ("h-bond-donors", Chem.MolFromSmiles("NCCS"), "1"),  # one N, though two hydrogens; S is not counted
        ("substructure", ASPIRIN, "2"),  # the first group is carbonyl
        ("similarity", ASPIRIN, "1.0000"),  # the first reference is aspirin
        ("logp", ASPIRIN, "1.3101"),
        ("canonical", Chem.MolFromSmiles("OC(=O)[C@@H](N)C"), "C[C@H](N)C(=O)O"),
    ],
)
def test_a_question_has_the_answer_that_is_known(kind: str, molecule: Chem.Mol, answer: str) -> None:
    assert QUESTIONS[kind][0].answer(molecule) == answer


def test_the_kinds_take_turns_and_no_molecule_is_asked_about_twice_in_the_same_way() -> None:
    made = tasks(size=300, seed=3)
    assert Counter(t.metadata["kind"] for t in made) == {kind: 30 for kind in QUESTIONS}
    assert len({t.id for t in made}) == 300
    molecules = [t.prompt.split("the molecule ")[1].split()[0].rstrip("?.,") for t in made]
    asked = {(t.metadata["kind"], Chem.CanonSmiles(m)) for t, m in zip(made, molecules, strict=True)}
    assert len(asked) == 300
    assert made[:40] == tasks(size=40, seed=3)
    assert made != tasks(size=300, seed=4)
    for kind in ("stereo-centers", "substructure"):
        assert all(t.answer != "0" for t in made if t.metadata["kind"] == kind)


def test_a_task_says_the_molecule_whose_answer_it_has() -> None:
    for task in tasks(size=50, kinds=("formula", "canonical")):
        smiles = task.prompt.split("the molecule ")[1].split()[0].rstrip("?.,")
        assert QUESTIONS[task.metadata["kind"]][0].answer(Chem.MolFromSmiles(smiles)) == task.answer


@pytest.mark.parametrize(
    ("kind", "smarts", "smiles", "times"),
    [
        ("substructure", "[CH3]", "CC(C)Cc1ccccc1", 2),
        ("substructure", "a:a", "c1ccc2ccccc2c1", 11),
        ("substructure", "[F,Cl,Br,I]", "FC(F)(F)CBr", 4),
        ("substructure", "[#6]~[#8]", "COC(C)=O", 3),
        ("substructure", "[R]", "CC1CCC1", 4),
        ("substructure", "[#6]~;!@[#6]", "CC1CCC1", 1),
        ("substructure", "[OX2]([#6])[#6]", "COC(C)=O", 1),
    ],
)
def test_a_group_is_counted_as_a_chemist_counts_it(kind: str, smarts: str, smiles: str, times: int) -> None:
    (question,) = (q for q in QUESTIONS[kind] if f"pattern {smarts} (" in q.words[0])
    assert question.answer(Chem.MolFromSmiles(smiles)) == str(times)


def test_groups_and_references_vary_and_no_answer_is_right_for_most() -> None:
    for kind, most in {"substructure": 0.5, "similarity": 0.5, "h-bond-donors": 0.65, "rings": 0.65}.items():
        made = tasks(size=300, kinds=(kind,), seed=1)
        for answer in {t.answer for t in made}:
            assert sum(same(t.answer, answer, "number", t.metadata["tolerance"]) for t in made) < most * 300
    for kind in ("substructure", "similarity"):
        asked = {re.sub(r"the molecule \S+", "", t.prompt) for t in tasks(size=300, kinds=(kind,), seed=1)}
        assert len(asked) == len(QUESTIONS[kind])


def test_a_similarity_names_the_molecule_it_is_to() -> None:
    for name, smiles in REFERENCES.items():
        (question,) = (q for q in QUESTIONS["similarity"] if f"to {name}, {smiles}," in q.words[0])
        assert question.answer(Chem.MolFromSmiles(smiles)) == "1.0000"


def test_the_reference_of_every_kind_is_right_by_its_own_grader() -> None:
    made = tasks(size=400, seed=2)
    assert {t.metadata["kind"] for t in made} == set(QUESTIONS)
    for task in made:
        assert task.answer is not None
        kind, tolerance = task.metadata["answer_kind"], task.metadata["tolerance"]
        for given in (task.answer, f"\\text{{{task.answer}}}", f"${task.answer}$"):
            assert same(task.answer, given, kind, tolerance), (task.prompt, given)


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no kind 'smell'"):
        Molecules.Config(kinds=("smell",))
    with pytest.raises(ValueError, match="no more molecules for the kind 'rings'"):
        tasks(size=400, kinds=("rings",), max_atoms=4)


@pytest.mark.parametrize(
    ("gold", "given", "kind", "tolerance", "right"),
    [
        ("13", "13", "number", 0, True),
        ("13", "13.0", "number", 0, True),
        ("13", "14", "number", 0, False),
        ("180.0423", "180.042 \\text{ Da}", "number", 0.005, True),
        ("180.0423", "180.042\\,\\mathrm{Da}", "number", 0.005, True),
        ("180.0423", "180.06", "number", 0.005, False),
        ("-0.4312", "−0.4", "number", 0.06, True),
        ("13", "thirteen", "number", 0, False),
        *(
            ("3", given, "number", 0, True)
            for given in (
                *(
                    "{3}",
                    "N=3",
                    "3 rings",
                    "\\text{3 aromatic rings}",
                    "\\mathbf{3}",
                    "$3$",
                    "$3$ rings",
                    "3.",
                    "3 H-bond donors",
                ),
                *(
                    "\\text{rings: }3",
                    "N_{\\text{rings}} = 3",
                    "3e0",
                    "6/2",
                    "\\mathrm{\\text{3}}",
                    "3 times",
                ),
            )
        ),
        *(
            ("3", given, "number", 0, False)
            for given in (
                *(
                    "3/4",
                    "3 or 4",
                    "3^2",
                    "3^{2}",
                    "3e2",
                    "3 \\times 10^2",
                    "3-4",
                    "3+1",
                    "3, 4",
                    "3 \\pm 1",
                    "3!",
                ),
                *(
                    "3 or four",
                    "3 or more",
                    "3 at most",
                    "3 rings, 4 atoms",
                    "-3",
                    "13",
                    "3x",
                    "3\\pi",
                    "3.1",
                    "3 million",
                ),
                *(
                    "N = 3, M = 4",
                    "4 or N = 3",
                    "N > 3",
                    "3/0",
                    "3\\frac{1}{4}",
                    "3e99999",
                    "1e999",
                    "",
                    "3 = 4",
                ),
            )
        ),
        *(
            ("0.25", given, "number", 0.01, True)
            for given in (
                ".25",
                "\\frac14",
                "\\frac{1}{4}",
                "\\dfrac{1}{4}",
                "1/4",
                "25\\%",
                "25%",
                "25 percent",
                "2.5e-1",
            )
        ),
        ("0.25", "0.25%", "number", 0.01, False),
        ("0.25", "0.25\\%", "number", 0.01, False),
        ("0.25", "25", "number", 0.01, False),
        ("-0.25", "-\\frac{1}{4}", "number", 0.01, True),
        ("-0.5", "\\text{logP} = -0.5", "number", 0.06, True),
        ("-0.5", "\\log P \\approx -0.5", "number", 0.06, True),
        *(
            ("180.0423", given, "number", 0.005, True)
            for given in (
                *(
                    "180.042 Da",
                    "180.042 g/mol",
                    "180.042\\,\\mathrm{g\\,mol^{-1}}",
                    "180.042~\\text{g/mol}",
                    "180.042 u",
                ),
                *("\\approx 180.042", "m = 180.042", "m(C_9H_8O_4) = 180.042", "1.80042 \\times 10^{2}"),
            )
        ),
        ("180.0423", "180.042 kDa", "number", 0.005, False),
        ("180.0423", "180,042", "number", 0.005, False),
        ("C9H8O4", "\\mathrm{C_{9}H_{8}O_{4}}", "formula", 0, True),
        ("C9H8O4", "C₉H₈O₄", "formula", 0, True),
        ("C9H8O4", "\\text{Formula: C9H8O4}", "formula", 0, True),
        ("C9H8O4", "C9H8O4 or C9H8O5", "formula", 0, False),
        *(
            ("CC#N", given, "text", 0, True)
            for given in ("'CC#N'", '"CC#N"', "\\verb|CC#N|", "\\texttt{CC\\#N}", "\\text{`CC#N'}", "“CC#N”")
        ),
        ("C9H8O4", "C_9H_8O_4", "formula", 0, True),
        ("C9H8O4", "\\text{C}_{9}\\text{H}_{8}\\text{O}_{4}", "formula", 0, True),
        ("C9H8O4", "\\ce{C9H8O4}", "formula", 0, True),
        ("C9H8O4", "H8C9O4", "formula", 0, True),
        ("C9H8O4", "C9H8O5", "formula", 0, False),
        ("C9H8O4", "aspirin", "formula", 0, False),
        ("CH4O", "CH4O1", "formula", 0, True),
        ("C#N", "\\text{C\\#N}", "text", 0, True),
        ("C[C@H](N)C(=O)O", "`C[C@H](N)C(=O)O`", "text", 0, True),
        ("C[C@H](N)C(=O)O", "OC(=O)[C@@H](N)C", "text", 0, False),
    ],
)
def test_an_answer_is_graded_by_its_kind(
    gold: str, given: str, kind: str, tolerance: float, right: bool
) -> None:
    assert same(gold, given, kind, tolerance) is right


def test_the_reward_reads_the_last_box_after_the_thinking_of_a_finished_trajectory() -> None:
    task = Task("m", "?", "C9H8O4", {"answer_kind": "formula", "tolerance": 0.0})

    def score(text: str, stop: str = "eos", task: Task = task) -> float | None:
        turns = [Turn("prompt", (0,), "P<think>\n"), Turn("model", (1,), text)]
        made = Trajectory("m/0", task, turns=turns, stop_reason=stop)  # type: ignore[arg-type]
        return asyncio.run(ChemistryReward().score(made))

    assert score("hm </think>\n\\boxed{C9H8O4}") == 1.0
    assert score("\\boxed{C9H8O4} </think>\nno idea") == 0.0
    assert score("hm </think>\n\\boxed{C9H8O4}", stop="length") == 0.0
    assert score("hm </think>\n\\boxed{C9H8O4}", task=Task("m", "?")) is None
