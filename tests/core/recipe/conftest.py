from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_world import PLUGINS

from cort_framework.registry import Registry
from cort_framework.registry.discovery import InstalledPlugin, discover


@pytest.fixture(scope="module")
def installed() -> list[InstalledPlugin]:
    return discover()


@pytest.fixture(autouse=True)
def registry(installed: list[InstalledPlugin], monkeypatch: pytest.MonkeyPatch) -> Registry:
    registry = Registry(installed)
    for cls in PLUGINS:
        registry.register(cls)
    monkeypatch.setattr("cort_framework.recipe.planner.default_registry", lambda: registry)
    return registry


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "recipe.toml"
        path.write_text(text)
        return path

    return write
