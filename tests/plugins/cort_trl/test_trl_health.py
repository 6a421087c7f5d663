"""What the doctor says of processes that are to train together. Each test starts two, which takes torch's import twice."""

from __future__ import annotations

import pytest

from cort_framework.recipe.settings import LaunchSettings
from cort_trl.health import meet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_two_processes_meet() -> None:
    report = meet(LaunchSettings(processes=2))
    assert report.state == "good" and report.detail.startswith("met 2 processes through ")


def test_processes_that_cannot_reach_each_other_are_broken_with_what_they_said() -> None:
    report = meet(LaunchSettings(processes=2, environment={"GLOO_SOCKET_IFNAME": "nowhere0"}))
    assert report.state == "broken" and "nowhere0" in report.detail and report.fix


def test_processes_that_wait_for_ever_are_ended_and_broken() -> None:
    report = meet(LaunchSettings(processes=2), seconds=0.5)
    assert report.state == "broken" and "did not meet within 0.5 s" in report.detail
