"""Tasks about molecules: what is asked, that the answers are right, and how they are graded."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from rdkit import Chem

from cort_framework import Task, Trajectory, Turn
from cort_rdkit.rewards import ChemistryReward, same
from cort_rdkit.tasks import QUESTIONS, Molecules

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
        ("substructure", ASPIRIN, "2"),
        ("similarity", ASPIRIN, "1.0000"),
        ("logp", ASPIRIN, "1.3101"),
        ("canonical", Chem.MolFromSmiles("OC(=O)[C@@H](N)C"), "C[C@H](N)C(=O)O"),
    ],
)
def test_a_question_has_the_answer_that_is_known(kind: str, molecule: Chem.Mol, answer: str) -> None:
    assert QUESTIONS[kind].answer(molecule) == answer


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
        assert QUESTIONS[task.metadata["kind"]].answer(Chem.MolFromSmiles(smiles)) == task.answer


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
