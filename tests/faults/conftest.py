"""The campaign of faults: each test tries many, and all of them stand in one table at the end of the run."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

TESTS = Path(__file__).parents[1]
sys.path += [
    str(TESTS / name) for name in ("core", "plugins", "plugins/cort_trl")
]  # the small worlds of other tests

Outcome = Literal["survived", "refused", "lost"]
TABLE = pytest.StashKey[dict[str, Counter[str]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLE] = {}


@pytest.fixture
def tried(request: pytest.FixtureRequest) -> Callable[[str, Outcome], None]:
    """``tried(fault, outcome)``: one fault more. ``survived``: the work went on and came to the same end; ``refused``: an error
    for people, and nothing lost; ``lost``: anything else, which fails the test as well."""
    table = request.config.stash[TABLE]

    def note(fault: str, outcome: Outcome) -> None:
        table.setdefault(fault, Counter())[outcome] += 1

    return note


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    table = config.stash[TABLE]
    if not table:
        return
    terminalreporter.section("faults")
    width = max(map(len, table))
    terminalreporter.line(f"{'fault':{width}}  tried  survived  refused  lost")
    for fault, counts in table.items():
        row = f"{counts.total():5}  {counts['survived']:8}  {counts['refused']:7}  {counts['lost']:4}"
        terminalreporter.line(f"{fault:{width}}  {row}")
