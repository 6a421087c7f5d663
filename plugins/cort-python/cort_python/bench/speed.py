"""The rows that are about time."""

from __future__ import annotations

import asyncio
import importlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

from jupyter_client.manager import AsyncKernelManager

from cort_framework import OpenContext, Outcome, Task, Tool, ToolCall, ToolResult
from cort_framework.cli.bench.table import Measure, Row, compare, side_by_side
from cort_framework.interfaces import ToolSession
from cort_python.bench.rivals import has_smolagents, python, rerun, smolagents_seconds
from cort_python.bench.stock import OneSpec, stock_kernel
from cort_python.client import KernelClient, new_context
from cort_python.tool import PythonSession, PythonTool

LIBRARIES = ["numpy", "sympy", "rdkit.Chem"]
IMPORTS = "import numpy, sympy\nfrom rdkit import Chem\n1 + 1"

SYMPY = (
    "from sympy import *\nx, y, n = symbols('x y n')",
    "solve(x**3 - 6*x**2 + 11*x - 6, x)",
    "integrate(x**2 * exp(-x), (x, 0, oo))",
    "p = expand((x + 1)**10)\nfactor(p - 1)",
    "limit(sin(x)/x, x, 0)",
    "series(cos(x), x, 0, 8)",
    "simplify((x**3 - 1)/(x - 1))",
    "factorint(2**67 - 1)",
    "M = Matrix([[2, 1], [1, 3]])\nM.eigenvals()",
    "summation(1/n**2, (n, 1, oo))",
    "diff(sin(x)*exp(x), x, 3)",
    "solve([x + y - 5, x*y - 6], [x, y])",
    "nsolve(cos(x) - x, 1)",
    "M.det() + p.subs(x, 2)",
    "print(sum(factorint(k).get(2, 0) for k in range(1, 200)))",
)
"""A trajectory of fifteen calls; its first three are the trajectory of three."""

TASK = Task("bench", "bench")


@asynccontextmanager
async def opened(**config: object) -> AsyncIterator[PythonTool]:
    """The Python tool as a recipe would have it."""
    tool = PythonTool(PythonTool.Config(**config))
    try:
        await tool.open(OpenContext(scratch=Path(".")))
        yield tool
    finally:
        await tool.close()


@asynccontextmanager
async def opened_tool(module: ModuleType, name: str) -> AsyncIterator[Tool]:
    """The tool of that name in a plugin's module."""
    kinds = (kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Tool))
    tool = next(kind for kind in kinds if getattr(kind, "name", "") == name)()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            await tool.open(OpenContext(scratch=Path(scratch)))
            yield tool
        finally:
            await tool.close()


def succeeded(result: ToolResult, what: str) -> str:
    """The text of a call that has to succeed."""
    if result.outcome is not Outcome.OK:
        raise RuntimeError(f"{what!r} in the bench ended in {result.outcome}: {result.text}")
    return result.text


async def run(session: PythonSession, cell: str) -> str:
    """A cell that has to succeed."""
    return succeeded(await session.call(ToolCall("python", cell)), cell)


async def timed(tool: PythonTool, cells: Sequence[str]) -> float:
    begun = time.perf_counter()
    async with tool.session(TASK, trajectory_id="bench", seed=0) as session:
        for cell in cells:
            await run(session, cell)
        return time.perf_counter() - begun


async def fresh_kernels(rounds: int) -> AsyncIterator[Row]:
    """A kernel of one's own until its first result, bare and with libraries."""
    context = new_context(1)
    try:
        for figure, preload, cell, limit in (
            ("fresh confined kernel to first result, by jupyter-client", [], "1 + 1", 12),
            ("the same, numpy, sympy and rdkit imported", LIBRARIES, IMPORTS, 20),
        ):

            async def ours(preload: list[str] = preload, cell: str = cell) -> float:
                begun = time.perf_counter()
                manager = AsyncKernelManager(kernel_name="bench", kernel_spec_manager=OneSpec(preload))
                await manager.start_kernel()
                client = KernelClient(context, dict(manager.get_connection_info()))
                reply = await client.run(cell)
                seconds = time.perf_counter() - begun
                client.close()
                await manager.shutdown_kernel(now=True)
                assert reply.text == "2", reply
                return seconds

            await ours()  # starts the template
            yield compare(
                figure, "cold ipykernel, wait_for_ready", await side_by_side(rounds, ours, cold(cell)), limit
            )
    finally:
        context.destroy(linger=0)


def cold(cell: str = "1 + 1") -> Measure:
    """An ordinary kernel until the result of ``cell``."""

    async def measure() -> float:
        begun = time.perf_counter()
        async with stock_kernel() as kernel:
            await kernel.run(cell)
            return time.perf_counter() - begun

    return measure


async def from_the_pool(rounds: int) -> AsyncIterator[Row]:
    """A kernel that is ready, and calls to one that is used already."""
    async with opened(spares=2) as tool, stock_kernel() as stock:

        async def acquired() -> float:
            while len(tool.pool._ready) < 2 or tool.pool._starting:
                await asyncio.sleep(0.02)
            return await timed(tool, ["1 + 1"])

        await timed(tool, ["1 + 1"])
        times = await side_by_side(rounds, acquired, cold(), repeat=6)
        yield compare("pool: acquire to first result", "cold ipykernel, wait_for_ready", times, 100)

        async with tool.session(TASK, trajectory_id="warm", seed=0) as session:

            async def warm() -> float:
                begun = time.perf_counter()
                await run(session, "1 + 1")
                return time.perf_counter() - begun

            async def theirs() -> float:
                begun = time.perf_counter()
                await stock.run("1 + 1")
                return time.perf_counter() - begun

            times = await side_by_side(20 * rounds, warm, theirs, repeat=1)
            yield compare("warm call", "stock ipykernel", times, 0.8, "of the time")


async def trajectories(rounds: int) -> AsyncIterator[Row]:
    """Whole trajectories of sympy."""

    async def stock(cells: Sequence[str]) -> None:
        async with stock_kernel() as kernel:
            for cell in cells:
                await kernel.run(cell)

    async with opened(preload=["sympy", "cort_sympy.warm"] if has_cort("sympy") else ["sympy"]) as tool:

        async def three() -> float:
            begun = time.perf_counter()
            await asyncio.gather(*(timed(tool, SYMPY[:3]) for _ in range(8)))
            return (time.perf_counter() - begun) / 8

        async def stock_three() -> float:
            begun = time.perf_counter()
            await asyncio.gather(*(stock(SYMPY[:3]) for _ in range(2)))
            return (time.perf_counter() - begun) / 2

        times = await side_by_side(rounds, three, stock_three, repeat=1)
        yield compare("three-call sympy trajectories", "stock ipykernel", times, 12, "more")

        async def fifteen() -> float:
            return await timed(tool, SYMPY)

        async def again() -> float:
            begun = time.perf_counter()
            await rerun(SYMPY)
            return time.perf_counter() - begun

        few = max(1, rounds // 2)
        figure = "fifteen-call sympy trajectory"
        times = await side_by_side(few, fifteen, again, repeat=2)
        yield compare(figure, "history again in a subprocess", times, 10)
        if not has_smolagents():
            note = "smolagents is not installed: pip install smolagents"
            yield Row(figure, "smolagents' own executor", "≤ 1×", "", note=note)
            return

        async def smolagents() -> float:
            return await smolagents_seconds(SYMPY)

        times = await side_by_side(rounds, fifteen, smolagents, repeat=2)
        note = "without the start of smolagents' process and its import"
        yield compare(figure, "smolagents' own executor", times, 1.0, "of the time", note)


STATELESS = {
    "sympy": (
        "from sympy import *\nx = symbols('x')\n",
        {
            "integrate(sin(x)**2, x, 0, pi)": "integrate(sin(x)**2, (x, 0, pi))",
            "solve(x**2 - 5*x + 6, x)": "solve(x**2 - 5*x + 6, x)",
            "factor(x**4 - 1)": "factor(x**4 - 1)",
            "isprime(2**61 - 1)": "isprime(2**61 - 1)",
        },
        25,
    ),
    "rdkit": (
        "from rdkit import Chem\nfrom rdkit.Chem import Descriptors, rdMolDescriptors\n",
        {
            "formula('CCO')": "rdMolDescriptors.CalcMolFormula(Chem.MolFromSmiles('CCO'))",
            "logp('c1ccccc1O')": "Descriptors.MolLogP(Chem.MolFromSmiles('c1ccccc1O'))",
            "canonical('OC(=O)C')": "Chem.CanonSmiles('OC(=O)C')",
            "molecular_weight('CC(=O)Oc1ccccc1C(=O)O')": "Descriptors.MolWt("
            "Chem.MolFromSmiles('CC(=O)Oc1ccccc1C(=O)O'))",
        },
        20,
    ),
}
"""Tool: how a program begins, calls to the tool and what a program says for them, and the target."""


async def stateless(rounds: int) -> AsyncIterator[Row]:
    """Calls to tools that keep nothing: the mean of a few."""
    for name, (begin, calls, limit) in STATELESS.items():
        figure, baseline = f"stateless {name} call", "python -c"
        if not has_cort(name):
            yield Row(figure, baseline, f"≥ {limit}×", "", note=f"cort-{name} is not installed")
            continue
        async with (
            opened_tool(importlib.import_module(f"cort_{name}.tool"), name) as tool,
            tool.session(TASK, trajectory_id="bench", seed=0) as session,
        ):

            async def ours(
                session: ToolSession = session, name: str = name, calls: Sequence[str] = tuple(calls)
            ) -> float:
                begun = time.perf_counter()
                for call in calls:
                    succeeded(await session.call(ToolCall(name, call)), call)
                return (time.perf_counter() - begun) / len(calls)

            async def theirs(begin: str = begin, calls: Sequence[str] = tuple(calls.values())) -> float:
                begun = time.perf_counter()
                for call in calls:
                    await python("-c", f"{begin}print({call})")
                return (time.perf_counter() - begun) / len(calls)

            yield compare(figure, baseline, await side_by_side(rounds, ours, theirs), limit)


def has_cort(name: str) -> bool:
    """Whether the plugin of that tool is installed; nothing is imported."""
    from importlib.util import find_spec

    return find_spec(f"cort_{name}") is not None and sys.platform == "linux"
