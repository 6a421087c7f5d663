"""Many sessions with kills and cancellations: nothing is left, lost or mixed up."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path

import pytest
from python_sessions import TASK, opened

from cort_framework import ToolCall
from cort_python.bench.soak import Soak, soak


def check(report: Soak) -> None:
    assert report.faults == []
    assert report.kills and report.cancellations and report.deaths and report.timeouts


@pytest.mark.slow
def test_forty_sessions_leave_nothing_and_mix_nothing_up() -> None:
    check(asyncio.run(soak(40)))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_calls_over_two_thousand_sessions_leave_nothing_and_mix_nothing_up() -> None:
    report = asyncio.run(soak(2000))
    check(report)
    assert report.calls == 10_000


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_hundred_kernels_live_at_once_with_few_files_allowed_and_none_hears_another(
    tmp_path: Path,
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))

    async def run() -> list[str]:
        async with opened(tmp_path, max_kernels=300, start_timeout_s=600) as tool:
            everyone = asyncio.Barrier(300)

            async def one(name: str) -> str:
                async with tool.session(TASK, trajectory_id=name, seed=0) as session:
                    await session.call(ToolCall("python", f"name = {name!r}"))
                    await everyone.wait()
                    return (await session.call(ToolCall("python", "print(name)"))).text

            return await asyncio.gather(*(one(str(number)) for number in range(300)))

    try:
        assert asyncio.run(run()) == [str(number) for number in range(300)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
