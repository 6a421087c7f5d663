"""What vLLM takes, by its settings."""

from __future__ import annotations

from typing import Any

import pytest

from cort_framework.machine.footprint import Architecture, Device, Work

pytestmark = pytest.mark.vllm

SHAPE = Architecture(2, 64, 128, 4, 2, 16, 1000, 4096, tied=True, dtype="bfloat16")
GPU = Device("GPU", 1 << 30, gpu=True)


def needs(work: Work, **config: Any) -> dict[str, int]:
    from cort_vllm.engine import VllmEngine

    found = VllmEngine(VllmEngine.Config(**config)).footprint(work)
    assert found is not None
    return {need.what: need.bytes for need in found.memory}


def test_weights_and_cache_fill_the_share_that_was_given() -> None:
    found = needs(Work(SHAPE, GPU, longest=1000), gpu_memory_utilization=0.5)
    assert found["weights"] == 2 * SHAPE.parameters
    assert sum(found.values()) == 1 << 29
    assert needs(Work(SHAPE, GPU, longest=1000), tensor_parallel=2)["weights"] == SHAPE.parameters


def test_one_trajectory_has_to_fit_whatever_the_share() -> None:
    small = Device("GPU", 2 * SHAPE.parameters, gpu=True)
    token = 2 * 2 * 2 * 16 * 2
    assert needs(Work(SHAPE, small, longest=1000))["keys and values"] == 1000 * token
    assert needs(Work(SHAPE, GPU, longest=9), kv_cache_gb=0.25)["keys and values"] == 1 << 28


def test_on_a_processor_copies_lie_side_by_side_and_the_proof_reads_the_weights_again() -> None:
    memory = Device("memory", 1 << 34)
    found = needs(Work(SHAPE, memory, longest=1000), data_parallel=2, kv_cache_gb=1)
    assert found["weights"] == 2 * 2 * SHAPE.parameters and found["keys and values"] == 2 << 30
    assert found["weights for the proof"] == 4 * SHAPE.parameters


def test_a_server_takes_nothing_here_and_what_is_not_known_is_left_out() -> None:
    assert set(needs(Work(SHAPE, GPU, longest=9), url="http://localhost:1")) == {"weights for the proof"}
    assert needs(Work(None, GPU, longest=9)) == {}
