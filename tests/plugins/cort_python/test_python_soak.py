"""Many sessions with kills and cancellations: nothing is left, lost or mixed up."""

from __future__ import annotations

import asyncio

import pytest

from cort_python.bench.soak import Soak, soak


def check(report: Soak) -> None:
    assert report.faults == []
    assert report.kills and report.cancellations and report.deaths and report.timeouts


def test_forty_sessions_leave_nothing_and_mix_nothing_up() -> None:
    check(asyncio.run(soak(40)))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_calls_over_two_thousand_sessions_leave_nothing_and_mix_nothing_up() -> None:
    report = asyncio.run(soak(2000))
    check(report)
    assert report.calls == 10_000
