"""A real kernel's answers, given again without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cort_framework import RolloutSettings, Task, ToolCall, ToolResult
from cort_framework.executor import open_tools
from cort_framework.recipe import Recipe, make_plan
from cort_framework.runtime import Runtime
from cort_python import tool as python_tool

CELLS = ("import random\nx = random.random()", "x, random.random()", "1 / 0", "while True: pass", "x")


def answers(**settings: Any) -> list[ToolResult]:
    recipe = Recipe.model_validate(
        {
            "name": "r",
            "model": "tiny",
            "tasks": {"t": {"source": "tiny"}},
            "rollout": {"tools": {"python": {"timeout_s": 1, "spares": 0}}},
            "stage": [{"name": "e", "kind": "evaluate", "system": "s", "tasks": ["t"]}],
        }
    )

    async def session(tool: Any) -> list[ToolResult]:
        async with tool.session(Task("t", ""), trajectory_id="t/0", seed=3) as live:
            return [await live.call(ToolCall("python", code, index=n)) for n, code in enumerate(CELLS)]

    with Runtime() as runtime:
        tools = open_tools(make_plan(recipe).tools.values(), RolloutSettings(**settings), runtime)
        return runtime.call(session(tools["python"]), 60)


def test_a_kernel_that_was_recorded_is_not_needed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tape = str(tmp_path / "tape")
    first = answers(cassette=tape)
    assert [str(r.outcome) for r in first] == ["ok", "ok", "program_error", "timeout", "ok"]

    async def never(*arguments: object) -> None:
        raise AssertionError("a kernel was asked for")

    monkeypatch.setattr(python_tool.PythonTool, "open", never)
    monkeypatch.setattr(python_tool.PythonSession, "call", never)
    assert answers(cassette=tape, cassette_miss="error") == first
