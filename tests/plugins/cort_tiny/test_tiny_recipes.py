"""Every recipe that runs on the miniature does so from its first stage to its last, at a small size."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import cort_framework as cort
from cort_framework.display import SilentDisplay
from cort_framework.pipeline import RunReport
from cort_framework.store import read_trajectories

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SMALL = ["tasks.train.size=24", "rollout.max_tokens=600"]


def small(recipe: str, folder: Path, *settings: str, profile: str | None = None) -> RunReport:
    loaded = cort.load_recipe(recipe, profile=profile, overrides=settings)
    return cort.run(loaded, run_dir=folder / "run", display=SilentDisplay())


def by_system(report: RunReport) -> dict[str, dict[str, Any]]:
    return {record["name"]: record for record in report.results}


def test_prompt_hint(tmp_path: Path) -> None:
    sizes = ["tasks.in-range.size=8", "stage.synthesize.target=8", "stage.sft.options.epochs=2"]
    rl = [
        "stage.rl.options.steps=1",
        "stage.rl.options.prompts_per_step=2",
        "stage.rl.options.num_generations=4",
    ]
    report = small("prompt_hint", tmp_path, *SMALL, *sizes, *rl)
    assert list(by_system(report)) == ["tool-prompt", "prompt-hint", "prompt-hint-sft", "prompt-hint-rl"]


def test_ablation(tmp_path: Path) -> None:
    names = ["no-hint", "opening", "opening-hint1", "opening-hint2", "full"]
    sizes = ["tasks.in-range.size=4", *(f"stage.make-{name}.target=4" for name in names)]
    trained = [*names, "hints-masked", "outputs-trained"]
    sizes += [f"stage.{name}.options.epochs=1" for name in trained]
    rewarded = ["code-reward-0", "code-reward-1", "code-reward-5", "rl-outputs-trained"]
    for name in rewarded:
        options = f"stage.{name}.options"
        sizes += [f"{options}.steps=1", f"{options}.prompts_per_step=2", f"{options}.num_generations=4"]
    report = small("ablation", tmp_path, *SMALL, *sizes)
    assert list(by_system(report)) == ["tool-prompt", *trained, *rewarded]


def test_a_judge_places_the_hints_of_the_ablation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that knows the base's own words, behind a real server."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "cort_openai"))
    from openai_server import Server, running

    def reply(body: dict[str, Any]) -> str:
        instructions, question = (message["content"] for message in body["messages"])
        words = r"really right\?" if "Result distrust:" in instructions else r"by hand|manually|step by step"
        reasoning = question.partition("Reasoning:")[2]
        lines = [line for line in reasoning.splitlines()[2:] if re.search(words, line)]
        return json.dumps({"faults": [{"quote": line, "reason": "the judge says so"} for line in lines]})

    server = Server()
    server.reply = reply
    recipe = cort.load_recipe("ablation", "judge")
    ours = ["make-judged", "judged", "evaluate-judged"]
    settings = [f"stage.{stage.name}.skip=true" for stage in recipe.stage if stage.name not in ours]
    settings += ["stage.make-judged.target=6", "stage.judged.options.epochs=1", "tasks.in-range.size=4"]
    with running(server) as url:
        for hint in ("delayed-computation", "result-distrust"):
            chat = f"hints.judged-{hint}.chat"
            settings += [f"{chat}.url={url}", f"{chat}.cache={tmp_path / 'answers'}"]
        report = small("ablation", tmp_path, *SMALL, *settings, profile="judge")
    assert list(by_system(report)) == ["judged"]
    made = read_trajectories(report.folder / "make-judged" / "trajectories.jsonl")
    reasons = [turn.reason or "" for t in made for turn in t.turns if turn.author == "hint"]
    assert any("judged-delayed-computation" in reason for reason in reasons)
    assert len(list((tmp_path / "answers").glob("*/*.json"))) == len(server.requests)


def test_distill(tmp_path: Path) -> None:
    sizes = ["tasks.in-range.size=8", "stage.synthesize.target=8", "stage.teacher.options.epochs=4"]
    sizes += ["stage.show.target=8", "stage.hard.least=0.0", "stage.hard.most=1.0", "stage.hard.samples=2"]
    rl = [
        "stage.rl.options.steps=1",
        "stage.rl.options.prompts_per_step=2",
        "stage.rl.options.num_generations=4",
    ]
    report = small("distill", tmp_path, *SMALL, *sizes, *rl)
    assert list(by_system(report)) == ["teacher", "student", "student-rl"]


def test_chemistry(tmp_path: Path) -> None:
    sizes = ["tasks.molecules.size=12", "stage.synthesize.target=8", "stage.sft.options.epochs=2"]
    report = small("cort_chem", tmp_path, *SMALL, *sizes)
    base, trained = by_system(report)["base"], by_system(report)["cort"]
    assert base["tasks"] == trained["tasks"] == 12
    assert base["subjects"].get("chemistry", 0) > 0  # its texts hold a few programs with RDKit


def test_benchmarks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["aime24", "aime25", "amc23", "math500", "olympiadbench"]
    for name in names:
        rows = [
            {"id": f"{name}-{n}", "prompt": f"What is {n} times 7?", "answer": str(7 * n)} for n in (3, 4)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    monkeypatch.setenv("CORT_BENCHMARKS", str(tmp_path))
    report = small("benchmarks", tmp_path, "rollout.max_tokens=400", profile="tiny")
    assert [record["test_set"] for record in report.results] == names
    assert all(list(record["accuracy_within"]) == ["256", "512", "1024"] for record in report.results)
    assert {p.name for p in (tmp_path / "run").glob("*.svg")} == {"pass-at-k.svg", "accuracy-within.svg"}
