"""What the framework itself takes: everything in a rollout that is neither the engine nor a tool."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator

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
from cort_framework.cli.bench.ways import PATIENCE
from cort_framework.errors import CortError
from cort_framework.executor import roll_out
from cort_framework.interfaces import HintInjector, RolloutRequest
from cort_framework.rollout import RolloutSetup, rollout
from cort_framework.types import Trajectory

AT_ONCE, TOKENS_A_SECOND = 256, 2000
LIMIT = 0.05


class Watching(HintInjector):
    """Looks and never hints: what comes of it is that the engine yields every ``check_every`` tokens."""

    name = "watching"

    async def inject(self, trajectory: Trajectory) -> None:
        return None


def share(quick: bool) -> Iterator[Row]:
    """Processor time of the framework by the time that the rollouts take."""
    for injectors, title in (((), "in whole turns"), ((Watching(),), "in chunks of 64, with an injector")):
        busy, seconds, tokens = take(injectors, AT_ONCE if quick else 2 * AT_ONCE)
        portion = busy / seconds
        yield Row(
            f"framework's share, {AT_ONCE} at once at {TOKENS_A_SECOND:,} tokens a second, {title}",
            "the rollouts' time",
            f"≤ {LIMIT:.0%}",
            f"{busy:.2f} s",
            f"{seconds:.2f} s",
            portion,
            portion <= LIMIT,
            note=f"{1e6 * busy / tokens:.2f} µs a token",
        )


def take(injectors: tuple[HintInjector, ...], count: int) -> tuple[float, float, int]:
    """Seconds of the processor, seconds that the rollouts take, and the tokens that the model says."""
    tokenizer = BenchTokenizer()
    case = Case(count, 3, Waits("100 ms", 0.1), median=3000, budget=16000)
    scripts = write_scripts(case, tokenizer)
    engine = PacedEngine(tokenizer, Pace(AT_ONCE, 1 / TOKENS_A_SECOND, 0.0))
    engine.follow(scripts)
    tool = Waiting(scripts)
    setup = RolloutSetup(engine, {tool.name: tool}, PATIENCE, TEMPLATE, SEED, injectors)

    async def line(request: RolloutRequest) -> list[Trajectory]:
        return await rollout(request, setup)

    async def work() -> tuple[float, float]:
        clock, requests = asyncio.get_running_loop().time, [RolloutRequest(s.task) for s in scripts]
        began, computed = clock(), time.process_time()
        with open(os.devnull, "w", encoding="utf-8") as file:
            async for made in roll_out(requests, line, AT_ONCE):
                if made[-1].error:
                    raise CortError(f"a rollout of the bench failed: {made[-1].error}")
                file.write(made[-1].to_json() + "\n")
        return time.process_time() - computed - engine.busy, clock() - began

    busy, seconds = run(work(), wall=False)
    return busy, seconds, sum(end - begin for script in scripts for begin, end in script.stretches)
