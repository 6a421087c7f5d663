"""Killable workers: what tools and graders call that may hang or crash. The target here is Python's own ``eval``."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from python_sessions import descendants, wait_until_gone

from cort_framework import InfrastructureError
from cort_python.worker import WorkerDied, WorkerPool


def with_pool(
    tmp_path: Path, use: Callable[[WorkerPool], Awaitable[None]], target: str = "builtins:eval"
) -> None:
    async def run() -> None:
        pool = WorkerPool(target, tmp_path, timeout_s=1, size=2, memory_mb=300)
        try:
            await use(pool)
        finally:
            await pool.close()

    asyncio.run(run())


def test_a_worker_answers_again_after_a_hang_a_death_and_a_cancellation(tmp_path: Path) -> None:
    async def use(pool: WorkerPool) -> None:
        assert await pool.call("1 + 1") == 2
        with pytest.raises(TimeoutError):
            await pool.call("__import__('time').sleep(60)")
        with pytest.raises(WorkerDied, match="exit code 3"):
            await pool.call("__import__('os')._exit(3)")
        with pytest.raises(WorkerDied, match="exit code 1"):
            await pool.call("len(bytearray(10**9))")
        with pytest.raises(WorkerDied, match="SIGSEGV"):
            await pool.call("__import__('ctypes').string_at(0)")
        call = asyncio.ensure_future(pool.call("__import__('time').sleep(60)"))
        await asyncio.sleep(0.05)
        call.cancel()
        await asyncio.wait([call])
        assert await pool.call("print('noise') or [1, {'a': None}]") == [1, {"a": None}]

    with_pool(tmp_path, use)


def test_many_calls_share_few_workers_and_each_has_its_own_answer(tmp_path: Path) -> None:
    async def use(pool: WorkerPool) -> None:
        assert await asyncio.gather(*(pool.call(f"{i} * {i}") for i in range(100))) == [
            i * i for i in range(100)
        ]

    with_pool(tmp_path, use)


def test_a_target_that_cannot_be_imported_is_the_machinerys_fault(tmp_path: Path) -> None:
    async def use(pool: WorkerPool) -> None:
        with pytest.raises(InfrastructureError, match="No module named 'no_such'"):
            await pool.call(1)

    with_pool(tmp_path, use, target="no_such:thing")


OWNER = """
import asyncio
from pathlib import Path
from cort_python.worker import WorkerPool

async def main():
    pool = WorkerPool("builtins:eval", Path("."), timeout_s=60)
    await pool.call("1")
    print("started", flush=True)
    await pool.call("__import__('time').sleep(60)")

asyncio.run(main())
"""


def test_when_the_owner_is_killed_its_workers_go(tmp_path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert owner.stdout is not None and owner.stdout.readline() == "started\n"
    left = descendants(owner.pid)
    assert left
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert wait_until_gone(left) == []
