"""For the tests of plugins: a scripted model, trajectories from text, and checks of each kind's contract.

Installed with the framework as a pytest plugin, so that the two fixtures at the end are there without an import.
Only the model is ever scripted: the tools, filters and rewards under test are the real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import math
import re
import tempfile
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cort_framework.interfaces import (
    Engine,
    Filter,
    HintInjector,
    OpenContext,
    Plugin,
    RewardFunction,
    TaskSource,
    Tool,
)
from cort_framework.testing.conformance import ToolCase, check_tool_conformance
from cort_framework.types import (
    Generation,
    Group,
    Hint,
    Outcome,
    Sampling,
    Task,
    ToolCall,
    ToolResult,
    Trajectory,
    Turn,
    Verdict,
    Weights,
)

__all__ = [
    "ByteTokenizer", "Script", "ScriptedEngine", "ToolCase", "check_engine", "check_filter", "check_injector",
    "check_reward", "check_task_source", "check_tool", "check_tool_conformance", "make_trajectory", "sample_trajectories",
    "says", "scripted_engine",
]  # fmt: skip

P = TypeVar("P", bound=Plugin)
R = TypeVar("R")
Script = Callable[[str, str], str]
"""(prompt, response so far) -> all that the model would write from here to its end of sequence."""


# --- a model that follows a script ------------------------------------------------------------------------------
class ByteTokenizer:
    """One token a UTF-8 byte, 256 for the end of sequence, and one more for each of ``words``.

    Words make tokens of several characters: one such as ``"`\\n\\n"`` crosses a closing fence.
    """

    eos_ids = frozenset({256})

    def __init__(self, words: Sequence[str] = ()) -> None:
        self._pieces = [bytes([b]) for b in range(256)] + [b"<|end|>"] + [w.encode() for w in words]
        self._words = sorted(range(257, len(self._pieces)), key=lambda i: -len(self._pieces[i]))

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        data, ids = text.encode(), []
        while data:
            token = next((w for w in self._words if data.startswith(self._pieces[w])), data[0])
            ids.append(token)
            data = data[len(self._pieces[token]) :]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(self._pieces[i] for i in ids).decode(errors="replace")

    def apply_chat_template(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        turns = "".join(f"<{m['role']}>{m['content']}" for m in messages)
        return self.encode(f"{turns}<assistant>")


class ScriptedEngine(Engine):
    """An engine whose texts come from ``write``. It honours stop strings, the token limit and the end of sequence; its
    log-probs are made up, but always the same ones at a position."""

    name = "scripted"

    def __init__(self, config: Any = None, words: Sequence[str] = ()) -> None:
        super().__init__(config)
        self.tokenizer = ByteTokenizer(words)
        self.version = 0

    @abstractmethod
    def write(self, prompt: str, response: str) -> str:
        """All that the model would write after ``response``, to its end of sequence."""

    async def load_weights(self, weights: Weights) -> None:
        self.version = weights.version

    async def generate(self, ids: Sequence[int], sampling: Sampling) -> Generation:
        prompt, _, response = self.tokenizer.decode(ids).partition("<assistant>")
        wanted = [*self.tokenizer.encode(self.write(prompt, response)), *self.tokenizer.eos_ids]
        await asyncio.sleep(0)
        for count, token in enumerate(wanted, 1):
            text = self.tokenizer.decode(wanted[:count])
            if token in self.tokenizer.eos_ids:
                return self._generation(ids, wanted[:count], "eos")
            if any(stop in text for stop in sampling.stop):
                return self._generation(ids, wanted[:count], "stop")
            if count == sampling.max_tokens:
                break
        return self._generation(ids, wanted[:count], "length")

    def _generation(self, before: Sequence[int], ids: Sequence[int], stop: Any) -> Generation:
        logprobs = tuple(-0.01 * (1 + (len(before) + n) % 100) for n in range(len(ids)))
        return Generation(tuple(ids), logprobs, stop, self.version)


def scripted_engine(script: Script) -> type[ScriptedEngine]:
    """An engine class that follows ``script``; register it to name it in a recipe, or open ``scripted_engine(script)()``."""

    class Scripted(ScriptedEngine):
        """Follows a test's script."""

        def write(self, prompt: str, response: str) -> str:
            return script(prompt, response)

    return Scripted


def says(*stretches: str) -> Script:
    """The script of a model that writes ``stretches[n]`` after the n-th tool output, the last of them from then on."""

    def write(prompt: str, response: str) -> str:
        parts = re.split(r"```output\n.*?\n```\n", response, flags=re.DOTALL)
        stretch, written = stretches[min(len(parts), len(stretches)) - 1], parts[-1]
        return stretch[len(written) :] if stretch.startswith(written) else stretch

    return write


# --- trajectories from text -------------------------------------------------------------------------------------
def make_trajectory(pieces: Sequence[tuple[Any, ...]], task: Task | None = None, **fields: Any) -> Trajectory:
    """A trajectory of ``(author, text)`` pieces, finished unless ``stop_reason`` says otherwise.

    The text of a ``tool`` piece is the bare output, and a third element its ``Outcome`` or ``ToolResult``; the call is the
    last fence in the text before it.

    >>> t = make_trajectory([("prompt", "2+2?"), ("model", "```python\\nprint(2+2)\\n```\\n"), ("tool", "4"), ("model", "4")])
    >>> t.calls[0].call.code, t.calls[0].result.outcome.value
    ('print(2+2)\\n', 'ok')
    """
    tokenizer = ByteTokenizer()
    task = task or Task("task", next((p[1] for p in pieces if p[0] == "prompt"), ""), None)
    trajectory = Trajectory(f"{task.id}/0", task, **{"stop_reason": "eos", **fields})
    pending = ""
    for author, text, *rest in pieces:
        extra: dict[str, Any] = {}
        if author == "model":
            extra = {"logprobs": (-0.5,) * len(tokenizer.encode(text)), "weights_version": 0}
        if author == "tool":
            given = rest[0] if rest else Outcome.OK
            result = given if isinstance(given, ToolResult) else ToolResult(Outcome(given), text)
            fences = re.findall(r"^```(\w+)\n(.*?)^```", pending, re.DOTALL | re.MULTILINE)
            language, code = fences[-1] if fences else ("python", None)
            extra = {"call": ToolCall(language, code, index=len(trajectory.calls)), "result": result}
            text = f"{'' if pending.endswith(chr(10)) else chr(10)}```output\n{text.rstrip()}\n```\n"
        pending = "" if author in ("prompt", "tool") else pending + text
        trajectory.turns.append(Turn(author, tuple(tokenizer.encode(text)), text, **extra))
    return trajectory


def sample_trajectories() -> list[Trajectory]:
    """What every filter, injector and reward must bear: nothing yet, no end, code that fails, infra trouble, a good one."""
    task = Task("sum", "What is 2+2?", "4")
    ask, code = ("prompt", "What is 2+2?<think>"), ("model", "Let me see.\n```python\nprint(2+2)\n```\n")
    broken = ToolResult(Outcome.INFRA_ERROR, "", error="the worker died")
    return [
        make_trajectory([ask], task, stop_reason=None),
        make_trajectory([ask, ("model", "2 and 2, so by hand")], task, stop_reason="length"),
        make_trajectory(
            [ask, code, ("tool", "NameError: x", "program_error"), ("model", "?</think>5")], task
        ),
        make_trajectory(
            [ask, code, ("tool", "", broken)], task, stop_reason="error", error="the worker died"
        ),
        make_trajectory([ask, code, ("tool", "4"), ("model", "So</think>\nIt is \\boxed{4}.")], task),
    ]


# --- contracts --------------------------------------------------------------------------------------------------
def check_tool(
    cls: type[Tool], code: str | None = None, arguments: Mapping[str, Any] | None = None, config: Any = None
) -> ToolResult:
    """Opens the tool, makes the call in each of two sessions, and returns the second one's result."""
    assert cls.language or cls.parameters, f"{cls.__name__} has neither a language nor parameters"

    async def check(tool: Tool) -> ToolResult:
        task = Task("task", "")
        for sample in range(2):
            async with tool.session(task, trajectory_id=f"task/{sample}", seed=sample) as session:
                result = await session.call(ToolCall(cls.name, code, arguments))
            assert isinstance(result, ToolResult), f"call returned {result!r}, not a ToolResult"
            assert isinstance(result.outcome, Outcome) and isinstance(result.text, str)
            assert result.outcome is not Outcome.INFRA_ERROR, "a tool raises what is its own fault"
        return result

    return _with(cls, Tool, config, check)


def check_reward(
    cls: type[RewardFunction], *trajectories: Trajectory, config: Any = None
) -> list[float | None]:
    """Scores the trajectories, or the samples, twice: finite, the same each time, and nothing changed."""

    async def check(reward: RewardFunction) -> list[float | None]:
        values = []
        for trajectory in trajectories or sample_trajectories():
            with _unchanged(trajectory):
                value = await _awaited(reward.score(trajectory))
                again = await _awaited(reward.score(trajectory))
            assert value is None or math.isfinite(value), f"score is {value!r}: a finite number, or None"
            assert value == again, f"two scores of one trajectory differ: {value} and {again}"
            values.append(value)
        return values

    return _with(cls, RewardFunction, config, check)


def check_filter(cls: type[Filter], *trajectories: Trajectory, config: Any = None) -> list[Verdict]:
    """Judges the trajectories, or the samples: a verdict each, alone or in a group, with its span inside the response."""

    async def check(plugin: Filter) -> list[Verdict]:
        verdicts = []
        for trajectory in trajectories or sample_trajectories():
            with _unchanged(trajectory):
                verdict = await _awaited(plugin.judge(trajectory))
                group = await _awaited(plugin.judge_group(Group(trajectory.task, [trajectory])))
            assert isinstance(verdict, Verdict), f"judge returned {verdict!r}, not a Verdict"
            assert len(group) == 1, "judge_group gives one verdict a trajectory"
            if verdict.span is not None:
                start, end = verdict.span
                assert 0 <= start <= end <= len(trajectory.response), (
                    f"span {verdict.span} is outside the response"
                )
            verdicts.append(verdict)
        return verdicts

    return _with(cls, Filter, config, check)


def check_injector(
    cls: type[HintInjector], *trajectories: Trajectory, config: Any = None
) -> list[Hint | None]:
    """Asks for a hint twice on each trajectory, or on the samples: the same one, inside the response."""

    async def check(injector: HintInjector) -> list[Hint | None]:
        hints = []
        for trajectory in trajectories or sample_trajectories():
            with _unchanged(trajectory):
                hint, again = [await _awaited(injector.inject(trajectory)) for _ in range(2)]
            assert hint is None or isinstance(hint, Hint), f"inject returned {hint!r}, not a Hint or None"
            assert hint == again, "inject depends on more than the trajectory"
            if hint is not None and hint.rewind_to is not None:
                assert 0 <= hint.rewind_to <= len(trajectory.response), (
                    f"rewind_to {hint.rewind_to} is outside"
                )
            hints.append(hint)
        return hints

    return _with(cls, HintInjector, config, check)


def check_task_source(cls: type[TaskSource], config: Any = None) -> list[Task]:
    """Reads the tasks twice: some, the same, each with an id of its own."""
    source = cls(cls.Config.model_validate(config or {}))
    tasks = list(source.tasks())
    assert tasks, "there are no tasks"
    assert all(isinstance(t, Task) for t in tasks)
    assert len({t.id for t in tasks}) == len(tasks), "two tasks have one id"
    assert tasks == list(source.tasks()), "the second reading gives other tasks"
    return tasks


def check_engine(cls: type[Engine], model: str, config: Any = None) -> Generation:
    """Loads the model and generates: ids and log-probs of one length, within the limit, the same for one seed."""

    async def check(engine: Engine) -> Generation:
        await engine.load_weights(Weights(model, version=3))
        ids = engine.tokenizer.apply_chat_template([{"role": "user", "content": "What is 2+2?"}])
        sampling = Sampling(max_tokens=8, seed=1)
        one, other = await asyncio.gather(engine.generate(ids, sampling), engine.generate(ids, sampling))
        assert one == other, "one seed gives two texts"
        assert 1 <= len(one.ids) <= 8
        if one.logprobs is not None:
            assert len(one.logprobs) == len(one.ids)
            assert all(logprob <= 0 for logprob in one.logprobs), "a log-prob is above 0"
        assert (one.stop == "eos") == (one.ids[-1] in engine.tokenizer.eos_ids)
        assert one.weights_version == 3, "the generation does not say which weights it is from"
        return one

    return _with(cls, Engine, config, check)


def _with(cls: type[P], base: type[Plugin], config: Any, check: Callable[[P], Awaitable[R]]) -> R:
    """Runs a check on an open plugin, on a loop of its own."""
    from cort_framework.registry import check_requirements
    from cort_framework.registry.discovery import check_class

    check_class(cls, base)
    check_requirements(cls)

    async def run() -> R:
        plugin = cls(cls.Config.model_validate(config or {}))
        with tempfile.TemporaryDirectory() as scratch:
            try:
                await plugin.open(OpenContext(Path(scratch)))
                return await check(plugin)
            finally:
                await plugin.close()

    return asyncio.run(run())


@contextlib.contextmanager
def _unchanged(trajectory: Trajectory) -> Iterator[None]:
    before = trajectory.to_json()
    yield
    assert json.loads(trajectory.to_json()) == json.loads(before), "the plugin changed the trajectory"


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


# --- fixtures ---------------------------------------------------------------------------------------------------
@pytest.fixture
def cort_registry() -> Any:
    """A registry of what is installed; what a test registers in it is gone after the test."""
    from cort_framework.registry import Registry

    return Registry()


@pytest.fixture
def cort_trajectories() -> list[Trajectory]:
    """``sample_trajectories``."""
    return sample_trajectories()
