"""What the doctor says of vLLM."""

from __future__ import annotations

from pathlib import Path

import pytest

from cort_framework import HealthContext

health = pytest.importorskip("cort_vllm.health")


def test_a_build_without_a_device_is_broken_and_one_that_leaves_a_gpu_idle_is_a_warning() -> None:
    assert health.here("0.31.0", "cuda", gpu=True).state == "good"
    assert health.here("0.31.0", "cpu", gpu=False).state == "good"
    assert health.here("0.31.0", "cpu", gpu=True).state == "warning"
    assert health.here("0.31.0", "", gpu=True).state == "broken"


def test_a_server_that_does_not_answer_is_broken() -> None:
    report = health.served("engine vllm", "http://127.0.0.1:1/v1")
    assert report.state == "broken" and "127.0.0.1:1" in report.detail and "vllm serve" in report.fix


@pytest.mark.vllm
def test_vllm_says_what_it_computes_on() -> None:
    (report,) = health.VllmCheck().check(HealthContext(Path("runs")))
    assert report.state != "broken" and "computes on" in report.detail
