"""Trajectories that are known beforehand, token by token, so that several ways of rolling out make the same ones."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cort_framework.interfaces import Tokenizer, Tool
from cort_framework.parsing import FenceParser
from cort_framework.rendering import prompt_turn
from cort_framework.types import Outcome, Task, ToolCall, ToolResult, derive_seed

SEED = 0
TEMPLATE = "{problem}"
PROSE = (
    "Let me see what is asked here and what is given. The sum over all of them is what I need, so first I count the "
    "cases, then I add what each of them brings; 12 of 40 remain, and they do not overlap. So far so good. \n"
)


class BenchTokenizer:
    """The words of ``PROSE`` are tokens, with the space before them; of all else, bytes."""

    eos_ids = frozenset({256})

    def __init__(self) -> None:
        words = sorted(set(re.findall(r" ?\w+", PROSE)), key=len, reverse=True)
        self._pieces = [bytes([b]) for b in range(256)] + [b"<|end|>"] + [w.encode() for w in words]
        self._ids = {piece: i for i, piece in enumerate(self._pieces)}
        self._any = re.compile(b"|".join(re.escape(w.encode()) for w in words) + b"|.", re.DOTALL)

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        return [self._ids[piece] for piece in self._any.findall(text.encode())]

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(map(self._pieces.__getitem__, ids)).decode(errors="replace")

    def apply_chat_template(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        return self.encode("".join(f"<{m['role']}>{m['content']}" for m in messages) + "<assistant><think>")


@dataclass(frozen=True)
class Waits:
    """How long a call takes."""

    name: str
    usual: float
    """Seconds."""
    rare: float = 0.0
    """Seconds of one call in fifty."""

    def draw(self, chance: random.Random) -> float:
        return self.rare if self.rare and chance.random() < 0.02 else self.usual


@dataclass(frozen=True)
class Case:
    """What a set of trajectories is like."""

    count: int
    turns: int
    """Calls of each trajectory. After the last it goes on for once more as long, to its answer."""
    waits: Waits
    median: int
    """Tokens of a trajectory's turns in the median, taken together: a case of more turns has shorter ones. The length of each
    turn is log-normal (sigma 1), independent of the others."""
    budget: int
    """Tokens of a trajectory at most, as in RL: what would be longer is drawn again."""

    def lengths(self, chance: random.Random) -> list[int]:
        """Tokens of each turn, and of the answer."""
        stretches = self.turns + 1
        while True:
            drawn = [self.median / stretches * chance.lognormvariate(0, 1) for _ in range(stretches)]
            if sum(drawn) <= self.budget:
                return [round(length) for length in drawn]


@dataclass
class Script:
    """One trajectory, as it will be."""

    task: Task
    seed: int
    """The rollout's own: it tells an engine whose tokens are asked for."""
    ids: list[int]
    """All of them, from the prompt to the end of sequence."""
    stretches: list[tuple[int, int]]
    """What of ``ids`` the model says: from and to."""
    waits: list[float]
    """Seconds of each call."""


def write_scripts(case: Case, tokenizer: Tokenizer) -> list[Script]:
    """The same ones each time."""
    chance = random.Random(derive_seed(SEED, case.turns, case.count))
    waiting = random.Random(derive_seed(SEED, case.waits.name))
    prose = tokenizer.encode(PROSE)
    scripts = []
    for number in range(case.count):
        task = Task(f"bench-{number}", f"Problem {number}: how many of them are there?")
        ids = list(prompt_turn(tokenizer, TEMPLATE, task).ids)
        stretches = []
        for turn, length in enumerate(case.lengths(chance)):
            last = turn == case.turns
            end = "</think>\nThe answer is 28." if last else f"\n```python\nprint(work({turn}))\n```\n"
            tokens = [*tokenizer.encode(end), *([min(tokenizer.eos_ids)] if last else [])]
            begin = len(ids)
            ids += itertools.islice(itertools.cycle(prose), max(0, length - len(tokens)))
            ids += tokens
            stretches.append((begin, len(ids)))
            if not last:
                ids += tokenizer.encode(FenceParser([]).render(output(turn), "\n"))
        waits = [case.waits.draw(waiting) for _ in range(case.turns)]
        scripts.append(Script(task, derive_seed(SEED, task.id, 0), ids, stretches, waits))
    return scripts


def output(turn: int) -> str:
    return f"the result of call {turn} is {28 + turn}"


@dataclass
class Waiting(Tool):
    """A tool that takes the time that the script says and does nothing."""

    name = "python"
    language = "python"

    scripts: Sequence[Script]
    calls: list[tuple[str, str]] = field(default_factory=list)
    """Task and code of every call that was made."""

    def __post_init__(self) -> None:
        super().__init__()
        self._waits = {script.task.id: script.waits for script in self.scripts}

    @contextlib.asynccontextmanager
    async def session(self, task: Task, *, trajectory_id: str, seed: int) -> AsyncIterator[Any]:
        yield _Session(self, task.id)


@dataclass
class _Session:
    tool: Waiting
    task: str

    async def call(self, call: ToolCall) -> ToolResult:
        self.tool.calls.append((self.task, call.code or ""))
        seconds = self.tool._waits[self.task][call.index]
        await asyncio.sleep(seconds)
        return ToolResult(Outcome.OK, output(call.index), seconds)
