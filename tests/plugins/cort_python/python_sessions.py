"""What the tests of the python tool share."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from cort_framework import OpenContext, Task
from cort_python.tool import PythonTool

TASK = Task("task", "prompt")


@asynccontextmanager
async def opened(
    scratch: Path, tool: PythonTool | None = None, **config: object
) -> AsyncIterator[PythonTool]:
    tool = tool or PythonTool(PythonTool.Config(**config))
    try:
        await tool.open(OpenContext(scratch=scratch))
        yield tool
    finally:
        await tool.close()


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pids: list[int], seconds: float = 10) -> list[int]:
    """The ones that still live after that time."""
    end = time.monotonic() + seconds
    while (left := [pid for pid in pids if alive(pid)]) and time.monotonic() < end:
        time.sleep(0.02)
    return left
