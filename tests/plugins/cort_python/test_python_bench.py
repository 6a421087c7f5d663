"""``cort bench tools``: what its rows say, and what it says where it cannot measure."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from cort_framework.cli import main
from cort_framework.cli.bench.table import Row, compare
from cort_python.bench import command, faith, speed
from cort_python.bench.rivals import rerun


def test_a_ratio_is_of_medians_and_meets_its_target_or_not() -> None:
    row = compare("f", "b", ([0.001, 0.002, 0.5], [0.02, 0.03, 0.04]), 12)
    assert (row.ours, row.theirs, row.target) == ("2.0 [1.0] ms", "30.0 [20.0] ms", "≥ 12×")
    assert row.ratio == pytest.approx(15) and row.met
    assert compare("f", "b", ([0.9], [1.0]), 0.8, "of the time").met is False
    assert compare("f", "b", ([0.1], [2.0]), 12, "more").ours == "10.0 a second"


def test_a_history_that_is_run_again_forgets_prints_and_cells_that_mention_errors() -> None:
    outputs = asyncio.run(rerun(("x = 1\nprint('one')", "e = 2\nprint('no error')", "print(x)", "print(e)")))
    assert outputs[:3] == ["one", "no error", "1"]
    assert "NameError" in outputs[3]


def test_parts_are_measured_by_name_and_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "tools", "pool", "--rounds", "1", "--json"]) in (0, 1)
    rows = json.loads(capsys.readouterr().out)
    assert [row["figure"] for row in rows] == ["pool: acquire to first result", "warm call"]
    assert all(row["ratio"] > 0 and isinstance(row["met"], bool) for row in rows)


def test_an_unknown_part_is_a_wrong_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "tools", "pools"]) == 2
    assert "there are memory, fresh, pool" in capsys.readouterr().err


def test_a_missed_target_is_named_and_ends_in_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def rows() -> AsyncIterator[Row]:
        yield Row("speed", "stock", "≥ 2×", "1", "1", 1.0, False)
        yield Row("other", "", "all", "", note="not here")

    monkeypatch.setattr(command, "sections", lambda *_: {"all": rows})
    assert main(["bench", "tools"]) == 1
    printed = capsys.readouterr()
    assert "MISSED" in printed.out and "not measured" in printed.out and "other: not here" in printed.out
    assert "missed: speed" in printed.err


@pytest.mark.slow
def test_a_missing_smolagents_is_said_in_the_row_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unmeasured(*_: object, **__: object) -> tuple[list[float], list[float]]:
        return [0.1], [1.0]

    monkeypatch.setattr(speed, "has_smolagents", lambda: False)
    monkeypatch.setattr(speed, "side_by_side", unmeasured)

    async def rows() -> list[Row]:
        return [row async for row in speed.trajectories(1)]

    *_, last = asyncio.run(rows())
    assert last.met is None and last.note == "smolagents is not installed: pip install smolagents"


@pytest.mark.slow
def test_the_rows_that_are_about_what_holds_are_met() -> None:
    async def rows() -> list[Row]:
        parts = (faith.hangs, faith.attacks, faith.state)
        return [row for part in parts async for row in part()]

    assert [row.figure for row in asyncio.run(rows()) if row.met is False] == []
