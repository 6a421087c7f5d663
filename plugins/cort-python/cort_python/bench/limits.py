"""The rows that are about memory and floods."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from statistics import mean

from cort_framework.cli.bench.table import Row
from cort_python.bench.memory import Peak, own, proportional
from cort_python.bench.speed import IMPORTS, LIBRARIES, TASK, opened, run
from cort_python.bench.stock import stock_kernel

FLOOD = 300_000_000
"""Characters."""

STRING_MB = FLOOD / 2**20
"""What the program itself holds of it: one string."""

_PID = "import os\nprint(os.getpid())"


async def memory(alive: int) -> AsyncIterator[Row]:
    """What kernels hold that have imported numpy, sympy and rdkit, a forked one and an ordinary one; and each of many."""
    config: dict[str, object] = {"max_kernels": alive, "spares": 0, "start_timeout_s": 600}
    async with opened(preload=LIBRARIES, **config) as tool, AsyncExitStack() as stack:
        sessions = []
        for number in range(alive):
            session = tool.session(TASK, trajectory_id=str(number), seed=0)
            sessions.append(await stack.enter_async_context(session))
        await asyncio.gather(*(run(session, IMPORTS) for session in sessions))
        pids = [int(await run(session, _PID)) for session in sessions]
        ours = mean(own(pid) for pid in pids)
        shared = mean(proportional(pid) for pid in pids)
    async with stock_kernel() as stock:
        await stock.run(IMPORTS)
        theirs = own(int((await stock.run(_PID))[0][1]))
    baseline = "cold ipykernel"
    yield Row(
        "memory of its own, numpy, sympy and rdkit imported",
        baseline,
        "≤ 1/12",
        f"{ours:.1f} MB",
        f"{theirs:.1f} MB",
        theirs / ours,
        theirs / ours >= 12,
        "libraries that other processes of this machine have mapped, too, do not count as the cold kernel's own",
    )
    figure = f"memory with its share of what is shared (PSS), {alive} alive"
    yield Row(figure, "", "≤ 11 MB", f"{shared:.1f} MB", met=shared <= 11)


async def flood() -> AsyncIterator[Row]:
    """One print of 300 MB: what the kernel holds beside the program's own string, and what the client holds."""
    cell = f"print('x' * {FLOOD})"

    async def forked() -> tuple[float, float]:
        async with (
            opened(spares=0, timeout_s=120) as tool,
            tool.session(TASK, trajectory_id="flood", seed=0) as session,
        ):
            kernel, client = Peak(int(await run(session, _PID))), Peak()
            text = await run(session, cell)
            assert "characters left out" in text
            return kernel.growth - STRING_MB, client.growth

    async def stock() -> tuple[float, float]:
        async with stock_kernel() as kernel:
            peak, client = Peak(int((await kernel.run(_PID))[0][1])), Peak()
            shown = await kernel.run(cell)
            assert len(shown[0][1]) > FLOOD
            return peak.growth - STRING_MB, client.growth

    ours, theirs = await forked(), await stock()
    for who, most, mine, other in zip(("kernel", "client"), (64, 16), ours, theirs, strict=True):
        yield Row(
            f"300 MB print: the {who} grows by",
            "stock ipykernel",
            f"< {most} MB",
            f"{max(mine, 0.0):.0f} MB",
            f"{other:.0f} MB",
            met=mine < most,
            note="beside the program's own string of 286 MB" if who == "kernel" else "",
        )


def as_root() -> bool:
    return os.geteuid() == 0
