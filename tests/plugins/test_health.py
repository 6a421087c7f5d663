"""Every installed plugin's own check, on the machine that the tests run on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = "import sys; from cort_framework.cli import main; sys.exit(main())"


@pytest.mark.slow
@pytest.mark.timeout(450)
def test_the_doctor_finds_nothing_broken_here_and_hears_from_every_plugin_that_has_a_check(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "doctor", "--recipe", "cort_math", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=400,
    )
    told = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert told["counts"]["broken"] == 0
    heard = {check["distribution"] for check in told["checks"]}
    assert {"cort-framework", "cort-python", "cort-math", "cort-transformers", "cort-trl"} <= heard
    assert {"cort-sympy", "cort-rdkit"} <= heard
    assert "killed" in next(c["detail"] for c in told["checks"] if c["name"] == "endless comparison")
    assert all(check["fix"] for check in told["checks"] if check["state"] != "good")
    assert list(tmp_path.iterdir()) == []
