"""Engines that say what the scripts say: one that only keeps a pace, and any real one, whose work is real."""

from __future__ import annotations

import asyncio
import copy
import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cort_framework.cli.bench.scripts import Script
from cort_framework.interfaces import Engine, Tokenizer
from cort_framework.types import Generation, Sampling, Weights


class Follower(Engine):
    """What both share: the next tokens of a trajectory, by its seed and by how long it is already."""

    def follow(self, scripts: Sequence[Script]) -> None:
        self._scripts = {script.seed: script for script in scripts}

    def next(self, ids: Sequence[int], sampling: Sampling) -> Generation:
        """The stretch up to the next call, the end, or ``max_tokens``."""
        script, begin = self._scripts[sampling.seed], len(ids)
        end = next((end for _, end in script.stretches if end > begin), 0)
        if not end or ids[-1] != script.ids[begin - 1]:
            raise ValueError(f"{script.task.id} has left its script after {begin} tokens")
        cut = min(end, begin + sampling.max_tokens)
        said = tuple(script.ids[begin:cut])
        stop: Literal["eos", "stop", "length"] = (
            "length" if cut < end else "eos" if end == len(script.ids) else "stop"
        )
        return Generation(said, (-0.6931471805599453,) * len(said), stop)

    async def load_weights(self, weights: Weights) -> None:
        """It has none."""


@dataclass(frozen=True)
class Pace:
    """How fast an engine is. Every step decodes a token of each row that has a slot; other rows wait for one.

    The defaults are the shape of a 1.5B model on one data-centre card: 160 tokens a second alone, a third of that each in a full
    batch, where all together are fifty times as fast.
    """

    slots: int = 256
    step: float = 0.006
    """Seconds of a step with one row in it."""
    row: float = 0.00005
    """Seconds that each further row adds."""
    read: int = 64
    """Tokens of a prompt or an output that are read in the time of a step."""


class PacedEngine(Follower):
    """Speaks at a pace. What it says takes no computation, and the waiting is the loop's."""

    name = "scripted"

    def __init__(self, tokenizer: Tokenizer, pace: Pace) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.pace = pace
        self._slots = asyncio.Semaphore(pace.slots)
        self._steps, self._at = 0.0, 0.0
        """Steps until now, and when that was."""
        self._ends: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._read: dict[int, int] = {}

    async def generate(self, ids: Sequence[int], sampling: Sampling) -> Generation:
        said = self.next(ids, sampling)
        unread = len(ids) - self._read.get(sampling.seed, 0)
        self._read[sampling.seed] = len(ids) + len(said.ids)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        async with self._slots:
            self._advance()
            steps = len(said.ids) + unread // self.pace.read
            heapq.heappush(self._ends, (self._steps + steps, next(self._count), future))
            self._wind()
            await future
        return said

    def _advance(self) -> None:
        """Count the steps since the last look."""
        now = asyncio.get_running_loop().time()
        if self._ends:
            self._steps += (now - self._at) / self._step()
        self._at = now

    def _step(self) -> float:
        return self.pace.step + self.pace.row * (len(self._ends) - 1)

    def _wind(self) -> None:
        """Wake when the next row ends."""
        if self._timer is not None:
            self._timer.cancel()
        if self._ends:
            wait = (self._ends[0][0] - self._steps) * self._step()
            self._timer = asyncio.get_running_loop().call_later(wait, self._ring)

    def _ring(self) -> None:
        self._advance()
        while self._ends and self._ends[0][0] <= self._steps + 1e-6:
            future = heapq.heappop(self._ends)[2]
            if not future.done():
                future.set_result(None)
        self._wind()


class RealEngine(Follower):
    """A real engine does the work of every token: it samples as many, after as many. What they are is then replaced by the
    script, and what it sampled itself is put back before it goes on, so that it finds again what it had computed."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.name = engine.name  # type: ignore[misc]
        self.engine = engine
        self.live = 0
        """Stretches that it works on."""

    async def load_weights(self, weights: Weights) -> None:
        """Takes them, and forgets what was computed before: nothing of one run helps the next."""
        await self.engine.load_weights(weights)
        if not hasattr(self, "tokenizer"):
            self.tokenizer = copy.copy(self.engine.tokenizer)
        # a row ends where the script says, not where the model would end it
        self.engine.tokenizer.eos_ids = frozenset()  # type: ignore[misc]

    def follow(self, scripts: Sequence[Script]) -> None:
        super().follow(scripts)
        self._own = {script.seed: list(script.ids) for script in scripts}

    async def generate(self, ids: Sequence[int], sampling: Sampling) -> Generation:
        said = self.next(ids, sampling)
        own, begin = self._own[sampling.seed], len(ids)
        end = begin + len(said.ids)
        self.live += 1
        try:
            while begin < end:  # once, as a rule
                wanted = sampling.replace(max_tokens=end - begin, stop=(), temperature=1.0, top_p=1.0)
                generation = await self.engine.generate(own[:begin], wanted)
                own[begin : begin + len(generation.ids)] = generation.ids
                begin += len(generation.ids)
        finally:
            self.live -= 1
        return said
