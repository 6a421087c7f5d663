"""One deadline for many things, and a fault that is said to be whose it is."""

from __future__ import annotations

import asyncio

import pytest

from cort_framework.cli.bench.clock import run
from cort_framework.errors import DeadlineExceeded
from cort_framework.guards.calls import Patience, deadline


def test_a_thing_that_takes_too_long_is_ended_and_named_and_those_before_and_after_are_not() -> None:
    async def things() -> list[str]:
        done = []
        with Patience(10, lambda: f"thing {len(done)}") as patience:
            for seconds in (1, 9.9, 9.9, 11, 9.9):
                try:
                    async with patience:
                        await asyncio.sleep(seconds)
                        done.append("ok")
                except DeadlineExceeded as error:
                    done.append(error.message)
        return done

    assert run(things(), wall=False) == ["ok", "ok", "ok", "thing 3 did not end within 10 s", "ok"]


def test_patience_takes_one_timer_however_many_things_there_are() -> None:
    async def timers() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        with Patience(3600, lambda: "it") as patience:
            for _ in range(50):
                async with patience:
                    await asyncio.sleep(0)
            during = len(loop._scheduled)  # type: ignore[attr-defined]
        return during, sum(not timer.cancelled() for timer in loop._scheduled)  # type: ignore[attr-defined]

    assert run(timers(), wall=False) == (1, 0)


def test_a_limit_around_it_and_a_task_that_is_cancelled_are_not_mistaken_for_its_own() -> None:
    async def outer() -> str:
        with Patience(10, lambda: "inner") as patience:
            try:
                async with deadline(5, "outer"), patience:
                    await asyncio.sleep(20)
            except DeadlineExceeded as error:
                return error.message
        return "none"

    async def cancelled() -> bool:
        async def work() -> None:
            with Patience(10, lambda: "it") as patience:
                async with patience:
                    await asyncio.sleep(20)

        task = asyncio.create_task(work())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return task.cancelled()

    async def inner_timeout() -> None:
        with Patience(10, lambda: "it") as patience:
            async with patience:
                raise TimeoutError("the engine's own")

    assert run(outer(), wall=False) == "outer did not end within 5 s"
    assert run(cancelled(), wall=False)
    with pytest.raises(TimeoutError, match="the engine's own"):
        run(inner_timeout(), wall=False)
