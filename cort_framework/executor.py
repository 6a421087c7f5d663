"""A batch of rollouts as data, and the executor that runs it in this process."""

from __future__ import annotations

import asyncio
import contextlib
import reprlib
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field

from cort_framework.guards.calls import blame
from cort_framework.interfaces import Executor, HintInjector, RewardFunction, RolloutRequest, Tool
from cort_framework.recipe import RolloutSettings
from cort_framework.registry import Resolved
from cort_framework.rollout import RolloutSetup, rollout
from cort_framework.rollout.cassette import Cassette, Taped
from cort_framework.runtime import Runtime
from cort_framework.scoring import score
from cort_framework.types import Trajectory, Weights

WIND_UP_S = 600
"""Beyond a batch's deadline, for its sessions to close and the last rewards to be given."""


@dataclass(frozen=True)
class RolloutJob:
    """All that it takes to make trajectories anywhere: classes and configs, no open plugin."""

    requests: Sequence[RolloutRequest]
    engine: Resolved
    weights: Weights
    settings: RolloutSettings
    template: str
    seed: int
    tools: Mapping[str, Resolved] = field(default_factory=dict)
    injectors: Mapping[str, Resolved] = field(default_factory=dict)
    rewards: Mapping[str, tuple[Resolved, float]] = field(default_factory=dict)
    allow_rewind: bool = True


class Prepared:
    """A job's plugins, open on a runtime. For every executor: what one trajectory takes, in the process that makes it."""

    def __init__(self, job: RolloutJob, runtime: Runtime) -> None:
        """Opens what is not open yet and gives the engine the job's weights."""
        self.setup = RolloutSetup(
            runtime.engine(job.engine, job.weights),
            open_tools(job.tools.values(), job.settings, runtime),
            job.settings,
            job.template,
            job.seed,
            [runtime.plugin(injector, HintInjector) for injector in job.injectors.values()],
            job.allow_rewind,
            time.monotonic(),
        )
        self.rewards = {
            key: (runtime.plugin(r, RewardFunction), weight) for key, (r, weight) in job.rewards.items()
        }

    async def line(self, request: RolloutRequest) -> list[Trajectory]:
        """One request's line of descent, scored. On the runtime's loop."""
        line = await rollout(request, self.setup)
        await score(line[-1], self.rewards)
        return line


def open_tools(tools: Iterable[Resolved], settings: RolloutSettings, runtime: Runtime) -> dict[str, Tool]:
    """By the tools' own names, open; where the settings name a cassette, behind it."""
    if settings.cassette is None:
        return {tool.cls.name: runtime.plugin(tool, Tool) for tool in tools}
    config = Cassette.Config(path=settings.cassette, replay=settings.replays)
    resolved = Resolved("cassette", settings.cassette, Cassette, config, "cort-framework", "")
    cassette, taped = runtime.plugin(resolved, Cassette), {}
    for tool in tools:
        table = tool.to_table()
        identity = [table["use"], table["config"], runtime.context.preload]
        own = tool.build() if settings.replays else runtime.plugin(tool, Tool)
        taped[tool.cls.name] = Taped(own, identity, cassette)
    return dict(taped)


class LocalExecutor(Executor):
    """Rolls out in this process: one coroutine a trajectory, at most ``concurrency`` at once, none waits for another."""

    name = "local"

    def map(self, job: RolloutJob, runtime: Runtime) -> Iterator[list[Trajectory]]:
        what = f"the batch of {len(job.requests)} rollouts"
        lines = roll_out(job.requests, Prepared(job, runtime).line, job.settings.concurrency)
        # each trajectory ends at the batch's deadline by itself; this is for a loop that is held up
        return runtime.stream(lines, job.settings.batch_timeout_s + WIND_UP_S, what)


def lines_of(
    executor: Executor, job: RolloutJob, runtime: Runtime
) -> Generator[list[Trajectory], None, None]:
    """What an executor's ``map`` gives, with its faults attributed. Once this is closed, nothing is under way any more."""
    with blame("executor", executor):
        lines = iter(executor.map(job, runtime))
    try:
        while True:
            with blame("executor", executor):
                line = next(lines, None)
                if line is not None and not (line and isinstance(line[-1], Trajectory)):
                    raise TypeError(f"it has to give lines of descent, not {reprlib.repr(line)}")
            if line is None:
                return
            yield line
    finally:
        if isinstance(lines, Generator):
            lines.close()


async def roll_out(
    requests: Sequence[RolloutRequest],
    line: Callable[[RolloutRequest], Awaitable[list[Trajectory]]],
    concurrency: int,
) -> AsyncIterator[list[Trajectory]]:
    """The lines of the requests as they finish, at most ``concurrency`` under way at once."""
    waiting = iter(requests)
    done: asyncio.Queue[list[Trajectory] | BaseException] = asyncio.Queue()

    async def work() -> None:
        for request in waiting:  # shared: each worker takes the next request in order
            try:
                done.put_nowait(await line(request))
            except BaseException as error:
                done.put_nowait(error)
                raise

    async with contextlib.AsyncExitStack() as stack:
        workers = [asyncio.create_task(work()) for _ in range(min(concurrency, len(requests)))]

        async def stop() -> None:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

        stack.push_async_callback(stop)
        for _ in requests:
            finished = await done.get()
            if isinstance(finished, BaseException):
                raise finished
            yield finished
