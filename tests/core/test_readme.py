"""What the README shows is what there is: its commands, its recipe, its plugin, its script and its figures."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import click
import pytest

import cort_framework as cort
from cort_framework.cli import cort as command_line
from cort_framework.recipe import load_recipe, make_plan
from cort_framework.testing import check_tool, says, scripted_engine

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def block(language: str, holding: str) -> str:
    (found,) = [b for b in blocks(language) if holding in b]
    return found


# --- commands ---------------------------------------------------------------------------------------------------
def test_the_two_commands_stand_in_the_readme_and_are_what_ci_runs():
    assert "pip install -r requirements.txt && cort run recipes/cort_math.toml\n" in blocks("sh")
    assert "pip install -r requirements-dev.txt && pytest\n" in blocks("sh")
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for part in ("pip install -q -r requirements-dev.txt", "\npytest\n", "cort run recipes/cort_math.toml"):
        assert part in ci


COMMANDS = sorted({m for b in blocks("sh") for m in re.findall(r"^cort [^#\n]*", b, re.MULTILINE)})


@pytest.mark.parametrize("line", COMMANDS)
def test_each_command_of_the_readme_is_understood(line):
    words = shlex.split(line)[1:]
    command: click.Command = command_line
    context = click.Context(command_line, info_name="cort")
    while isinstance(command, click.Group):
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"there is no command {name}"
        command, context = found, click.Context(found, context, info_name=name)
    command.make_context(command.name, words, parent=context)


def test_requirements_install_the_framework_and_every_plugin_of_the_main_job():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["-c constraints.txt", "-e ."]
    for line in lines[2:]:
        assert (ROOT / line.removeprefix("-e ") / "pyproject.toml").is_file(), line
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert all(
        re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin) for pin in pins if not pin.startswith("#")
    )


# --- code -------------------------------------------------------------------------------------------------------
def test_the_recipe_of_the_readme_makes_a_plan(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(block("toml", "schema = 1"), encoding="utf-8")
    assert [s.name for s in make_plan(load_recipe(path)).stages] == ["synthesize", "sft"]


def test_the_profile_of_the_readme_fits_the_main_recipe(tmp_path):
    path = tmp_path / "recipe.toml"
    main = (ROOT / "recipes" / "cort_math.toml").read_text(encoding="utf-8")
    path.write_text(main.partition("\n[profile")[0] + "\n" + block("toml", "[profile."), encoding="utf-8")
    recipe = load_recipe(path, "1.5b")
    assert recipe.rollout.max_tokens == 16000
    assert recipe.tasks["train"].model_extra == {"dataset": "rasbt/math_full_minus_math500"}


def test_the_plugin_of_the_readme_answers_a_call():
    namespace: dict[str, object] = {"__name__": "cort_weekday"}
    exec(compile(block("python", "Weekday"), "README.md", "exec", dont_inherit=True), namespace)
    assert namespace["cort_tools"]() == [namespace["Weekday"]]
    assert check_tool(namespace["Weekday"], "2024-02-29\n").text == "Thursday"


def small(script: str) -> str:
    """The script with less of everything."""
    for long, short in (
        ("240", "8"),
        ('"size": 100', '"size": 4'),
        ('"target": 30', '"target": 3'),
        ('"steps": 16', '"steps": 1'),
    ):
        assert long in script
        script = script.replace(long, short)
    return script


def test_the_script_of_the_readme_runs_every_stage_on_a_scripted_model(tmp_path, monkeypatch, cort_registry):
    """Tasks, interpreter, hints, filters and rewards are the real ones; the model and its training are not."""
    answers = {}
    for split, size in (("train", 8), ("test", 4)):
        tiny = cort_registry.resolve("task-source", "tiny").cls
        answers |= {t.prompt: t.answer for t in tiny(tiny.Config(split=split, size=size)).tasks()}

    def write(prompt: str, response: str) -> str:
        answer = next(a for problem, a in answers.items() if problem in prompt)
        code = f"```python\nprint({answer})\n```\n"
        if "```python" in response and not response.startswith("```python"):
            response = response[response.index("```python") :]
        elif "```" not in response:
            response = ""
        return says(code, f"</think>The answer is \\boxed{{{answer}}}.")(prompt, response)

    class Same(cort.Trainer):
        """Trains nothing."""

        name = "sft"

        class Config(cort.PluginConfig):
            model_config = {"extra": "allow"}

        def train(self, context: cort.TrainContext) -> cort.Checkpoint:
            if context.rollout is not None:
                requests = [
                    cort.RolloutRequest(task, sample) for task in context.tasks[:2] for sample in range(2)
                ]
                assert all("brevity" in t.rewards for t in context.rollout(requests))
            else:
                assert context.trajectories
            (context.folder / "checkpoint").mkdir()
            return cort.Checkpoint(context.folder / "checkpoint")

    class SameInRL(Same):
        name = "grpo"

    class Scripted(scripted_engine(write)):
        name = "transformers"

    def resolve(kind: str, name: str):
        mine = {("engine", "transformers"): Scripted, ("trainer", "sft"): Same, ("trainer", "grpo"): SameInRL}
        distribution = cort_registry.register(mine[kind, name]).__module__ if (kind, name) in mine else ""
        return real(kind, f"{distribution}/{name}" if distribution else name)

    real = cort_registry.resolve
    monkeypatch.setattr(cort_registry, "resolve", resolve)
    monkeypatch.setattr("cort_framework.recipe.planner.default_registry", lambda: cort_registry)
    monkeypatch.setattr("cort_framework.register", cort_registry.register, raising=False)
    report = execute(small(block("python", "cort.Recipe(")), tmp_path, monkeypatch)
    assert [s.name for s in report.stages] == ["synthesize", "sft", "rft", "rl", "test"]
    assert report.results[0]["accuracy"] == 1.0


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_script_of_the_readme_runs_every_stage_with_the_real_model_and_trainers(tmp_path, monkeypatch):
    script = (
        block("python", "cort.Recipe(")
        .replace('"size": 240', '"size": 60')
        .replace('"steps": 16', '"steps": 2')
    )
    report = execute(script, tmp_path, monkeypatch)
    assert [s.name for s in report.stages] == ["synthesize", "sft", "rft", "rl", "test"]
    assert (report.checkpoint / "model.safetensors").is_file()


def execute(script: str, folder: Path, monkeypatch) -> object:
    """What the script's ``cort.run`` returned."""
    monkeypatch.chdir(folder)
    path = folder / "script.py"
    path.write_text(script, encoding="utf-8")
    return runpy.run_path(str(path), run_name="readme_script")["report"]


# --- figures ----------------------------------------------------------------------------------------------------
@pytest.fixture
def runs(tmp_path):
    """Two finished runs of one stage."""
    for seed, accuracy in ((0, 0.5), (1, 0.75)):
        folder = tmp_path / f"seed-{seed}"
        (folder / "base").mkdir(parents=True)
        record = {
            "name": "natural",
            "test_set": "in-range",
            "tasks": 8,
            "accuracy": accuracy,
            "accuracy_ci": [accuracy - 0.1, accuracy + 0.2],
            "tokens": 300.0,
            "tokens_per_correct": 600.0,
            "tool_calls": 0.0,
            "code_share": 0.0,
            "calculation_share": None,
        }
        (folder / "results.json").write_text(json.dumps([record]))
        (folder / "environment.json").write_text(json.dumps({"seed": seed, "python": "3.11", "packages": {}}))
        (folder / "plan.json").write_text(json.dumps({"stages": [{"name": "base"}]}))
        (folder / "base" / "stage.json").write_text(json.dumps({"seconds": 60 * (seed + 1)}))
    return tmp_path


def figures(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["figures.py", *map(str, arguments)])
    runpy.run_path(str(ROOT / "docs" / "figures.py"), run_name="__main__")


def test_the_figures_of_the_readme_come_from_the_run_folders(runs, monkeypatch):
    readme, drawn = runs / "README.md", runs / "effect.svg"
    readme.write_text("before\n<!-- figures: begin -->\nold\n<!-- figures: end -->\nafter\n")
    for _ in range(2):  # what it wrote, it replaces
        figures(monkeypatch, runs / "seed-0", runs / "seed-1", "--readme", readme, "--picture", drawn)
    text = readme.read_text()
    assert text.startswith("before\n<!--") and text.endswith("-->\nafter\n") and "old" not in text
    assert "| natural | in-range | **62.5** (50.0 to 75.0) | 300 | 600 | 0.00 | 0 | – |" in text
    assert "Seeds 0, 1; 8 in-range tasks; 1.0 to 2.0 minutes a run" in text
    assert "62 %" in drawn.read_text() and text.count("figures: begin") == 1


def test_figures_refuse_runs_that_do_not_match(runs, monkeypatch):
    (runs / "seed-1" / "results.json").write_text("[]")
    with pytest.raises(SystemExit, match="natural on in-range is in 1 of 2 runs"):
        figures(monkeypatch, runs / "seed-0", runs / "seed-1")
