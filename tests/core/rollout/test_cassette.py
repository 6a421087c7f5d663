"""What tools answered is kept, and given again in their stead."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pupil import go
from scripted import PythonHere

from cort_framework import CortError, InfrastructureError, Outcome, Task, ToolCall, ToolResult, Trajectory
from cort_framework.errors import StageFailed
from cort_framework.interfaces import OpenContext
from cort_framework.rollout.cassette import Cassette, Taped
from cort_framework.store import read_trajectories

TASK = Task("t", "")


class Here(PythonHere):
    """Draws its random numbers from the session's seed, and breaks where the code says so."""

    @contextlib.asynccontextmanager
    async def session(self, task: Task, *, trajectory_id: str, seed: int) -> AsyncIterator[Any]:
        async with super().session(task, trajectory_id=trajectory_id, seed=seed) as session:
            session.names["seed"] = seed
            yield session

    async def run(self, code: str, names: dict[str, Any]) -> ToolResult:
        if code == "break":
            raise OSError("it broke")
        if code == "fail":
            return ToolResult(Outcome.INFRA_ERROR, "")
        return await super().run(code, names)


def play(path: Path, *codes: str, tool: Here | None = None, replay: bool = False, seed: int = 7) -> list[str]:
    """One session's outputs."""

    async def session() -> list[str]:
        cassette = Cassette(Cassette.Config(path=str(path), replay=replay))
        try:
            await cassette.open(OpenContext(path.parent))
            taped = Taped(tool or Here(), ["python", {}], cassette)
            async with taped.session(TASK, trajectory_id="t/0", seed=seed) as live:
                results = [await live.call(ToolCall("python", code, index=n)) for n, code in enumerate(codes)]
            return [r.text.strip() for r in results]
        finally:
            await cassette.close()

    return asyncio.run(session())


def test_what_was_recorded_is_answered_without_the_tool(tmp_path: Path) -> None:
    codes = ("x = 2", "print(x)", "1 / 0", "print(x)")
    first = play(tmp_path / "sub" / "c", *codes)
    assert first == ["", "2", "ZeroDivisionError: division by zero", "2"]
    other = Here()
    assert play(tmp_path / "sub" / "c", *codes, tool=other, replay=True) == first and other.log == []


def test_a_call_is_known_by_everything_before_it(tmp_path: Path) -> None:
    play(tmp_path / "c", "x = 2", "print(x)")
    for codes, seed in [(("x = 3", "print(x)"), 7), (("print(x)",), 7), (("x = 2",), 8)]:
        with pytest.raises(InfrastructureError, match="is not in the cassette"):
            play(tmp_path / "c", *codes, replay=True, seed=seed)


def test_what_is_missing_is_called_with_all_that_was_played_before_it(tmp_path: Path) -> None:
    play(tmp_path / "c", "x = 2", "x += 1")
    tool = Here()
    assert play(tmp_path / "c", "x = 2", "x += 1", "print(x)", tool=tool) == ["", "", "3"]
    assert tool.log == ["open", "x = 2", "x += 1", "print(x)", "close"]
    assert play(tmp_path / "c", "x = 2", "x += 1", "print(x)", replay=True) == ["", "", "3"]


def test_a_session_that_would_not_come_to_the_same_point_is_refused(tmp_path: Path) -> None:
    class Other(Here):
        async def run(self, code: str, names: dict[str, Any]) -> ToolResult:
            return ToolResult(Outcome.OK, "something else")

    play(tmp_path / "c", "print(1)")
    with pytest.raises(InfrastructureError, match="ends differently"):
        play(tmp_path / "c", "print(1)", "print(2)", tool=Other())


def test_failures_of_the_machinery_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        play(tmp_path / "c", "break")
    play(tmp_path / "c", "fail")
    for code in ("break", "fail"):
        with pytest.raises(InfrastructureError, match="is not in the cassette"):
            play(tmp_path / "c", code, replay=True)


def test_text_that_no_utf8_can_hold_comes_back(tmp_path: Path) -> None:
    code = "print(ascii('\ud800'), '\u2028é')"
    assert play(tmp_path / "c", code) == play(tmp_path / "c", code, replay=True)


def test_a_file_that_is_no_cassette_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database" * 1000)
    (tmp_path / "empty").write_text("")
    play(tmp_path / "good", "print(1)")
    data = bytearray((tmp_path / "good").read_bytes())
    for place in range(100, len(data)):
        data[place] = 255
    (tmp_path / "damaged").write_bytes(data)
    for name in ("text", "empty", "damaged", "missing"):
        with pytest.raises(CortError, match=f"{name} cannot be used"):
            play(tmp_path / name, "print(1)", replay=True)
    assert not (tmp_path / "missing").exists()


# --- in a run ---------------------------------------------------------------------------------------------------
def trajectories(run: Path) -> list[Trajectory]:
    paths = sorted(run.glob("run/*/trajectories.jsonl"))
    return [dataclasses.replace(t, seconds=0.0) for path in paths for t in read_trajectories(path)]


def test_a_replayed_run_is_the_recorded_one_and_asks_no_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rollout(**settings: Any) -> dict[str, Any]:
        return {"engine": "pupil", "tools": {"python": {}}, **settings}

    for name in ("plain", "recorded", "replayed", "lacking"):
        (tmp_path / name).mkdir()
    tape = str(tmp_path / "tape")
    go(tmp_path / "plain")
    go(tmp_path / "recorded", rollout=rollout(cassette=tape))

    async def never(*arguments: Any) -> None:
        raise AssertionError("a tool was asked")

    monkeypatch.setattr(PythonHere, "open", never)
    monkeypatch.setattr(PythonHere, "run", never)
    go(tmp_path / "replayed", rollout=rollout(cassette=tape, cassette_miss="error"))
    made = trajectories(tmp_path / "replayed")
    assert made == trajectories(tmp_path / "recorded") == trajectories(tmp_path / "plain")
    assert any(t.calls for t in made)
    with pytest.raises(StageFailed, match="is not in the cassette"):
        go(tmp_path / "lacking", "before", rollout=rollout(cassette=tape, cassette_miss="error"), seed=1)
