"""The suite for tools: a good one passes, and each way of breaking the contract is named."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from cort_framework import (
    InfrastructureError,
    OpenContext,
    Outcome,
    PluginConfig,
    Task,
    Tool,
    ToolCall,
    ToolResult,
)
from cort_framework.testing import ToolCase, check_tool_conformance, conformance


class Notes(Tool):
    """Keeps a note: ``keep X``, ``show``, ``wait``, ``many``; anything else is a fault."""

    name = "notes"
    language = "notes"
    description = "Keeps a note."
    parameters: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {"do": {"type": "string"}},
        "required": ["do"],
        "additionalProperties": False,
    }

    class Config(PluginConfig):
        timeout_s: float = 30.0

    config: Config

    @contextlib.asynccontextmanager
    async def session(self, task: Task, *, trajectory_id: str, seed: int) -> AsyncIterator[Any]:
        yield Session(self, {})


class Session:
    def __init__(self, tool: Notes, notes: dict[str, str]) -> None:
        self.tool, self.notes = tool, notes

    async def call(self, call: ToolCall) -> ToolResult:
        code = call.code if call.arguments is None else call.arguments.get("do")
        unknown = set(call.arguments or {}) - {"do"}
        return await self.do(code if isinstance(code, str) and not unknown else "")

    async def do(self, code: str) -> ToolResult:
        match code.split():
            case ["keep", note]:
                self.notes["note"] = note
                return ToolResult(Outcome.OK, "kept")
            case ["show"]:
                return ToolResult(Outcome.OK, self.notes.get("note", "nothing"))
            case ["many"]:
                return ToolResult(Outcome.OK, "x" * 100, dropped_characters=10**6)
            case ["wait"]:
                try:
                    async with asyncio.timeout(self.tool.config.timeout_s):
                        await asyncio.sleep(60)
                except TimeoutError:
                    return ToolResult(Outcome.TIMEOUT, "[no result]")
        return ToolResult(Outcome.PROGRAM_ERROR, "error: what?", error="what?")


CASE = ToolCase(
    Notes,
    works="keep a",
    text="kept",
    native={"do": "keep a"},
    fails="burn",
    state=("keep secret", "show", "secret"),
    hangs="wait",
    limit_s=0.4,
    floods="many",
    config={"timeout_s": 0.4},
)


def test_a_tool_that_keeps_the_contract_passes() -> None:
    check_tool_conformance(CASE)


class Schemeless(Notes):
    parameters = {"type": "object", "properties": {}, "required": ["do"]}


class Raising(Notes):
    @contextlib.asynccontextmanager
    async def session(self, task: Task, *, trajectory_id: str, seed: int) -> AsyncIterator[Any]:
        class Picky(Session):
            async def do(self, code: str) -> ToolResult:
                if len(code) > 1000:
                    raise ValueError("too long")
                return await super().do(code)

        yield Picky(self, {})


class Leaky(Notes):
    shared: ClassVar[dict[str, str]] = {}

    @contextlib.asynccontextmanager
    async def session(self, task: Task, *, trajectory_id: str, seed: int) -> AsyncIterator[Any]:
        yield Session(self, self.shared)


class Silent(Notes):
    @contextlib.asynccontextmanager
    async def session(self, task: Task, *, trajectory_id: str, seed: int) -> AsyncIterator[Any]:
        class Mute(Session):
            async def do(self, code: str) -> ToolResult:
                result = await super().do(code)
                return replace(result, text="") if result.outcome is Outcome.PROGRAM_ERROR else result

        yield Mute(self, {})


class Endless(Notes):
    def __init__(self, config: Any = None) -> None:
        super().__init__(self.Config(timeout_s=60))


class Stubborn(Notes):
    """Does not let a call be cancelled."""

    @contextlib.asynccontextmanager
    async def session(self, task: Task, *, trajectory_id: str, seed: int) -> AsyncIterator[Any]:
        class Deaf(Session):
            async def do(self, code: str) -> ToolResult:
                if code == "wait":
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.sleep(60)
                    return ToolResult(Outcome.OK, "done")
                return await super().do(code)

        yield Deaf(self, {})


class Blaming(Notes):
    @contextlib.asynccontextmanager
    async def session(self, task: Task, *, trajectory_id: str, seed: int) -> AsyncIterator[Any]:
        class Broken(Session):
            async def do(self, code: str) -> ToolResult:
                return ToolResult(Outcome.INFRA_ERROR, "sorry")

        yield Broken(self, {})


class Thready(Notes):
    async def open(self, context: OpenContext) -> None:
        self.stop = threading.Event()
        threading.Thread(target=self.stop.wait, args=(5,), daemon=True).start()


class Littering(Notes):
    async def open(self, context: OpenContext) -> None:
        tempfile.mkdtemp()


class Spawning(Notes):
    async def open(self, context: OpenContext) -> None:
        self.child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(5)"])


class Unopened(Notes):
    async def open(self, context: OpenContext) -> None:
        raise InfrastructureError("no luck")


@pytest.mark.parametrize(
    ("tool", "complaint"),
    [
        (Schemeless, "it says how it is called: required but not described: {'do'}"),
        (Raising, "whatever is written has an outcome: ValueError: too long"),
        (Leaky, "a session remembers and no other one knows: state leaks between sessions"),
        (
            Silent,
            "a call that fails is a program error and costs nothing else: a failure is told in the text",
        ),
        (Endless, "a call that never ends is ended and the session goes on: the call was not ended"),
        (Stubborn, "a cancelled call must not swallow its cancellation"),
        (Blaming, "a tool raises what is its own fault"),
        (Thready, "after close() there are still threads"),
        (Littering, "after close() there are still temporary files"),
        (Spawning, "after close() there are still processes"),
    ],
)
def test_each_way_of_breaking_the_contract_is_named(
    tool: type[Notes], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conformance, "SLACK_S", 0.3)
    with pytest.raises(AssertionError) as caught:
        check_tool_conformance(replace(CASE, tool=tool))
    assert complaint in str(caught.value)


def test_a_tool_that_does_not_open_is_not_called_nonconforming() -> None:
    with pytest.raises(InfrastructureError, match="no luck"):
        check_tool_conformance(replace(CASE, tool=Unopened))


def test_a_native_tool_s_case_must_have_a_native_call() -> None:
    with pytest.raises(AssertionError, match="the case has no native call"):
        check_tool_conformance(replace(CASE, native=None))
    assert json.dumps(Notes.parameters)
