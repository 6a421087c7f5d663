"""The base of tools that are a set of operations, each call of which runs in a process of its own."""

from __future__ import annotations

import base64
import importlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from cort_framework import OpenContext, Outcome, PluginConfig, Task, Tool, ToolCall, ToolResult
from cort_python.calls import CallDied, Caller
from cort_python.isolation.policy import Policy
from cort_python.isolation.settings import IsolationConfig, check_required
from cort_python.operations import Operations

TIMED_OUT = "[no result within {seconds:g} s]"
DIED = "[the calculation ended its process ({how})]"


class FromOperations:
    """A class attribute that is made of the tool's operations when it is first read: listing plugins stays quick."""

    def __init__(self, make: Callable[[Operations], Any]) -> None:
        self.make = make

    def __get__(self, instance: object, owner: type[OperationTool]) -> Any:
        module, _, name = owner.operations.partition(":")
        return self.make(getattr(importlib.import_module(module), name))


class OperationTool(Tool):
    """Base of a tool whose ``operations`` (``"module:object"``, an ``Operations``) run a process a call. No state."""

    operations: ClassVar[str]
    parameters = FromOperations(lambda operations: operations.schema())  # type: ignore[assignment]

    class Config(PluginConfig):
        timeout_s: float = Field(default=10.0, gt=0)
        """Seconds that a call may take."""
        output_limit: int = Field(default=800, ge=2)
        """Characters of a result: of a longer one the first and last half are shown."""
        concurrency: int = Field(default=2, gt=0)
        """Calls that calculate at the same time; more wait for their turn."""
        memory_mb: int | None = Field(default=2048, gt=0)
        """Address space that a call may take for itself. Linux."""
        isolation: IsolationConfig = IsolationConfig()
        """Walls around the calls, as for the tool ``python``."""

    config: Config

    files: Path
    """The folder of what calls make besides text. Names tell the content, so that equal runs make equal text."""

    async def open(self, context: OpenContext) -> None:
        isolation = self.config.isolation
        self.files = context.scratch / self.name
        self.caller = Caller(
            f"{self.operations}.answer",
            folder=context.scratch,
            preload=self.preload,
            timeout_s=self.config.timeout_s,
            concurrency=self.config.concurrency,
            memory_mb=self.config.memory_mb,
            policy=Policy(tuple(map(str, isolation.readable)), isolation.without),
        )
        await self.caller.open()
        check_required(isolation, self.caller.layers)

    async def close(self) -> None:
        await self.caller.close()

    @asynccontextmanager
    async def session(self, task: Task, *, trajectory_id: str, seed: int) -> AsyncIterator[OperationTool]:
        yield self

    async def call(self, call: ToolCall) -> ToolResult:
        """One or more operations, in a process of their own."""
        started = time.monotonic()
        limit = self.config.output_limit
        request = {"code": call.code, "arguments": call.arguments, "output_limit": limit}
        outcome, text, dropped, error = await self._answer(request)
        return ToolResult(outcome, text, time.monotonic() - started, dropped, error=error)

    async def _answer(self, request: dict[str, Any]) -> tuple[Outcome, str, int, str | None]:
        try:
            answer = await self.caller.call(request)
        except TimeoutError:
            return Outcome.TIMEOUT, TIMED_OUT.format(seconds=self.config.timeout_s), 0, "timeout"
        except CallDied as death:
            return Outcome.RESOURCE_LIMIT, DIED.format(how=death), 0, str(death)
        for name, data in answer["files"].items():
            self.files.mkdir(parents=True, exist_ok=True)
            (self.files / name).write_bytes(base64.b64decode(data))
        error = answer["error"]
        outcome = Outcome.OK if error is None else Outcome.PROGRAM_ERROR
        if error is not None and error.startswith("MemoryError"):
            outcome = Outcome.RESOURCE_LIMIT
        return outcome, answer["text"], answer["dropped"], error
