"""Distributions on a path of their own: what pip writes, without pip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

FIXTURES = Path(__file__).parent.parent / "fixtures"


class Site:
    """A folder like site-packages, first on the path of this process and of the ones that ``cort`` starts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, fixture: str) -> None:
        """The distribution in ``tests/fixtures/<fixture>``."""
        project = tomllib.loads((FIXTURES / fixture / "pyproject.toml").read_text())["project"]
        for package in project["entry-points"]["cort"].values():
            shutil.copytree(FIXTURES / fixture / package, self.folder / package)
        self._describe(
            project["name"], project["version"], project["entry-points"]["cort"], project["dependencies"]
        )

    def write(
        self,
        distribution: str,
        source: str,
        version: str = "1.0",
        requires: tuple[str, ...] = (),
        entry: str | None = None,
    ) -> Path:
        """A distribution of one module with this source; its entry point is ``entry``, or called as it is itself."""
        module = distribution.replace("-", "_")
        path = self.folder / f"{module}.py"
        path.write_text(f"import cort_framework as cort\n{source}")
        entries = {entry or distribution.removeprefix("cort-"): module}
        self._describe(distribution, version, entries, requires)
        return path

    def _describe(
        self, name: str, version: str, entries: dict[str, str], requires: list[str] | tuple[str, ...]
    ) -> None:
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        needs = "".join(f"Requires-Dist: {r}\n" for r in requires)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        lines = "".join(f"{key} = {value}\n" for key, value in entries.items())
        (info / "entry_points.txt").write_text(f"[cort]\n{lines}")

    def cort(self, *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """The command line, in a process of its own."""
        return subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; from cort_framework.cli import main; sys.exit(main())",
                *map(str, arguments),
            ],
            capture_output=True,
            text=True,
            cwd=cwd,
            timeout=60,
            env={**os.environ, "PYTHONPATH": str(self.folder), "NO_COLOR": "1"},
        )
