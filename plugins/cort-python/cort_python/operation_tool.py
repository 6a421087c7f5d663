"""The base of tools that are a set of operations, each call of which runs in a process of its own."""

from __future__ import annotations

import base64
import importlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from cort_framework import OpenContext, Outcome, PluginConfig, RequestError, Task, Tool, ToolCall, ToolResult
from cort_python.calls import CallDied, Caller, CallRaised
from cort_python.isolation.policy import Policy
from cort_python.isolation.settings import IsolationConfig, check_required, refuse_without
from cort_python.operations import OperationError, Operations
from cort_python.outcomes import CALL_DIED, TIMED_OUT
from cort_python.template import can_fork, layers_here


class NativeSchema:
    """``parameters``: made of the tool's operations when it is read, so that listing plugins stays quick; of an open or
    configured tool, of those that its ``only`` names."""

    def __get__(self, instance: OperationTool | None, owner: type[OperationTool]) -> dict[str, Any]:
        return load(owner.operations).only(() if instance is None else instance.config.only).schema()


def load(operations: str) -> Operations:
    """What ``module:object`` names."""
    module, _, name = operations.partition(":")
    found: Operations = getattr(importlib.import_module(module), name)
    return found


class OperationTool(Tool):
    """Base of a tool whose ``operations`` (``"module:object"``, an ``Operations``) run a process a call. No state."""

    operations: ClassVar[str]
    rehearsal: ClassVar[str | None] = None
    """A call that costs next to nothing: see ``Caller``."""
    parameters = NativeSchema()

    class Config(PluginConfig):
        timeout_s: float = Field(default=10.0, gt=0)
        """Seconds that a call may take."""
        output_limit: int = Field(default=800, ge=2)
        """Characters of a result: of a longer one the first and last half are shown."""
        concurrency: int = Field(default=2, gt=0)
        """Calls that calculate at the same time; more wait for their turn."""
        memory_mb: int | None = Field(default=2048, gt=0)
        """Address space that a call may take for itself. Linux."""
        only: tuple[str, ...] = ()
        """Operations that may be called, and that ``{tools}`` in a prompt lists; all of them where none is named."""
        isolation: IsolationConfig = IsolationConfig()
        """Walls around the calls, as for the tool ``python``."""

    config: Config

    caller: Caller | None = None
    files: Path
    """The folder of what calls make besides text. Names tell the content, so that equal runs make equal text."""

    @property
    def policy(self) -> Policy:
        isolation = self.config.isolation
        return Policy(tuple(map(str, isolation.readable)), isolation.without)

    def preflight(self) -> None:
        try:
            load(self.operations).only(self.config.only)
        except OperationError as error:
            raise RequestError(f"only: {error}") from None
        if require := self.config.isolation.require:
            refuse_without(require, layers_here(self.policy) if can_fork() else {})

    async def open(self, context: OpenContext) -> None:
        self.files = context.scratch / self.name
        self.caller = Caller(
            f"{self.operations}.answer",
            folder=context.scratch,
            preload=self.preload,
            timeout_s=self.config.timeout_s,
            concurrency=self.config.concurrency,
            memory_mb=self.config.memory_mb,
            rehearsal=self.rehearsal and {"code": self.rehearsal, "output_limit": self.config.output_limit},
            policy=self.policy,
        )
        await self.caller.open()
        check_required(self.config.isolation, self.caller.layers)

    async def close(self) -> None:
        if self.caller is not None:
            await self.caller.close()

    @asynccontextmanager
    async def session(self, task: Task, *, trajectory_id: str, seed: int) -> AsyncIterator[OperationTool]:
        yield self

    async def call(self, call: ToolCall) -> ToolResult:
        """One or more operations, in a process of their own."""
        started = time.monotonic()
        request = {
            "code": call.code,
            "arguments": call.arguments,
            "output_limit": self.config.output_limit,
            "only": self.config.only,
        }
        outcome, text, dropped, error = await self._answer(request)
        return ToolResult(outcome, text, time.monotonic() - started, dropped, error=error)

    async def _answer(self, request: dict[str, Any]) -> tuple[Outcome, str, int, str | None]:
        assert self.caller is not None
        try:
            answer = await self.caller.call(request)
        except TimeoutError:
            return Outcome.TIMEOUT, TIMED_OUT.format(seconds=self.config.timeout_s), 0, "timeout"
        except CallDied as death:
            return Outcome.RESOURCE_LIMIT, CALL_DIED.format(how=death), 0, str(death)
        except CallRaised as raised:
            if "MemoryError" not in str(raised):
                raise
            return Outcome.RESOURCE_LIMIT, CALL_DIED.format(how=raised), 0, str(raised)
        for name, data in answer["files"].items():
            self.files.mkdir(parents=True, exist_ok=True)
            (self.files / name).write_bytes(base64.b64decode(data))
        error = answer["error"]
        outcome = Outcome.OK if error is None else Outcome.PROGRAM_ERROR
        if error is not None and error.startswith("MemoryError"):
            outcome = Outcome.RESOURCE_LIMIT
        return outcome, answer["text"], answer["dropped"], error
