from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from python_sessions import TASK, opened

from cort_framework import ToolCall, ToolResult


@pytest.fixture
def cells(tmp_path: Path) -> Callable[..., list[ToolResult]]:
    """Runs cells in one session of a real kernel."""

    async def run(codes: tuple[str, ...], config: dict[str, object]) -> list[ToolResult]:
        async with (
            opened(tmp_path, **config) as tool,
            tool.session(TASK, trajectory_id="a", seed=0) as session,
        ):
            return [await session.call(ToolCall("python", code, index=i)) for i, code in enumerate(codes)]

    return lambda *codes, **config: asyncio.run(run(codes, config))
