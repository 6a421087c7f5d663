"""The rows that are about what holds: hangs, attacks, state, a soak, repetition."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from cort_framework import CortError, ToolCall
from cort_framework.cli.bench.table import Row
from cort_python.bench.limits import as_root
from cort_python.bench.soak import soak
from cort_python.bench.speed import TASK, opened
from cort_python.bench.states import CELLS, REPLAYED, differences, replays_that_agree
from cort_python.isolation.trials import Trial, run_attacks, run_hangs

REPEATED = (
    "import random\nrandom.random(), random.sample(range(1000), 5)",
    "import numpy\nnumpy.random.rand(2), numpy.random.default_rng().integers(0, 1000, 3)",
    "object(), lambda: 0, open('f', 'w'), {'a', 'b', 'c'}, __import__('os').getcwd()",
    "import sympy\nsympy.core.random.random(), sympy.factorint(10**30 + 57)",
    "1 / 0",
    "def f(n): return f(n + 1)\nf(0)",
    "import warnings\nwarnings.warn('careful')\nlist(range(1000))",
    "raise SystemExit(3)",
)


async def hangs() -> AsyncIterator[Row]:
    trials = await run_hangs()
    yield _trials("hangs: ended within limit + grace + 0.2 s", trials)


async def attacks() -> AsyncIterator[Row]:
    """As this user, and where this is root as an ordinary one."""
    layers, trials = await run_attacks()
    missing = [f"{layer}: {state.detail}" for layer, state in layers.items() if not state.in_force]
    yield _trials(
        f"attacks, as {'root' if as_root() else 'an ordinary user'}: refused", trials, "; ".join(missing)
    )
    figure = "attacks, as an ordinary user: refused"
    if not as_root():
        return
    from cort_python.checks import as_user

    try:
        report = await asyncio.to_thread(as_user, "nobody", {"hangs": False})
    except CortError as error:
        yield Row(figure, "", "all", "", note=error.message)
    else:
        yield _trials(figure, [Trial(**trial) for trial in report["attacks"]])


def _trials(figure: str, trials: Sequence[Trial], note: str = "") -> Row:
    failed = [f"{trial.name}: {trial.detail}" for trial in trials if not trial.held]
    held = len(trials) - len(failed)
    return Row(
        figure,
        "",
        "all",
        f"{held} of {len(trials)}",
        met=not failed,
        note="; ".join([*failed, note]).strip("; "),
    )


async def state() -> AsyncIterator[Row]:
    different = await differences()
    agree = await replays_that_agree()
    yield Row(
        "state suite: cells that show what a real kernel shows",
        "history again in a subprocess",
        "all",
        f"{len(CELLS) - len(different)} of {len(CELLS)}",
        f"{agree} of {len(REPLAYED)}",
        met=not different,
        note="; ".join(repr(difference.cell) for difference in different),
    )


async def endurance(sessions: int) -> AsyncIterator[Row]:
    report = await soak(sessions)
    yield Row(
        f"soak: {report.calls} calls over {report.sessions} sessions, {report.kills + report.deaths} kills, "
        f"{report.cancellations} cancellations",
        "",
        "nothing left, lost or mixed up",
        f"{len(report.faults)} faults",
        met=not report.faults,
        note="; ".join(report.faults[:3]),
    )


async def repetition() -> AsyncIterator[Row]:
    """The same trajectories twice: one after the other from fresh kernels, then many at once from a pool with spares."""
    names = [str(number) for number in range(6)]

    async def texts(at_once: bool, **config: object) -> list[list[str]]:
        async with opened(preload=["sympy"], **config) as tool:

            async def one(name: str) -> list[str]:
                async with tool.session(TASK, trajectory_id=name, seed=7) as session:
                    return [(await session.call(ToolCall("python", cell))).text for cell in REPEATED]

            if at_once:
                return list(await asyncio.gather(*map(one, names)))
            return [await one(name) for name in names]

    first, second = await texts(False, spares=0), await texts(True, spares=3, max_kernels=4)
    equal = sum(a == b for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True))
    total = len(names) * len(REPEATED)
    yield Row(
        "two runs with one seed: outputs that are equal", "", "all", f"{equal} of {total}", met=equal == total
    )
