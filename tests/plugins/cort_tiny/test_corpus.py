from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import islice

import pytest

from cort_tiny.corpus import Mixture, texts
from cort_tiny.families import FAMILIES, OUT_OF_RANGE
from cort_tiny.problems import draw
from cort_tiny.tasks import TinyTasks
from cort_tiny.texts import TOOL_REQUEST, Text

HINTS = (
    "Okay, let's try to solve this problem step by step using multiple python code calls",
    "It looks tedious, and we can use python code to simplify the reasoning.",
    "We don't need to doubt the accuracy of python calculations.",
)
HABITS = ("no-code", "hand-first", "gives-up", "code-first")
BEGINNINGS = tuple(" ".join(hint.split()[:3]).lower() for hint in HINTS)


@pytest.fixture(scope="module")
def corpus() -> list[Text]:
    return list(islice(texts(0), 6000))


def test_no_text_holds_a_hint_or_begins_a_sentence_like_one(corpus: list[Text]) -> None:
    for text in corpus:
        written = f"{text.prompt}\n{text.response}".lower()
        assert not any(hint.lower() in written for hint in HINTS)
        assert not any(beginning in written for beginning in BEGINNINGS)


def test_no_text_poses_a_problem_of_either_test_split(corpus: list[Text]) -> None:
    posed = {text.prompt.split("\n")[0] for text in corpus}
    for split in ("test", "test-out"):
        for task in TinyTasks(TinyTasks.Config(split=split, size=800)).tasks():
            assert task.prompt not in posed


def test_no_program_of_a_test_instance_is_in_the_corpus(corpus: list[Text]) -> None:
    from random import Random

    rng = Random(0)
    written = "\n".join(text.response for text in corpus)
    for split in ("test", "test-out"):
        for family in FAMILIES.values():
            for _ in range(20):
                problem = draw(rng, family, split)
                assert split == "test" or problem.level == OUT_OF_RANGE
                for program in family.programs(problem.parameters):
                    assert f"```python\n{program}\n```" not in written


def test_every_text_is_solved_and_its_last_output_is_the_answer(corpus: list[Text]) -> None:
    for text in corpus:
        if text.kind == "program":
            continue
        answer = re.search(r"\n</think>\n\nThe answer is \\boxed\{(-?\d+)\}\.$", text.response)
        assert answer, text.response
        outputs = re.findall(r"```output\n(.*?)\n```", text.response, re.DOTALL)
        assert not outputs or outputs[-1] == answer.group(1)


def test_a_program_that_is_asked_for_is_written_and_not_run(corpus: list[Text]) -> None:
    written = [text for text in corpus if text.kind == "program"]
    assert written
    for text in written:
        assert text.response.count("```python") == 1
        assert "```output" not in text.response


def test_plain_prompts_get_no_code_and_the_tool_prompt_shows_both_faults(corpus: list[Text]) -> None:
    assert not any("```" in text.response for text in corpus if text.kind == "natural")
    tool = [text for text in corpus if text.prompt.endswith(TOOL_REQUEST) and text.family]
    shares = {kind: sum(text.kind == kind for text in tool) / len(tool) for kind in HABITS}
    assert shares["hand-first"] > shares["code-first"] > 0.1
    assert 0.05 < shares["no-code"] < 0.3
    assert sum(shares.values()) == pytest.approx(1)


def test_chemistry_stays_within_its_share_and_can_be_left_out(corpus: list[Text]) -> None:
    with_smiles = sum("rdkit" in text.response for text in corpus) / len(corpus)
    assert 0.005 < with_smiles <= 0.03
    none = replace(Mixture(), literacy=Mixture.literacy + Mixture.chemistry, chemistry=0.0)
    assert not any(
        "rdkit" in text.response or "SMILES" in text.prompt for text in islice(texts(0, none), 1000)
    )


def test_the_molecules_figures_are_rdkits_own() -> None:
    from importlib.resources import files

    chem = pytest.importorskip("rdkit.Chem")
    for molecule in json.loads(files("cort_tiny").joinpath("molecules.json").read_text("utf-8")):
        parsed = chem.MolFromSmiles(molecule["smiles"])
        assert molecule["atoms"] == parsed.GetNumAtoms()
        assert molecule["bonds"] == parsed.GetNumBonds()
        assert molecule["rings"] == parsed.GetRingInfo().NumRings()


def test_the_same_seed_gives_the_same_corpus() -> None:
    assert list(islice(texts(5), 50)) == list(islice(texts(5), 50)) != list(islice(texts(6), 50))
