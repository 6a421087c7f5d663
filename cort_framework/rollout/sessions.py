"""The tool sessions of a trajectory: opened at the first call, tried again when they break, replayed after a rewind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cort_framework.errors import CortError, InfrastructureError
from cort_framework.guards.calls import blame, checked, deadline
from cort_framework.interfaces import Tool, ToolSession
from cort_framework.recipe import RolloutSettings
from cort_framework.types import Outcome, ToolCall, ToolResult, Trajectory, Turn


class Sessions:
    """The tool sessions of one trajectory, each opened at its first call."""

    def __init__(self, tools: Mapping[str, Tool], settings: RolloutSettings, trajectory: Trajectory) -> None:
        self._tools, self._settings, self._trajectory = tools, settings, trajectory
        self._open: dict[str, tuple[ToolSession, contextlib.AsyncExitStack]] = {}

    async def call(self, call: ToolCall, history: Sequence[Turn]) -> ToolResult:
        """Run the call. A failure of the machinery is tried once more in a fresh session, after the cells of ``history``
        have been replayed; a second one raises ``InfrastructureError``."""
        async with deadline(self._settings.turn_timeout_s, f"{self._name(call)}, with its second try,"):
            try:
                return await self._call(call)
            except CortError:
                await self.restart(history, call.tool)
            try:
                return await self._call(call)
            except CortError as error:
                raise InfrastructureError(f"{self._name(call)} failed twice: {error.message}") from error

    async def restart(self, history: Sequence[Turn], name: str | None = None) -> None:
        """Begin all sessions, or that of one tool, afresh and replay the kept cells; an outcome that differs drops the
        trajectory."""
        for open_name in [name] if name else list(self._open):
            await self._close(open_name)
        for turn in history:
            call, before = turn.call, turn.result
            if call is None or before is None or call.tool not in self._tools or (name and call.tool != name):
                continue
            again = await self._call(call)
            if (again.outcome, again.text) != (before.outcome, before.text):
                raise InfrastructureError(f"{self._name(call)} ended differently when it was replayed")

    def _name(self, call: ToolCall) -> str:
        return f"tool '{call.tool}' (from {self._tools[call.tool].distribution}), call {call.index},"

    async def _call(self, call: ToolCall) -> ToolResult:
        tool, settings = self._tools[call.tool], self._settings
        with blame("tool", tool):
            async with deadline(settings.call_timeout_s, self._name(call)):
                if tool.name not in self._open:
                    await self._start(tool)
                result = checked(await self._open[tool.name][0].call(call), ToolResult)
        if result.outcome == Outcome.INFRA_ERROR:
            raise InfrastructureError(result.error or "the tool gave no reason")
        if result.dropped_characters and len(result.text) <= settings.max_output_characters + 100:
            return result  # the tool kept to the limit, and its note says what is missing
        text, dropped = clip(result.text, settings.max_output_characters)
        return replace(result, text=text, dropped_characters=result.dropped_characters + dropped)

    async def _start(self, tool: Tool) -> None:
        trajectory, stack = self._trajectory, contextlib.AsyncExitStack()
        session = tool.session(trajectory.task, trajectory_id=trajectory.id, seed=trajectory.seed)
        self._open[tool.name] = (await stack.enter_async_context(session), stack)

    async def _close(self, name: str) -> None:
        if name not in self._open:
            return
        _, stack = self._open.pop(name)
        with contextlib.suppress(Exception):  # a broken session may well fail to close; its tool closes later
            async with asyncio.timeout(self._settings.call_timeout_s):
                await stack.aclose()

    async def close(self) -> None:
        for name in list(self._open):
            await self._close(name)


def clip(text: str, limit: int) -> tuple[str, int]:
    """Keep the first and the last half of ``limit`` characters (paper: 400 and 400 of 800) and say how many went."""
    if len(text) <= limit:
        return text, 0
    head, tail = text[: limit // 2], text[len(text) - limit // 2 :]
    dropped = len(text) - len(head) - len(tail)
    return f"{head}\n[... {dropped} characters left out ...]\n{tail}", dropped
