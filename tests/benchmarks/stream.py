"""How fast trajectories stream through the framework, and what memory they take there.

    python tests/benchmarks/stream.py --size 10000 --size 100000

Writes files of made-up trajectories, the samples of a task anywhere in them, and sends each through every operation in a
process of its own. ``speed`` is that of reading the same lines with ``json.loads``, once before and once after, over that
of the operation, both in processor time: 1 is as fast, 0.5 takes twice as long. ``grew`` is how far the process's resident
memory rose above what it was before, and ``B each`` the slope of that from the smallest size to the largest.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cort_framework import RolloutRequest, Task, ToolCall, ToolResult, Trajectory, Turn
from cort_framework.cli import main as cort
from cort_framework.cli.trace import Trace, stage_stats
from cort_framework.display import SilentDisplay
from cort_framework.evaluation import evaluate
from cort_framework.pipeline import Run
from cort_framework.recipe import Recipe, make_plan
from cort_framework.rendering import render
from cort_framework.runtime import Runtime
from cort_framework.scoring import score
from cort_framework.store import Trajectories, TrajectoryLog, read_trajectories
from cort_framework.types import Outcome, Reward

SAMPLES = 8
"""Of a task."""
BASELINE = 20_000
"""Lines that ``json.loads`` reads, at most, to compare with."""


# --- trajectories -----------------------------------------------------------------------------------------------
def task(number: int) -> Task:
    return Task(
        f"task-{number:07}", f"What is {number} to the power 7, modulo 997?", str(pow(number, 7, 997))
    )


def trajectory(number: int, sample: int, noise: random.Random) -> Trajectory:
    """Two stretches of the model's with a call between them: about 75 tokens and 2,600 bytes, as a small model writes."""
    problem = task(number)
    right = noise.random() < 0.6
    found = problem.answer if right else str(number % 997)
    code = f"print(pow({number}, 7, 997))\n"

    def ids(count: int) -> tuple[int, ...]:
        return tuple(noise.choices(range(150_000), k=count))

    def model(text: str, count: int) -> Turn:
        logprobs = tuple(-noise.expovariate(4) for _ in range(count))
        return Turn("model", ids(count), text, logprobs, 1)

    call = ToolCall("python", code)
    result = ToolResult(Outcome.OK, f"{found}\n", noise.uniform(0.001, 0.2))
    long = noise.randrange(8, 24)
    turns = [
        Turn("prompt", ids(24), f"<|user|>{problem.prompt}<|assistant|><think>\n"),
        model(f"Let me compute that with a program.\n```python\n{code}```\n", 24),
        Turn("tool", ids(10), f"```output\n{found}\n```\n", call=call, result=result),
        model(f"{'So it is. ' * (long // 4)}</think>\nThe remainder is \\boxed{{{found}}}.", long),
    ]
    return Trajectory(
        f"{problem.id}/{sample}",
        problem,
        sample,
        noise.getrandbits(62),
        turns,
        "eos" if noise.random() < 0.95 else "length",
        rewards={"answer": Reward(float(right)), "code-success": Reward(1.0, 0.1)},
        seconds=noise.lognormvariate(1, 1),
    )


def write(path: Path, size: int) -> None:
    """In an order of arrival in which the samples of a task lie all over the file."""
    noise = random.Random(0)
    step = next(n for n in itertools.count(int(size * 0.618) | 1) if size % n and _coprime(n, size))
    with open(path, "w", encoding="utf-8") as file:
        for place in range(size):
            number, sample = divmod(place * step % size, SAMPLES)
            file.write(trajectory(number, sample, noise).to_json() + "\n")


def _coprime(a: int, b: int) -> bool:
    while b:
        a, b = b, a % b
    return a == 1


# --- operations -------------------------------------------------------------------------------------------------
class Bench:
    """A file of trajectories, and a run that could have made it."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size
        self.tasks = [task(n) for n in range(size // SAMPLES)]
        recipe = Recipe.model_validate(
            {
                "schema": 1,
                "name": "stream",
                "model": "tiny",
                "tasks": {"train": {"source": "tiny"}},
                "rollout": {"engine": "transformers"},
                "rewards": {"length": {}, "code-success": {}},
                "filters": {"correct": {}, "finished": {}, "used-code": {}, "shortest": {"keep": 4}},
                "stage": [{"name": "rft", "kind": "rft", "tasks": "train", "filters": ["correct"]}],
            }
        )
        self.plan = make_plan(recipe)
        self.runtime = Runtime()
        self.run: Any = Run(
            plan=self.plan,
            stage=self.plan.stages[0],
            folder=path.parent,
            model="tiny",
            runtime=self.runtime,
            reporter=None,  # type: ignore[arg-type]
            sets=None,  # type: ignore[arg-type]
        )

    def read(self) -> None:
        for _ in read_trajectories(self.path):
            pass

    def read_without_logprobs(self) -> None:
        for _ in read_trajectories(self.path, logprobs=False):
            pass

    def score(self) -> None:
        """The rewards that look at no answer: what is measured is the framework, not Math-Verify."""
        names = ("length", "code-success")
        rewards = {name: (self.plan.rewards[name].build(), 1.0) for name in names}

        async def scoring() -> None:
            for t in read_trajectories(self.path, logprobs=False):
                await score(t, rewards)  # type: ignore[arg-type]
                await asyncio.sleep(0)  # as where others roll out meanwhile

        asyncio.run(scoring())

    def resume(self) -> TrajectoryLog:
        """Open the log, and find that nothing is missing."""
        log = TrajectoryLog(self.path)
        with SilentDisplay().progress("resumed", self.size) as progress:
            self.run.collect(log, self.run.job(self._requests()), progress)
        return log

    def filter(self, log: TrajectoryLog) -> None:
        """Four filters, one of them on groups, on the log that was opened; then the file in the order of the requests."""
        self.run.judge(log, self._requests(), list(self.plan.filters))
        log.finish(r.key for r in self._requests())

    def render(self) -> None:
        for t in Trajectories.kept(self.path):
            render(t)

    def sft_data(self) -> None:
        """Ids and masks into the file that the trainer maps into memory."""
        from cort_trl.data import rendered

        rendered(Trajectories.kept(self.path), ("model", "hint"), self.path.parent / "data.arrow")

    def stats(self) -> None:
        stage_stats(Trace("stage", self.path))

    def export(self) -> None:
        out = self.path.parent / "rows.jsonl"
        assert cort(["trace", "export", str(self.path), "--format", "trl", "--all", "--out", str(out)]) == 0

    def evaluate(self) -> None:
        """Mostly bootstrap and votes, which go by task."""
        evaluate(read_trajectories(self.path, logprobs=False), name="system", test_set="set")

    def _requests(self) -> list[RolloutRequest]:
        return [RolloutRequest(t, sample) for t in self.tasks for sample in range(SAMPLES)]


OPERATIONS = (
    "read",
    "read_without_logprobs",
    "score",
    "resume",
    "filter",
    "render",
    "sft_data",
    "stats",
    "export",
    "evaluate",
)


# --- measuring --------------------------------------------------------------------------------------------------
def measure(operation: str, path: Path, size: int) -> dict[str, float]:
    """In this process: seconds of processor time an operation and a plain reading take a line, and megabytes."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        copy = Path(folder) / "trajectories.jsonl"
        (shutil.copy if operation == "filter" else os.link)(path, copy)  # the others write nothing into it
        bench = Bench(copy, size)
        if operation == "sft_data":
            import datasets  # noqa: F401 - not part of what is measured
        arguments = [TrajectoryLog(copy)] if operation == "filter" else []
        before = plain(path)
        held = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        started, clock = time.process_time(), time.perf_counter()
        getattr(bench, operation)(*arguments)
        seconds, wall = time.process_time() - started, time.perf_counter() - clock
        grew = resident("VmHWM") - held
        bench.runtime.close()
    baseline = (before + plain(path)) / 2
    return {"us": seconds / size * 1e6, "json_us": baseline * 1e6, "wall": wall, "grew": grew}


def plain(path: Path) -> float:
    """Seconds a line."""
    started = time.process_time()
    count = 0
    with open(path, encoding="utf-8") as file:
        for line in itertools.islice(file, BASELINE):
            json.loads(line)
            count += 1
    return (time.process_time() - started) / count


def resident(field: str) -> int:
    """Bytes. The file's own pages, which the system caches, are none of the process's."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def in_a_process_of_its_own(operation: str, path: Path, size: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", operation, "--file", str(path), "--size", str(size)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=7200)
    if done.returncode:
        raise SystemExit(f"{operation} failed:\n{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def table(sizes: list[int], operations: list[str], folder: Path) -> Iterator[str]:
    """The report, line by line."""
    path = {size: folder / f"{size}.jsonl" for size in sizes}
    for size in sizes:
        write(path[size], size)
        yield f"{size:,} trajectories: {path[size].stat().st_size / size:,.0f} bytes each"
    heads = "".join(f"{f'speed {s:,}':>18}{'grew, MB':>10}" for s in sizes)
    yield f"{'operation':24}{heads}{'us each':>10}{'B each':>8}"
    for operation in operations:
        found = [in_a_process_of_its_own(operation, path[size], size) for size in sizes]
        cells = "".join(f"{f['json_us'] / f['us']:>18.2f}{f['grew'] / 1e6:>10.1f}" for f in found)
        slope = (found[-1]["grew"] - found[0]["grew"]) / max(1, sizes[-1] - sizes[0])
        yield f"{operation:24}{cells}{found[-1]['us']:>10.0f}{slope:>8.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--size", type=int, action="append", help="trajectories; several times, the smallest first"
    )
    parser.add_argument("--only", action="append", choices=OPERATIONS, help="these operations alone")
    parser.add_argument(
        "--folder", type=Path, help="where the files go for the while; a temporary folder by default"
    )
    parser.add_argument("--measure", choices=OPERATIONS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    sizes = sorted(given.size or [10_000, 100_000])
    if any(size < SAMPLES or size % SAMPLES for size in sizes):
        parser.error(f"--size has to be a multiple of {SAMPLES}, the samples of a task")
    if given.measure:
        print(json.dumps(measure(given.measure, given.file, sizes[0])))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for line in table(sizes, given.only or list(OPERATIONS), Path(folder)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
