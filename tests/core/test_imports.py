"""The core's layers, and what it never imports."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cort_framework
from cort_framework.registry.discovery import PRESENTATION

CORE = Path(cort_framework.__file__).parent
LAYERS = (
    "types",
    "errors",
    "machine",
    "interfaces",
    "hookspecs",
    "registry",
    "parsing",
    "rendering",
    "display",
    "store",
    "evaluation",
    "guards",
    "recipe",
    "rollout",
    "alignment",
    "scoring",
    "runtime",
    "executor",
    "runs",
    "training",
    "pipeline",
    "forecast",
    "doctor",
    "stages",
    "testing",
    "cli",
)
"""From the bottom up: a module, or a folder of them, imports only from those before it."""
HEAVY = (
    "torch",
    "transformers",
    "vllm",
    "jupyter_client",
    "ipykernel",
    "datasets",
    "trl",
    "accelerate",
    "sympy",
    "rdkit",
    "ray",
)


def layer(path: Path) -> str:
    return path.relative_to(CORE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Layers that a file imports from, wherever the import stands; those for type checkers alone left out."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        parts = [name.split(".") for name in names]
        found |= {p[1] for p in parts if p[0] == "cort_framework" and p[1] in LAYERS}
    return found


FILES = sorted(p for p in CORE.rglob("*.py") if p != CORE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CORE)))
def test_a_module_imports_only_from_those_below_it(path: Path) -> None:
    above = set(LAYERS[LAYERS.index(layer(path)) + 1 :])
    assert not imported(path) & above


def test_every_module_has_its_place_in_the_order() -> None:
    assert {layer(path) for path in FILES} == set(LAYERS)


def test_contributing_names_the_layers_in_their_order() -> None:
    text = (CORE.parent / "CONTRIBUTING.md").read_text()
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("  | `")]
    assert tuple(re.findall(r"`(\w+)/?`", "".join(rows))) == LAYERS


def test_what_is_left_out_of_a_version_is_there() -> None:
    packages = [CORE, *CORE.parent.glob("plugins/*/cort_*")]
    assert all(any((package / name).exists() for package in packages) for name in PRESENTATION)


def loaded_after(code: str) -> set[str]:
    """The heavy packages that a fresh interpreter has loaded after some code."""
    report = (
        f"{code}\nimport sys\nprint('loaded', *({{m.partition('.')[0] for m in sys.modules}} & set({HEAVY})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", report], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_no_module_of_the_core_loads_anything_heavy() -> None:
    modules = [
        ".".join(p.relative_to(CORE.parent).with_suffix("").parts).removesuffix(".__init__") for p in FILES
    ]
    assert loaded_after(f"import {', '.join(modules)}") == set()


@pytest.mark.parametrize(
    "arguments", [["--help"], ["plugins", "list"], ["recipes", "list"], ["run", "--help"]]
)
def test_the_command_line_lists_every_installed_plugin_without_loading_anything_heavy(
    arguments: list[str],
) -> None:
    assert loaded_after(f"from cort_framework.cli import main\nmain({arguments})") == set()
