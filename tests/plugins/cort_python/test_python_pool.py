"""The pool: who gets a kernel, when, and that none is lost or used twice. The kernels here are real."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from python_sessions import TASK, opened
from unprivileged import run_as_ordinary_user

from cort_framework import InfrastructureError, Outcome, ToolCall
from cort_python.pool import Pool
from cort_python.processes import Backend, ForkBackend, Kernel
from cort_python.tool import PythonTool


def with_tool(scratch: Path, use: Callable[[PythonTool], Awaitable[None]], **config: object) -> None:
    async def run() -> None:
        async with opened(scratch, **config) as tool:
            await use(tool)

    asyncio.run(run())


async def ready(pool: Pool, count: int) -> None:
    async with asyncio.timeout(30):
        while len(pool._ready) < count or pool._starting:
            await asyncio.sleep(0.01)


def test_a_spare_is_given_and_made_up_for_and_nobody_gets_a_used_kernel(tmp_path: Path) -> None:
    async def use(tool: PythonTool) -> None:
        pids = set()
        for number in range(4):
            async with tool.session(TASK, trajectory_id=str(number), seed=0) as session:
                spares = list(tool.pool._ready)
                result = await session.call(ToolCall("python", "import os\n'x' in dir(), os.getpid()"))
                assert result.text.startswith("(False")
                assert not spares or session.kernel is spares[0]
                pids.add(result.text)
            await ready(tool.pool, 2)
        assert len(pids) == 4 and tool.pool._live == 2

    with_tool(tmp_path, use, spares=2)


def test_a_spare_that_has_died_is_not_given(tmp_path: Path) -> None:
    async def use(tool: PythonTool) -> None:
        async with tool.session(TASK, trajectory_id="a", seed=0) as session:
            await session.call(ToolCall("python", "1"))
        await ready(tool.pool, 2)
        for kernel in tool.pool._ready:
            kernel.kill()
            await asyncio.wait([kernel.exited])
        async with tool.session(TASK, trajectory_id="b", seed=0) as session:
            assert (await session.call(ToolCall("python", "1"))).text == "1"

    with_tool(tmp_path, use, spares=2)


def test_who_waits_too_long_for_a_place_is_told_what_to_change(tmp_path: Path) -> None:
    async def use(tool: PythonTool) -> None:
        async with (
            tool.session(TASK, trajectory_id="a", seed=0) as first,
            tool.session(TASK, trajectory_id="b", seed=0) as second,
        ):
            await first.call(ToolCall("python", "1"))
            with pytest.raises(InfrastructureError, match=r"within 0\.3 s\nhint: raise max_kernels"):
                await second.call(ToolCall("python", "1"))
            first.end()
            assert (await second.call(ToolCall("python", "1"))).text == "1"

    with_tool(tmp_path, use, max_kernels=1, start_timeout_s=0.3)


def test_places_are_given_in_the_order_in_which_they_were_asked_for(tmp_path: Path) -> None:
    async def use(tool: PythonTool) -> None:
        order: list[int] = []

        async def one(number: int) -> None:
            await asyncio.sleep(number / 100)
            async with tool.session(TASK, trajectory_id=str(number), seed=0) as session:
                await session.call(ToolCall("python", "1"))
                order.append(number)

        await asyncio.gather(*map(one, range(6)))
        assert order == sorted(order)

    with_tool(tmp_path, use, max_kernels=1)


def test_many_who_wait_and_give_up_take_no_place_with_them(tmp_path: Path) -> None:
    async def use(tool: PythonTool) -> None:
        for delay in (0.0, 0.001, 0.005, 0.02, 0.05):
            waiting = [asyncio.ensure_future(tool.pool.acquire()) for _ in range(4)]
            await asyncio.sleep(delay)
            for waiter in waiting:
                waiter.cancel()
            await asyncio.wait(waiting)
            for waiter in waiting:
                if not waiter.cancelled():
                    tool.pool.release(waiter.result())
        kernels = [await tool.pool.acquire() for _ in range(3)]
        assert len({id(kernel) for kernel in kernels}) == 3
        await asyncio.gather(*map(tool.pool.release, kernels))

    with_tool(tmp_path, use, max_kernels=3, spares=0)


def test_where_no_kernel_can_start_each_waiter_is_told_why_and_the_pool_tries_again_when_asked() -> None:
    class Broken(Backend):
        tries = 0

        async def start(self) -> Kernel:
            self.tries += 1
            error = InfrastructureError(f"try {self.tries}")
            await asyncio.sleep(0)
            raise error

        async def close(self) -> None: ...

    async def run() -> None:
        backend = Broken()
        pool = Pool(backend, cap=4, spares=2, starts=2)
        told = await asyncio.gather(*(pool.acquire() for _ in range(3)), return_exceptions=True)
        assert sorted(str(error) for error in told) == ["try 1", "try 2", "try 3"]
        await asyncio.sleep(0.1)
        assert backend.tries <= 5  # and not without end, for the sake of a spare
        with pytest.raises(InfrastructureError):
            await pool.acquire()
        await pool.close()

    asyncio.run(run())


def test_a_closed_pool_has_ended_its_spares_and_those_that_were_starting(tmp_path: Path) -> None:
    async def use(tool: PythonTool) -> None:
        kernel = await tool.pool.acquire()
        await asyncio.sleep(0.06)  # the spares are on their way
        tool.pool.release(kernel)
        await tool.pool.close()
        assert isinstance(tool.pool.backend, ForkBackend)
        assert tool.pool.backend.template._kernels == {}
        assert list(tool.pool.backend.template.folder.glob("[0-9]*")) == []

    with_tool(tmp_path, use, spares=3, preload=["colorsys"])


def test_two_hundred_calls_of_many_sessions_at_once_each_have_their_own_answer(tmp_path: Path) -> None:
    async def use(tool: PythonTool) -> None:
        async def one(name: str) -> list[str]:
            async with tool.session(TASK, trajectory_id=name, seed=0) as session:
                await session.call(ToolCall("python", f"seen = ['{name}']\nopen('own', 'w').write('{name}')"))
                for step in range(9):
                    code = f"seen.append({step})\nprint(seen[0], len(seen), open('own').read())"
                    result = await session.call(ToolCall("python", code))
                    assert (result.outcome, result.text) == (Outcome.OK, f"{name} {step + 2} {name}")
            return []

        await asyncio.gather(*(one(f"s{number}") for number in range(20)))

    with_tool(tmp_path, use, max_kernels=12)


AS_ANYBODY = """
import asyncio
from cort_python.bench.faith import repetition
from cort_python.bench.soak import soak

async def main():
    print(*(await soak(8)).faults, *[row.met async for row in repetition()])

asyncio.run(main())
"""


@pytest.mark.slow
def test_all_of_it_works_for_an_ordinary_user() -> None:
    assert run_as_ordinary_user(AS_ANYBODY).strip() == "True"
