"""What the tests of the core roll out with: tools that run in this process, and a short way to a finished rollout."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from cort_framework import (
    Engine,
    Generation,
    HintInjector,
    Outcome,
    RolloutRequest,
    RolloutSettings,
    Sampling,
    Task,
    Tool,
    ToolCall,
    ToolResult,
    Trajectory,
)
from cort_framework.rollout import RolloutSetup, rollout
from cort_framework.testing import Script, ScriptedEngine, says, scripted_engine

TASK = Task("sum", "What is 2+2?", "4")


def python(code: str) -> str:
    """A block as a model writes it."""
    return f"```python\n{code}\n```\n"


class PythonHere(Tool):
    """Runs code in this process, in a namespace a session. ``log`` tells what became of the sessions."""

    name = "python"
    language = "python"

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.log: list[str] = []

    @contextlib.asynccontextmanager
    async def session(self, task: Task, *, trajectory_id: str, seed: int) -> AsyncIterator[Any]:
        self.log.append("open")
        try:
            yield _Session(self)
        finally:
            self.log.append("close")

    async def run(self, code: str, names: dict[str, Any]) -> ToolResult:
        """One call; tests override it."""
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                exec(code, names)
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            return ToolResult(Outcome.PROGRAM_ERROR, printed.getvalue() + what, error=what)
        return ToolResult(Outcome.OK, printed.getvalue())


class _Session:
    def __init__(self, tool: PythonHere) -> None:
        self.tool = tool
        self.names: dict[str, Any] = {}

    async def call(self, call: ToolCall) -> ToolResult:
        code = call.code if call.arguments is None else call.arguments["code"]
        assert code is not None
        self.tool.log.append(code.strip())
        return await self.tool.run(code, self.names)


class Language(Tool):
    """A tool by name alone: what a parser needs."""

    name = "language"

    def __init__(self, language: str, aliases: tuple[str, ...] = (), parameters: Any = None) -> None:
        super().__init__()
        self.name = self.language = language  # type: ignore[misc]
        self.aliases, self.parameters = aliases, parameters  # type: ignore[misc]

    def session(self, task: Task, *, trajectory_id: str, seed: int) -> Any:
        raise NotImplementedError


def roll(
    script: Script | str | Sequence[str] | Engine,
    tool: Tool | None = None,
    injectors: Sequence[HintInjector] = (),
    *,
    allow_rewind: bool = True,
    words: Sequence[str] = (),
    **settings: Any,
) -> list[Trajectory]:
    """The line of descent of one rollout; ``script`` is what the model writes, stretch after stretch."""
    engine = script if isinstance(script, Engine) else model(script, words)
    tool = tool or PythonHere()
    setup = RolloutSetup(
        engine,
        {tool.name: tool},
        RolloutSettings(**settings),
        "{problem}",
        injectors=injectors,
        allow_rewind=allow_rewind,
    )
    return asyncio.run(rollout(RolloutRequest(TASK), setup))


def model(script: Script | str | Sequence[str], words: Sequence[str] = ()) -> Any:
    if isinstance(script, str):
        script = (script,)
    return scripted_engine(script if callable(script) else says(*script))(words=words)


def show(trajectory: Trajectory) -> str:
    """Authors and texts, for asserts that tell what went wrong."""
    return " | ".join(f"{t.author}: {t.text}" for t in trajectory.turns)


def hints(ask: Callable[[Trajectory], Any], name: str = "asks") -> HintInjector:
    """An injector out of a function."""

    class Asks(HintInjector):
        def inject(self, trajectory: Trajectory) -> Any:
            return ask(trajectory)

    Asks.name = name
    return Asks()


def idle() -> HintInjector:
    """Never hints; makes the engine yield every ``check_every`` tokens."""
    return hints(lambda trajectory: None, "idle")


class Recording(ScriptedEngine):
    """Keeps what it was asked and what it sampled."""

    def __init__(self, *stretches: str, words: Sequence[str] = ()) -> None:
        super().__init__(words=words)
        self.script = says(*stretches)
        self.said: list[tuple[list[int], Generation]] = []

    def write(self, prompt: str, response: str) -> str:
        return self.script(prompt, response)

    async def generate(self, ids: Sequence[int], sampling: Sampling) -> Generation:
        generation = await super().generate(ids, sampling)
        self.said.append((list(ids), generation))
        return generation
