"""Three ways through the same trajectories: ours, in lock-step, and the engine alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from cort_framework.cli.bench.engines import Follower
from cort_framework.cli.bench.scripts import SEED, TEMPLATE, Script, Waiting
from cort_framework.errors import CortError
from cort_framework.interfaces import RolloutRequest
from cort_framework.parsing import CallParser
from cort_framework.recipe.settings import RolloutSettings
from cort_framework.rollout import RolloutSetup, rollout
from cort_framework.types import Generation, Sampling, ToolCall

PLENTY = 1 << 20
PATIENCE = RolloutSettings(
    max_tokens=PLENTY, max_tool_calls=PLENTY, turn_timeout_s=3600, trajectory_timeout_s=3600
)
"""Nothing but the script ends a trajectory."""


@dataclass(frozen=True)
class Made:
    """What a way made of the scripts."""

    ids: list[list[int]]
    calls: list[tuple[str, str]]
    """Task and code, sorted. None where the tools are free."""


async def ours(scripts: Sequence[Script], engine: Follower) -> Made:
    """One coroutine a trajectory: none waits for another."""
    tool = Waiting(scripts)
    setup = RolloutSetup(engine, {tool.name: tool}, PATIENCE, TEMPLATE, SEED)
    lines = await asyncio.gather(*(rollout(RolloutRequest(script.task), setup) for script in scripts))
    if failed := [line[-1].error for line in lines if line[-1].error]:
        raise CortError(f"a rollout of the bench failed: {failed[0]}")
    return Made([line[-1].ids for line in lines], sorted(tool.calls))


async def lock_step(scripts: Sequence[Script], engine: Follower) -> Made:
    """All generate until each has a call or has ended, all wait; all calls at once, all wait; the next turn. So do CoRT's release
    and the tool loop of TRL's trainer."""
    tool = Waiting(scripts)
    parser = CallParser([tool])
    tokenizer = engine.tokenizer
    ids = [script.ids[: script.stretches[0][0]] for script in scripts]
    made = [0] * len(scripts)
    async with contextlib.AsyncExitStack() as stack:
        sessions = [
            await stack.enter_async_context(tool.session(s.task, trajectory_id=s.task.id, seed=s.seed))
            for s in scripts
        ]

        async def generate(n: int) -> Generation:
            return await engine.generate(
                ids[n], Sampling(max_tokens=PLENTY, stop=parser.stop, seed=scripts[n].seed)
            )

        alive = list(range(len(scripts)))
        while alive:
            said = await asyncio.gather(*(generate(n) for n in alive))
            calling = []
            for n, generation in zip(alive, said, strict=True):
                ids[n].extend(generation.ids)
                text = tokenizer.decode(generation.ids)
                if generation.stop != "eos" and (found := parser.parse(text)) is not None:
                    calling.append((n, *found, text))
            results = await asyncio.gather(
                *(
                    sessions[n].call(ToolCall(call.tool, call.code, index=made[n]))
                    for n, call, _, _ in calling
                )
            )
            for (n, _, dialect, text), result in zip(calling, results, strict=True):
                ids[n].extend(tokenizer.encode(dialect.render(result.text, text)))
                made[n] += 1
            alive = [n for n, *_ in calling]
    return Made(ids, sorted(tool.calls))


async def bound(scripts: Sequence[Script], engine: Follower) -> Made:
    """The engine alone: the same tokens after the same tokens, no tool, no text, no framework."""

    async def follow(script: Script) -> list[int]:
        ids: list[int] = []
        for begin, end in script.stretches:
            ids.extend(script.ids[len(ids) : begin])
            generation = await engine.generate(ids, Sampling(max_tokens=end - begin, seed=script.seed))
            ids.extend(generation.ids)
        return ids

    return Made(await asyncio.gather(*(follow(script) for script in scripts)), [])


WAYS: dict[str, Callable[[Sequence[Script], Follower], Awaitable[Made]]] = {
    "ours": ours,
    "lock-step": lock_step,
    "bound": bound,
}


def prove_equal(made: dict[str, Made], scripts: Sequence[Script]) -> None:
    """Raises ``CortError`` unless every way made these trajectories, and ours and lock-step the same calls."""
    for way, result in made.items():
        if result.ids != [script.ids for script in scripts]:
            raise CortError(f"{way} made other tokens than the script: its time says nothing")
    if made["ours"].calls != made["lock-step"].calls:
        raise CortError("ours and lock-step made other calls: their times cannot be compared")
