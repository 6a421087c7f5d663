"""What a rollout does when something breaks, hangs or is cancelled, alone and among others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import pytest
from scripted import TASK, PythonHere, Recording, hints, model, python, roll

from cort_framework import (
    Generation,
    InfrastructureError,
    Outcome,
    RolloutRequest,
    RolloutSettings,
    Sampling,
    Task,
    ToolResult,
    Trajectory,
)
from cort_framework.rollout import RolloutSetup, rollout


class Breaks(PythonHere):
    """Fails in ``how`` at the calls that ``at`` counts, over all sessions."""

    def __init__(self, how: Any, at: set[int]) -> None:
        super().__init__()
        self.how, self.at, self.count = how, at, -1

    async def run(self, code: str, names: dict[str, Any]) -> ToolResult:
        self.count += 1
        if self.count not in self.at:
            return await super().run(code, names)
        if isinstance(self.how, BaseException):
            raise self.how
        if self.how == "hang":
            await asyncio.Event().wait()
        return self.how  # type: ignore[no-any-return]


TROUBLE = [
    InfrastructureError("the worker died"),
    ZeroDivisionError("by the tool"),
    SystemExit(3),
    TimeoutError("its own"),
    ToolResult(Outcome.INFRA_ERROR, "secret trace", error="the socket closed"),
    "no ToolResult",
    "hang",
]
TWO_CALLS = [python("a = 1"), python("print(a + 1)"), "</think>2"]
QUICK = {"call_timeout_s": 0.2}


@pytest.mark.parametrize("how", TROUBLE, ids=str)
def test_a_call_that_the_machinery_failed_is_tried_again_in_a_fresh_session(how: Any) -> None:
    tool = Breaks(how, at={1})
    (trajectory,) = roll(TWO_CALLS, tool, **QUICK)
    assert trajectory.finished and trajectory.error is None
    assert [c.text for c in trajectory.calls] == ["```output\n\n```\n", "```output\n2\n```\n"]
    assert tool.log == ["open", "a = 1", "print(a + 1)", "close", "open", "a = 1", "print(a + 1)", "close"]


@pytest.mark.parametrize("how", TROUBLE, ids=str)
def test_a_call_that_failed_twice_is_recorded_and_never_shown_to_the_model(how: Any) -> None:
    tool = Breaks(how, at={1, 3})
    (trajectory,) = roll(TWO_CALLS, tool, **QUICK)
    assert trajectory.stop_reason == "error" and not trajectory.usable
    assert (
        trajectory.error is not None
        and "tool 'python' (from this script), call 1, failed twice" in trajectory.error
    )
    assert [t.author for t in trajectory.turns] == ["prompt", "model", "tool", "model"]
    assert "secret" not in trajectory.response
    assert tool.log.count("open") == tool.log.count("close") == 2


def test_a_session_that_does_not_open_is_tried_again() -> None:
    class Late(PythonHere):
        def session(self, task: Task, *, trajectory_id: str, seed: int) -> Any:
            self.log.append("try")
            if self.log == ["try"]:
                raise OSError("no worker")
            return super().session(task, trajectory_id=trajectory_id, seed=seed)

    tool = Late()
    (trajectory,) = roll([python("print(1)"), "</think>1"], tool)
    assert trajectory.finished and tool.log == ["try", "try", "open", "print(1)", "close"]


def test_a_session_that_fails_to_close_spoils_nothing() -> None:
    class Stuck(PythonHere):
        @contextlib.asynccontextmanager
        async def session(self, task: Task, *, trajectory_id: str, seed: int) -> Any:
            async with super().session(task, trajectory_id=trajectory_id, seed=seed) as session:
                yield session
            raise OSError("it is gone")

    assert roll([python("print(1)"), "</think>1"], Stuck())[0].finished


def test_a_replay_that_ends_differently_drops_the_sample() -> None:
    class Counts(Breaks):
        async def run(self, code: str, names: dict[str, Any]) -> ToolResult:
            result = await super().run(code, names)
            return result if "a" in names else ToolResult(Outcome.OK, f"{self.count}")

    (trajectory,) = roll([python("1"), python("2"), "</think>"], Counts(OSError("gone"), at={1}))
    assert trajectory.error == (
        "tool 'python' (from this script), call 0, ended differently when it was replayed"
    )


def test_a_hanging_engine_is_named() -> None:
    class Hangs(Recording):
        async def generate(self, ids: Sequence[int], sampling: Sampling) -> Generation:
            await asyncio.Event().wait()
            raise AssertionError

    (trajectory,) = roll(Hangs(""), turn_timeout_s=0.1, call_timeout_s=0.1)
    assert trajectory.stop_reason == "deadline" and not trajectory.usable
    assert trajectory.error == "engine 'scripted' (from this script) did not end within 0.1 s"


def test_the_trajectorys_own_deadline_names_what_it_was_at() -> None:
    limits = {"call_timeout_s": 0.2, "turn_timeout_s": 0.2, "trajectory_timeout_s": 0.2}
    (trajectory,) = roll(TWO_CALLS, Breaks("hang", at={1, 3}), **limits)
    assert trajectory.stop_reason == "deadline" and trajectory.error is not None
    assert "call 1" in trajectory.error and "python" in trajectory.error
    (trajectory,) = roll("x", injectors=[hints(_hang, "slow")], **limits)
    assert trajectory.error == (
        "trajectory sum/0, at hint injector 'slow' (from this script), did not end within 0.2 s"
    )
    (trajectory,) = roll("x", injectors=[hints(_hang, "slow")], **(limits | {"trajectory_timeout_s": 60}))
    assert trajectory.error == "hint injector 'slow' (from this script) did not end within 0.2 s"


async def _hang(trajectory: Trajectory) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("error", [ValueError("no weights"), SystemExit(1)], ids=str)
def test_an_engine_that_raises_costs_the_trajectory_and_is_named(error: BaseException) -> None:
    class Raises(Recording):
        async def generate(self, ids: Sequence[int], sampling: Sampling) -> Generation:
            raise error

    (trajectory,) = roll(Raises(""))
    assert trajectory.error == f"engine 'scripted' (from this script) raised {type(error).__name__}: {error}"


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (Generation((), (), "length"), "returned 0 tokens where 1 to 1024 were asked for"),
        (Generation((65,) * 2000, (-0.1,) * 2000, "length"), "returned 2000 tokens"),
        (Generation((65, 66), (-0.1,), "length"), "2 ids but 1 log-probs"),
        (None, "it has to give a Generation, not None"),
        (Generation((65, "x"), None, "length"), "has 'x' as ids.1: Input should be a valid integer"),  # type: ignore[arg-type]
        (Generation((65,), (float("nan"),), "length"), "log-probs that are no finite numbers"),
    ],
)
def test_an_engines_nonsense_is_an_error_of_the_engine(answer: Any, complaint: str) -> None:
    class Answers(Recording):
        async def generate(self, ids: Sequence[int], sampling: Sampling) -> Generation:
            return answer  # type: ignore[no-any-return]

    (trajectory,) = roll(Answers(""))
    assert trajectory.error is not None and "engine 'scripted' (from this script)" in trajectory.error
    assert complaint in trajectory.error


def test_a_failing_tokenizer_is_an_error_of_the_engine() -> None:
    engine = Recording("x")
    engine.tokenizer.apply_chat_template = None  # type: ignore[assignment, method-assign]
    (trajectory,) = roll(engine)
    assert trajectory.error is not None and "engine 'scripted' (from this script)" in trajectory.error


# --- many at once ----------------------------------------------------------------------------------------------
def test_no_trajectory_waits_for_another() -> None:
    """The first call ends only when all other trajectories are done: in lock-step, never."""
    others = asyncio.Event()

    class Waits(PythonHere):
        async def run(self, code: str, names: dict[str, Any]) -> ToolResult:
            if "wait" in code:
                await others.wait()
            return ToolResult(Outcome.OK, "1")

    def script(prompt: str, response: str) -> str:
        code = python("wait" if "slow" in prompt else "1")
        return "</think>1" if response.count("output") == 3 else code

    async def run() -> list[Trajectory]:
        setup = RolloutSetup(model(script), {"python": Waits()}, RolloutSettings(), "{problem}")
        slow = asyncio.create_task(rollout(RolloutRequest(Task("slow", "slow")), setup))
        quick = await asyncio.gather(*(rollout(RolloutRequest(TASK, n), setup) for n in range(20)))
        assert not slow.done()
        others.set()
        return [line[-1] for line in [*quick, await slow]]

    assert all(t.finished and len(t.calls) == 3 for t in asyncio.run(run()))


def test_a_trajectory_that_hangs_does_not_hold_up_the_others() -> None:
    class Hangs(PythonHere):
        async def run(self, code: str, names: dict[str, Any]) -> ToolResult:
            if "hang" in code:
                await asyncio.Event().wait()
            return ToolResult(Outcome.OK, "1")

    def script(prompt: str, response: str) -> str:
        return "</think>1" if "output" in response else python("hang" if "bad" in prompt else "1")

    async def run() -> list[Trajectory]:
        settings = RolloutSettings(call_timeout_s=0.2)
        setup = RolloutSetup(model(script), {"python": Hangs()}, settings, "{problem}")
        tasks = [Task("bad", "bad"), *(Task(f"good{n}", "") for n in range(5))]
        return [
            line[-1] for line in await asyncio.gather(*(rollout(RolloutRequest(t), setup) for t in tasks))
        ]

    bad, *good = asyncio.run(run())
    assert all(t.finished for t in good)
    assert bad.error is not None and "call 0, did not end within 0.2 s" in bad.error


def test_a_rollout_that_is_cancelled_closes_its_sessions() -> None:
    tool = Breaks("hang", at={1})

    async def run() -> None:
        setup = RolloutSetup(model(TWO_CALLS), {"python": tool}, RolloutSettings(), "{problem}")
        task = asyncio.create_task(rollout(RolloutRequest(TASK), setup))
        while len(tool.log) < 3:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert tool.log == ["open", "a = 1", "print(a + 1)", "close"]
