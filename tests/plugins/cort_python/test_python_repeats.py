"""Runs that repeat: whoever a kernel was started for, and whatever broke on the way, the text is the same."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from python_sessions import TASK, opened

from cort_framework import RolloutRequest, RolloutSettings, Task, ToolCall, ToolResult, Trajectory
from cort_framework.rollout import RolloutSetup, rollout
from cort_framework.testing import says, scripted_engine
from cort_python.bench.faith import repetition
from cort_python.processes import ForkBackend
from cort_python.tool import PythonSession, PythonTool


def python(code: str) -> str:
    return f"```python\n{code}\n```\n"


CELLS = (
    "import random\nx = random.random()\nprint(x)\nopen('log', 'a').write('once ')",
    "print(open('log').read())\nobject(), x, {'a', 'b', 'c'}",
    "import numpy\nnumpy.random.rand(), numpy.random.default_rng().random(), random.random()",
    "y = undefined",
)


async def roll(tool: PythonTool, count: int = 3) -> list[Trajectory]:
    engine = scripted_engine(says(*map(python, CELLS), "</think>done"))()
    setup = RolloutSetup(engine, {"python": tool}, RolloutSettings(), "{problem}", seed=3)
    lines = await asyncio.gather(*(rollout(RolloutRequest(TASK, n), setup) for n in range(count)))
    return [line[-1] for line in lines]


def tool_turns(trajectories: Sequence[Trajectory]) -> list[list[str]]:
    return [[turn.text for turn in trajectory.turns if turn.author == "tool"] for trajectory in trajectories]


def rolled(scratch: Path, kind: type[PythonTool] = PythonTool, **config: Any) -> list[list[str]]:
    async def run() -> list[Trajectory]:
        tool = kind(kind.Config(**config))
        async with opened(scratch, tool) as tool:
            return await roll(tool)

    trajectories = asyncio.run(run())
    assert [t.error for t in trajectories] == [None] * 3
    return tool_turns(trajectories)


def test_two_runs_with_one_seed_have_equal_tool_turns_however_the_pool_is_set(tmp_path: Path) -> None:
    first = rolled(tmp_path, spares=0, max_kernels=1)
    again = rolled(tmp_path, spares=3, preload=["numpy"])
    assert first == again
    assert len({turns[0] for turns in first}) == 3  # and each trajectory has numbers of its own


@pytest.mark.slow
def test_outputs_are_equal_from_fresh_kernels_and_from_spares() -> None:
    async def rows() -> list[bool | None]:
        return [row.met async for row in repetition()]

    assert asyncio.run(rows()) == [True]


class Fragile(PythonTool):
    """Each session's template is killed once, and its kernel with it, just before its third call."""

    @asynccontextmanager
    async def session(self, task: Task, *, trajectory_id: str, seed: int) -> AsyncIterator[Any]:
        tool = self

        class Session(PythonSession):
            async def call(self, call: ToolCall) -> ToolResult:
                if call.index == 2 and trajectory_id not in broken:
                    broken.add(trajectory_id)
                    backend = tool.pool.backend
                    assert isinstance(backend, ForkBackend)
                    os.kill(backend.template.warm.result(), signal.SIGKILL)
                    assert self.kernel is not None
                    # a quick cell could be done before its process ends
                    await asyncio.wait([self.kernel.exited])
                return await super().call(call)

        broken = self.__dict__.setdefault("broken", set())
        async with super().session(task, trajectory_id=trajectory_id, seed=seed) as session:
            session.__class__ = Session
            yield session


def test_a_failure_of_the_machinery_is_made_good_by_a_replay_and_leaves_no_trace_in_the_text(
    tmp_path: Path,
) -> None:
    async def run() -> list[Trajectory]:
        async with opened(tmp_path, Fragile(Fragile.Config(preload=["colorsys"]))) as tool:
            return await roll(tool, 1)

    trajectories = asyncio.run(run())
    assert [t.error for t in trajectories] == [None]
    assert tool_turns(trajectories) == [rolled(tmp_path)[0]]


def test_where_a_replay_shows_something_else_the_trajectory_is_marked_and_the_model_sees_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "test_python_repeats.CELLS", ("import time\nprint(time.time_ns())", "1", "print('after')", "2")
    )

    async def run() -> list[Trajectory]:
        async with opened(tmp_path, Fragile(Fragile.Config(preload=["colorsys"]))) as tool:
            return await roll(tool, 1)

    (trajectory,) = asyncio.run(run())
    assert trajectory.stop_reason == "error" and trajectory.error is not None
    assert "ended differently when it was replayed" in trajectory.error
    assert len(trajectory.calls) == 2 and "template" not in trajectory.response
