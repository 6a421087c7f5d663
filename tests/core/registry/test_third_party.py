"""A distribution from outside is found, named by a recipe and run; a broken or clashing one harms no other."""

from __future__ import annotations

import json
import os
import site as python_site
import subprocess
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sites import FIXTURES

from cort_framework.store import read_trajectories

if TYPE_CHECKING:
    from sites import Site

ROOT = Path(__file__).parents[3]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The outside plugin's recipe, in a folder of its own beside a model folder."""
    model = tmp_path / "work" / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    path = tmp_path / "work" / "recipe.toml"
    path.write_text((FIXTURES / "outside-plugin" / "recipe.toml").read_text().replace("MODEL", str(model)))
    return path


def check_run(folder: Path) -> None:
    """The tool answered, the reward saw it, and both stand in the results."""
    trajectories = read_trajectories(folder / "listen" / "trajectories.jsonl")
    assert len(list(trajectories)) == 3
    for trajectory in read_trajectories(folder / "listen" / "trajectories.jsonl"):
        assert [call.result.text for call in trajectory.calls if call.result] == ["HELLO?!"]
        assert "```output\nHELLO?!\n```\n" in trajectory.response
        assert trajectory.rewards["answer"].value == 1.0
    (record,) = json.loads((folder / "results.json").read_text())
    assert (record["name"], record["accuracy"], record["tool_calls"]) == ("parrot", 1.0, 1.0)


def test_a_recipe_runs_with_the_tool_and_the_reward_of_an_outside_distribution(
    site: Site, recipe: Path
) -> None:
    site.install("outside-plugin")
    site.install("broken-plugin")
    done = site.cort("run", recipe, "--run-dir", recipe.parent / "run", cwd=recipe.parent)
    assert done.returncode == 0, done.stderr
    check_run(recipe.parent / "run")


def test_a_recipe_that_names_a_broken_plugin_ends_with_code_2_and_says_why(site: Site, recipe: Path) -> None:
    site.install("outside-plugin")
    site.install("broken-plugin")
    done = site.cort("run", recipe, "--set", "rollout.tools.broken.x=1", cwd=recipe.parent)
    assert done.returncode == 2
    assert "outside-broken 0.3" in done.stderr and "No module named 'a_module_that_nobody_has'" in done.stderr
    assert 'hint: pip install "a-module-that-nobody-has>=3"' in done.stderr
    assert not (recipe.parent / "runs").exists()
    traced = site.cort("run", recipe, "--set", "rollout.tools.broken.x=1", "--traceback", cwd=recipe.parent)
    assert "import a_module_that_nobody_has" in traced.stderr


def test_a_name_that_two_distributions_claim_ends_with_code_2_until_the_recipe_chooses(
    site: Site, recipe: Path
) -> None:
    site.install("outside-plugin")
    site.install("clashing-plugin")
    run = ("run", recipe, "--run-dir", recipe.parent / "run")
    done = site.cort(*run, cwd=recipe.parent)
    assert done.returncode == 2
    assert "tool 'shout' is claimed by outside-rival and by outside-shout" in done.stderr
    assert "line 12: rollout.tools.shout" in done.stderr
    done = site.cort(*run, "--set", "rollout.tools.shout.use=outside-shout/shout", cwd=recipe.parent)
    assert done.returncode == 0, done.stderr
    check_run(recipe.parent / "run")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_wheels_installed_with_pip_in_a_fresh_environment_run_outside_the_checkout(
    tmp_path: Path, recipe: Path
) -> None:
    def pip(*arguments: str | Path, python: str | Path = sys.executable) -> None:
        command = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
        assert done.returncode == 0, done.stderr

    wheels = tmp_path / "wheels"
    outside = [FIXTURES / name for name in ("outside-plugin", "broken-plugin", "clashing-plugin")]
    for project in (ROOT, *outside):
        pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, project)

    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    # Third-party dependencies come from the running environment, without anything of this project in it.
    borrowed = tmp_path / "borrowed"
    borrowed.mkdir()
    for path in (p for folder in python_site.getsitepackages() for p in Path(folder).iterdir()):
        if not path.name.startswith(("cort", "_cort", "__editable__")) and path.suffix != ".pth":
            (borrowed / path.name).symlink_to(path)
    (own,) = environment.glob("lib/python*/site-packages")
    (own / "borrowed.pth").write_text(f"{borrowed}\n")
    pip("install", "--no-deps", "--no-index", *wheels.glob("*.whl"), python=python)

    def cort(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        command = [str(environment / "bin" / "cort"), *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=recipe.parent, env=clean, timeout=120, check=False
        )

    where = subprocess.run(
        [python, "-c", "import cort_framework; print(cort_framework.__file__)"],
        capture_output=True, text=True, cwd=recipe.parent, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(environment))
    assert "cort_math" in cort("recipes", "list").stdout
    listed = json.loads(cort("plugins", "list", "--json").stdout)
    assert [f["distribution"] for f in listed["failed"]] == ["outside-broken"]
    chosen = ("--set", "rollout.tools.shout.use=outside-shout/shout")
    assert cort("run", recipe).returncode == 2
    assert cort("run", recipe, *chosen, "--set", "rollout.tools.broken.x=1").returncode == 2
    done = cort("run", recipe, *chosen)
    assert done.returncode == 0, done.stderr
    check_run(recipe.parent / "runs" / "outside")
