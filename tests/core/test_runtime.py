"""The loop that owns everything: calls, streams, and an end that leaves nothing."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from scripted import PythonHere, python

from cort_framework import (
    OpenContext,
    PluginConfig,
    RewardFunction,
    RolloutRequest,
    RolloutSettings,
    Task,
    Tool,
    Trajectory,
    Weights,
)
from cort_framework.errors import DeadlineExceeded, PluginFault
from cort_framework.executor import LocalExecutor, RolloutJob
from cort_framework.registry import Resolved
from cort_framework.runtime import Runtime
from cort_framework.testing import says, scripted_engine


async def forever() -> None:
    await asyncio.Event().wait()


# --- calls and streams ------------------------------------------------------------------------------------------
def test_a_coroutine_runs_on_the_one_thread_and_its_value_or_exception_comes_back() -> None:
    async def where() -> str:
        return threading.current_thread().name

    async def fail() -> None:
        raise KeyError("x")

    with Runtime() as runtime:
        assert runtime.call(where()) == runtime.call(where()) == "cort-runtime"
        with pytest.raises(KeyError):
            runtime.call(fail())


def test_a_call_that_takes_too_long_is_cancelled_and_named() -> None:
    cancelled = threading.Event()

    async def slow() -> None:
        try:
            await forever()
        finally:
            cancelled.set()

    with Runtime() as runtime:
        with pytest.raises(DeadlineExceeded, match=r"the test did not end within 0\.05 s"):
            runtime.call(slow(), 0.05, "the test")
        assert cancelled.wait(10)


def test_a_timeout_of_the_work_itself_is_not_taken_for_the_callers() -> None:
    async def slow() -> None:
        raise TimeoutError("its own")

    with Runtime() as runtime, pytest.raises(TimeoutError, match="its own"):
        runtime.call(slow(), 60)


def test_a_call_from_the_loop_itself_is_refused_rather_than_waited_for() -> None:
    with Runtime() as runtime:

        async def nested() -> None:
            runtime.call(asyncio.sleep(0))

        with pytest.raises(RuntimeError, match="await the coroutine instead"):
            runtime.call(nested(), 10)


class Numbers:
    """A stream that remembers that it was ended."""

    def __init__(self, count: int, then: BaseException | None = None, hang: bool = False) -> None:
        self.count, self.then, self.hang = count, then, hang
        self.ended = threading.Event()

    async def __call__(self) -> AsyncIterator[int]:
        try:
            for n in range(self.count):
                await asyncio.sleep(0)
                yield n
            if self.then:
                raise self.then
            if self.hang:
                await forever()
        finally:
            await asyncio.sleep(0)  # an ending that takes the loop
            self.ended.set()


def test_a_stream_gives_all_its_items_and_then_its_exception() -> None:
    with Runtime() as runtime:
        assert list(runtime.stream(Numbers(3)(), 10, "it")) == [0, 1, 2]
        seen = []
        with pytest.raises(ZeroDivisionError):
            for n in runtime.stream(Numbers(2, ZeroDivisionError())(), 10, "it"):
                seen.append(n)
        assert seen == [0, 1]


def test_a_stream_that_is_closed_or_left_by_an_exception_is_cancelled_before_the_caller_goes_on() -> None:
    with Runtime() as runtime:
        numbers = Numbers(1, hang=True)
        stream = runtime.stream(numbers(), 60, "it")
        assert next(iter(stream)) == 0
        stream.close()  # type: ignore[attr-defined]
        assert numbers.ended.is_set()

        numbers = Numbers(10, hang=True)
        with pytest.raises(KeyError):
            for _ in (stream := runtime.stream(numbers(), 60, "it")):
                raise KeyError
        stream.close()  # type: ignore[attr-defined]
        assert numbers.ended.is_set()


def test_a_stream_that_another_thread_reads_can_be_interrupted() -> None:
    numbers, seen, raised = Numbers(2, hang=True), [], []
    two = threading.Event()

    def read() -> None:
        try:
            for n in runtime.stream(numbers(), 60, "it"):
                seen.append(n)
                if len(seen) == 2:
                    two.set()
        except asyncio.CancelledError as error:
            raised.append(error)

    with Runtime() as runtime:
        reader = threading.Thread(target=read)
        reader.start()
        assert two.wait(10)
        runtime.interrupt()
        assert numbers.ended.is_set()
        reader.join(10)
        assert not reader.is_alive()
        assert len(raised) == 1
        runtime.interrupt()  # nothing is under way
        assert list(runtime.stream(Numbers(3)(), 10, "it")) == [0, 1, 2]


def test_a_stream_has_one_deadline_for_all_its_items() -> None:
    numbers = Numbers(2, hang=True)
    with Runtime() as runtime:
        stream = runtime.stream(numbers(), 0.1, "the batch")
        assert [next(stream), next(stream)] == [0, 1]
        with pytest.raises(DeadlineExceeded, match=r"the batch did not end within 0\.1 s"):
            next(stream)
        assert numbers.ended.is_set()


# --- plugins ----------------------------------------------------------------------------------------------------
class Marked(RewardFunction):
    name = "marked"
    opened: int = 0
    closed: int = 0

    class Config(PluginConfig):
        mark: str = ""

    async def open(self, context: OpenContext) -> None:
        self.opened += 1
        (context.scratch / "mine").write_text("x")

    async def close(self) -> None:
        self.closed += 1

    async def score(self, trajectory: Trajectory) -> float | None:
        return 1.0


def resolved(cls: Any, **config: Any) -> Resolved:
    return Resolved("plugin", cls.name, cls, cls.Config(**config), "cort-test", "1")


def test_a_plugin_is_opened_once_for_each_config_and_closed_at_the_end() -> None:
    with Runtime() as runtime:
        one = runtime.plugin(resolved(Marked), Marked)
        assert runtime.plugin(resolved(Marked), Marked) is one
        other = runtime.plugin(resolved(Marked, mark="x"), Marked)
        assert other is not one and (one.opened, one.closed) == (1, 0)
    assert (one.opened, one.closed, other.closed) == (1, 1, 1)


def test_nothing_is_left_when_plugins_fail_to_open_or_close(caplog: pytest.LogCaptureFixture) -> None:
    class BadOpen(Marked):
        async def open(self, context: OpenContext) -> None:
            raise OSError("no socket")

    class BadClose(Marked):
        async def close(self) -> None:
            raise OSError("stuck")

    class SyncClose(Marked):
        def close(self) -> Any:
            raise OSError("worse")

    before = set(threading.enumerate())
    with caplog.at_level(logging.WARNING), Runtime() as runtime:
        scratch = runtime.scratch
        good = runtime.plugin(resolved(Marked), Marked)
        with pytest.raises(
            PluginFault, match=r"opening 'marked' \(from cort-test\) raised OSError: no socket"
        ):
            runtime.plugin(resolved(BadOpen), BadOpen)
        runtime.plugin(resolved(BadClose), BadClose)
        runtime.plugin(resolved(SyncClose), SyncClose)
        left: list[Any] = []

        async def leave() -> None:
            left.append(asyncio.ensure_future(forever()))

        runtime.call(leave())
    assert good.closed == 1 and not scratch.exists()
    assert set(threading.enumerate()) <= before
    assert left[0].cancelled() and runtime._loop.is_closed()
    assert "from cort-test) failed: stuck" in caplog.text and "failed: worse" in caplog.text


def test_the_runtime_ends_though_work_is_under_way_and_an_exception_is_on_its_way_out() -> None:
    with pytest.raises(KeyboardInterrupt), Runtime() as runtime:
        asyncio.run_coroutine_threadsafe(forever(), runtime._loop)
        raise KeyboardInterrupt
    assert runtime._loop.is_closed() and not runtime.scratch.exists()


class Loads(scripted_engine(lambda prompt, response: "</think>4")):  # type: ignore[misc]
    name = "loads"
    loaded: list[Weights]

    async def load_weights(self, weights: Weights) -> None:
        if weights.path == "bad":
            raise ValueError("no such weights")
        self.loaded = [*getattr(self, "loaded", []), weights]


def test_an_engine_loads_only_weights_that_it_does_not_have() -> None:
    module = object()
    with Runtime() as runtime:
        for weights in (Weights("a"), Weights("a"), Weights(module=module, version=1)):
            engine = runtime.engine(resolved(Loads), weights)
        assert engine.loaded == [Weights("a"), Weights(module=module, version=1)]
        with pytest.raises(
            PluginFault, match=r"engine 'loads' \(from cort-test\) raised ValueError: no such"
        ):
            runtime.engine(resolved(Loads), Weights("bad"))
        runtime.engine(resolved(Loads), Weights(module=module, version=1))
        assert len(engine.loaded) == 3


# --- a batch ----------------------------------------------------------------------------------------------------
class Tidy(PythonHere):
    name = "tidy"
    language = "python"
    sessions = 0

    def session(self, task: Task, *, trajectory_id: str, seed: int) -> Any:
        type(self).sessions += 1
        return super().session(task, trajectory_id=trajectory_id, seed=seed)


def job(count: int, engine: Any = None, tool: type[Tool] = Tidy, **settings: Any) -> RolloutJob:
    script = says(python("print(1)"), "</think>1")
    return RolloutJob(
        [RolloutRequest(Task(f"t{n}", ""), 0) for n in range(count)],
        resolved(engine or scripted_engine(script)),
        Weights("a"),
        RolloutSettings(**settings),
        "{problem}",
        0,
        {"mine": resolved(tool)},
        rewards={"good": (resolved(Marked), 0.5)},
    )


def test_a_batch_is_rolled_out_and_scored_with_a_bound_on_how_many_at_once() -> None:
    class Counts(Tidy):
        now = most = 0

        async def run(self, code: str, names: dict[str, Any]) -> Any:
            Counts.now += 1
            Counts.most = max(Counts.most, Counts.now)
            await asyncio.sleep(0.002)
            Counts.now -= 1
            return await super().run(code, names)

    with Runtime() as runtime:
        lines = list(LocalExecutor().map(job(20, tool=Counts, concurrency=4), runtime))
    assert sorted(line[-1].id for line in lines) == sorted(f"t{n}/0" for n in range(20))
    assert all(line[-1].finished and line[-1].reward == 0.5 and line[-1].calls for line in lines)
    assert Counts.most == 4


def test_a_batch_that_is_left_early_closes_its_sessions() -> None:
    class Waits(Tidy):
        made: list[Any] = []
        count = 0

        def __init__(self, config: Any = None) -> None:
            super().__init__(config)
            self.made.append(self)

        async def run(self, code: str, names: dict[str, Any]) -> Any:
            Waits.count += 1
            if Waits.count > 1:
                await forever()
            return await super().run(code, names)

    with Runtime() as runtime:
        stream = LocalExecutor().map(job(5, tool=Waits), runtime)
        assert len(next(stream)) == 1
        while Waits.count < 5:
            time.sleep(0.001)
        stream.close()  # type: ignore[attr-defined]
        log = Waits.made[0].log
        assert log.count("open") == log.count("close") == 5


def test_a_batch_past_its_deadline_ends_what_is_left_and_says_where_it_was() -> None:
    class Hangs(scripted_engine(lambda p, r: "")):  # type: ignore[misc]
        name = "hangs"

        async def generate(self, ids: Any, sampling: Any) -> Any:
            await forever()

    limits = {"trajectory_timeout_s": 0.3, "turn_timeout_s": 0.2, "call_timeout_s": 0.2}
    with Runtime() as runtime:
        lines = list(
            LocalExecutor().map(job(3, Hangs, **limits, batch_timeout_s=0.3, concurrency=1), runtime)
        )
    first, *others = [line[-1] for line in lines]
    assert first.error == "engine 'hangs' (from cort-test) did not end within 0.2 s"
    assert [t.error for t in others] == [
        f"the batch, with trajectory t{n}/0, at engine 'hangs' (from cort-test), did not end within 0.3 s"
        for n in (1, 2)
    ]


def test_an_empty_batch_is_empty() -> None:
    with Runtime() as runtime:
        assert list(LocalExecutor().map(job(0), runtime)) == []


def test_a_hanging_plain_plugin_does_not_keep_the_process_alive(tmp_path: Path) -> None:
    import subprocess
    import sys

    script = tmp_path / "hang.py"
    script.write_text(
        "import time, cort_framework as cort\n"
        "from cort_framework.runtime import Runtime\n"
        "from cort_framework.scoring import judge\n"
        "from cort_framework.types import Group, Task, Trajectory\n"
        "class Hangs(cort.Filter):\n"
        "    name = 'hangs'\n"
        "    def judge(self, trajectory): time.sleep(1000)\n"
        "group = Group(Task('t', ''), [Trajectory('t/0', Task('t', ''))])\n"
        "with Runtime() as runtime: runtime.call(judge([group], {'hangs': Hangs()}, timeout=0.1))\n"
        "print(group.trajectories[0].verdicts[0].reason)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "filter 'hangs' (from this script) did not end within 0.1 s\n", done.stderr
