"""What the framework itself takes: everything in a rollout that is neither the engine nor a tool."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from statistics import mean

from cort_framework.cli.bench.clock import run
from cort_framework.cli.bench.engines import Pace, PacedEngine
from cort_framework.cli.bench.scripts import (
    SEED,
    TEMPLATE,
    BenchTokenizer,
    Case,
    Waiting,
    Waits,
    write_scripts,
)
from cort_framework.cli.bench.table import Row
from cort_framework.cli.bench.ways import PATIENCE, PLENTY
from cort_framework.errors import CortError
from cort_framework.executor import roll_out
from cort_framework.interfaces import HintInjector, RolloutRequest
from cort_framework.rollout import RolloutSetup, rollout
from cort_framework.types import Sampling, Trajectory

AT_ONCE, TOKENS_A_SECOND = 256, 2000
LIMIT = 0.05


class Watching(HintInjector):
    """Looks and never hints: what comes of it is that the engine yields every ``check_every`` tokens."""

    name = "watching"

    async def inject(self, trajectory: Trajectory) -> None:
        return None


def share(quick: bool) -> Iterator[Row]:
    """How much longer rollouts take because of the framework, and how much of a processor it keeps busy meanwhile."""
    count = AT_ONCE if quick else 2 * AT_ONCE
    for chunk, way in ((PLENTY, "whole turns"), (PATIENCE.check_every, "chunks of 64, with an injector")):
        cost = measure(chunk, count)
        title = f"{AT_ONCE} at once, {TOKENS_A_SECOND:,} tokens a second each, {way}"
        longer = 1 - cost.bare_seconds / cost.seconds
        yield Row(
            f"share of a rollout's time: {title}",
            "engine and tools alone",
            f"≤ {LIMIT:g}×",
            f"{cost.seconds:.2f} s",
            f"{cost.bare_seconds:.2f} s",
            longer,
            longer <= LIMIT,
            note="mean of the trajectories; the ratio is what of it is the framework's",
        )
        busy, whole = cost.busy / cost.whole, chunk == PLENTY
        most = TOKENS_A_SECOND * LIMIT / busy  # in chunks it goes by their number, whatever is in them
        yield Row(
            f"processor time by wall time: {title}",
            "one processor",
            f"≤ {LIMIT:g}×" if whole else "",
            f"{cost.busy:.2f} s",
            f"{cost.whole:.2f} s",
            busy,
            busy <= LIMIT if whole else None,
            note=f"{1e6 * cost.busy / cost.tokens:.2f} µs a token; {LIMIT:.0%} at {most:,.0f} tokens a second each",
        )


@dataclass(frozen=True)
class Cost:
    """What rollouts of the scripts cost."""

    busy: float
    """Seconds of the processor that the framework took."""
    whole: float
    """Seconds from the first trajectory's beginning to the last one's end."""
    seconds: float
    """Seconds of a trajectory, in the mean."""
    bare_seconds: float
    """The same, where engine and tools are driven without the framework."""
    tokens: int


def measure(chunk: int, count: int) -> Cost:
    """What engine, tools and loop take by themselves, for the same chunks, is measured apart and taken off."""
    tokenizer = BenchTokenizer()
    case = Case(count, 3, Waits("100 ms", 0.1), median=3000, budget=16000)
    scripts = write_scripts(case, tokenizer)

    async def framework(engine: PacedEngine) -> list[float]:
        tool = Waiting(scripts)
        injectors = [Watching()] if chunk < PLENTY else []
        setup = RolloutSetup(engine, {tool.name: tool}, PATIENCE, TEMPLATE, SEED, injectors)

        async def line(request: RolloutRequest) -> list[Trajectory]:
            began = clock()
            made = await rollout(request, setup)
            taken.append(clock() - began)
            if made[-1].error:
                raise CortError(f"a rollout of the bench failed: {made[-1].error}")
            return made

        clock, taken = asyncio.get_running_loop().time, list[float]()
        requests = [RolloutRequest(script.task) for script in scripts]
        async for _ in roll_out(requests, line, AT_ONCE):
            pass
        return taken

    async def bare(engine: PacedEngine) -> list[float]:
        clock, taken = asyncio.get_running_loop().time, list[float]()
        waiting = iter(scripts)

        async def work() -> None:
            for script in waiting:
                began = clock()
                for (begin, end), wait in zip(script.stretches, [*script.waits, 0.0], strict=True):
                    while begin < end:
                        sampling = Sampling(max_tokens=min(chunk, end - begin), seed=script.seed)
                        begin += len((await engine.generate(script.ids[:begin], sampling)).ids)
                    await asyncio.sleep(wait)
                taken.append(clock() - began)

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        return taken

    async def timed(work: Callable[[PacedEngine], Awaitable[list[float]]]) -> tuple[float, float, float]:
        engine = PacedEngine(tokenizer, Pace(AT_ONCE, 1 / TOKENS_A_SECOND, 0.0))
        engine.follow(scripts)
        clock, computed = asyncio.get_running_loop().time, time.process_time()
        began = clock()
        taken = await work(engine)
        return time.process_time() - computed, clock() - began, mean(taken)

    bare_busy, _, bare_seconds = run(timed(bare), wall=False)
    busy, whole, seconds = run(timed(framework), wall=False)
    tokens = sum(end - begin for script in scripts for begin, end in script.stretches)
    return Cost(busy - bare_busy, whole, seconds, bare_seconds, tokens)
