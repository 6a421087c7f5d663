"""Very many calls over very many kernels, with kills and cancellations: what is left, lost or mixed up afterwards?"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cort_framework import Outcome, ToolCall, ToolResult
from cort_python.bench.speed import TASK, opened
from cort_python.processes import Fork, ForkBackend
from cort_python.tool import PythonSession, PythonTool


@dataclass
class Soak:
    """What happened. ``faults`` should be empty: answers that were lost, doubled or somebody else's, and what is left."""

    sessions: int = 0
    calls: int = 0
    kills: int = 0
    cancellations: int = 0
    deaths: int = 0
    timeouts: int = 0
    faults: list[str] = field(default_factory=list)


async def soak(sessions: int, calls: int = 5, at_once: int = 8, seed: int = 0) -> Soak:
    """``sessions`` sessions of ``calls`` calls each. The machine is Linux."""
    report = Soak()
    before = Holdings()
    waiting: Iterator[int] = iter(range(sessions))
    async with opened(
        max_kernels=at_once + 2, timeout_s=0.5, grace_s=0.3, spares=2, preload=["colorsys"]
    ) as tool:
        backend = tool.pool.backend
        assert isinstance(backend, ForkBackend)
        folder = backend.template.folder

        async def work() -> None:
            for number in waiting:
                await _session(tool, number, calls, random.Random(f"{seed}/{number}"), report)

        await asyncio.gather(*(work() for _ in range(at_once)))
        await tool.pool.close()
        left = [entry.name for entry in folder.iterdir() if entry.name.isdigit()]
        if left:
            report.faults.append(f"{len(left)} folders are left: {', '.join(left[:3])}, …")
    report.faults += Holdings().more_than(before)
    if folder.exists():
        report.faults.append("the template's folder is left")
    return report


async def _session(tool: PythonTool, number: int, calls: int, chance: random.Random, report: Soak) -> None:
    """Each cell counts on, from where the state is known to be; the marks tell whose answer came."""
    report.sessions += 1
    async with tool.session(TASK, trajectory_id=str(number), seed=0) as session:
        known: int | None = None
        for step in range(calls):
            report.calls += 1
            fate = chance.random()
            if fate < 0.04:
                await _cancelled(session, chance)
                report.cancellations += 1
                known = None
                continue
            cell = f"mark, count = {number}, {step}\n" if known is None else "count += 1\n"
            expected = f"{number} {step if known is None else known + 1}"
            if fate < 0.08:
                cell = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
            elif fate < 0.09:
                cell += "while True: pass"
            cell += "\nprint(mark, count)"
            call = asyncio.ensure_future(session.call(ToolCall("python", cell)))
            if 0.09 < fate < 0.11 and isinstance(kernel := session.kernel, Fork):
                await asyncio.sleep(chance.random() / 200)
                kernel.forked.send_signal(signal.SIGKILL)  # as the system does that runs out of memory
                report.kills += 1
                result = await call
                if result.outcome is not Outcome.RESOURCE_LIMIT and result.text.splitlines()[-1:] != [
                    expected
                ]:
                    report.faults.append(f"a kernel that was killed gave {result}")
                known = None
                session.end()
                continue
            result = await call
            known = _judge(result, expected, fate, report)


def _judge(result: ToolResult, expected: str, fate: float, report: Soak) -> int | None:
    """The count that the session is at now, or ``None`` where it has restarted."""
    if 0.04 <= fate < 0.08:
        report.deaths += 1
        if result.outcome is not Outcome.RESOURCE_LIMIT or not result.restarted:
            report.faults.append(f"a kernel that was killed gave {result}")
        return None
    if 0.08 <= fate < 0.09:
        report.timeouts += 1
        if result.outcome is not Outcome.TIMEOUT:
            report.faults.append(f"a loop without end gave {result}")
        return None if result.restarted else int(expected.split()[1])
    if result.outcome is Outcome.TIMEOUT:  # this machine is busy: not this row's question
        return None if result.restarted else int(expected.split()[1])
    if result.text.splitlines()[-1:] != [expected]:
        report.faults.append(f"instead of {expected!r} came {result}")
    return int(expected.split()[1])


async def _cancelled(session: PythonSession, chance: random.Random) -> None:
    call = asyncio.ensure_future(session.call(ToolCall("python", "while True: pass")))
    await asyncio.sleep(chance.choice((0, 0.002, 0.02)))
    call.cancel()
    await asyncio.wait([call])


class Holdings:
    """What this process holds: children, threads, descriptors."""

    def __init__(self) -> None:
        gc.collect()
        tasks = Path("/proc/self/task").iterdir()
        self.children = {child for task in tasks for child in (task / "children").read_text().split()}
        helpers = ("asyncio_", "ThreadPool")  # an event loop's own, which end with it
        self.threads = sum(not thread.name.startswith(helpers) for thread in threading.enumerate())
        self.descriptors = len(os.listdir("/proc/self/fd"))

    def more_than(self, before: Holdings) -> list[str]:
        """What has come to it. A few descriptors come with the first use of zmq and of an event loop."""
        faults = []
        if new := self.children - before.children:
            faults.append(f"{len(new)} child processes are left")
        if self.threads > before.threads:
            faults.append(f"{self.threads - before.threads} threads are left")
        if self.descriptors > before.descriptors + 4:
            faults.append(f"{self.descriptors - before.descriptors} descriptors are left")
        return faults
