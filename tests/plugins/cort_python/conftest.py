from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from python_sessions import TASK, opened

from cort_framework import ToolCall, ToolResult
from cort_python.tool import PythonTool

Run = Callable[..., list[ToolResult]]


async def in_one_session(tool: PythonTool, codes: tuple[str, ...]) -> list[ToolResult]:
    async with tool.session(TASK, trajectory_id="a", seed=0) as session:
        return [await session.call(ToolCall("python", code, index=i)) for i, code in enumerate(codes)]


@pytest.fixture(scope="session")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[asyncio.Runner, PythonTool]]:
    """A tool with the default settings, which the tests that need no others share."""
    with asyncio.Runner() as runner:
        context = opened(tmp_path_factory.mktemp("scratch"))
        yield runner, runner.run(context.__aenter__())
        runner.run(context.__aexit__(None, None, None))


@pytest.fixture
def cells(ordinary: tuple[asyncio.Runner, PythonTool], tmp_path: Path) -> Run:
    """Runs cells in one session, with a real kernel of its own."""

    async def configured(codes: tuple[str, ...], config: dict[str, object]) -> list[ToolResult]:
        async with opened(tmp_path, **config) as tool:
            return await in_one_session(tool, codes)

    def run(*codes: str, **config: object) -> list[ToolResult]:
        if config:
            return asyncio.run(configured(codes, config))
        runner, tool = ordinary
        return runner.run(in_one_session(tool, codes))

    return run
