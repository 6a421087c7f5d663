"""The health check of a tool that is a set of operations: one call whose answer is known."""

from __future__ import annotations

import asyncio
import tempfile
import time
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from cort_framework import HealthCheck, HealthContext, HealthReport, OpenContext, Task, ToolCall, ToolResult
from cort_python.isolation.settings import IsolationConfig
from cort_python.operation_tool import OperationTool


class OperationCheck(HealthCheck):
    """Opens the tool, calls it once and closes it."""

    code: ClassVar[str]
    answer: ClassVar[str]

    @abstractmethod
    def tool(self) -> type[OperationTool]:
        """Imported when it is asked for."""

    def check(self, context: HealthContext) -> Iterator[HealthReport]:
        begun = time.monotonic()
        cls = self.tool()
        config = cls.Config(isolation=IsolationConfig(without=("cgroups",)))  # which one call has no use for
        result = asyncio.run(_call(cls(config), self.code))
        told = f"{self.code} gives {result.text.strip()}"
        if result.text.strip() == self.answer:
            yield HealthReport(
                self.name, "good", f"{told}, {1000 * (time.monotonic() - begun):.0f} ms from the start"
            )
        else:
            fix = f"pip install --force-reinstall {' '.join(self.requires)}"
            yield HealthReport(self.name, "broken", f"{told} ({result.outcome}), not {self.answer}", fix)


async def _call(tool: OperationTool, code: str) -> ToolResult:
    with tempfile.TemporaryDirectory() as scratch:
        try:
            await tool.open(OpenContext(scratch=Path(scratch)))
            async with tool.session(Task("check", "check"), trajectory_id="check", seed=0) as session:
                return await session.call(ToolCall(tool.name, code))
        finally:
            await tool.close()
