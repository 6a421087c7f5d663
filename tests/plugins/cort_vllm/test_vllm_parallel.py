"""Tensor and data parallel sizes, from the recipe to vLLM's processes, in a process that a launcher started."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

import cort_framework as cort
from cort_framework.errors import EngineError

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

LAUNCHED = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "9",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "TORCHELASTIC_RESTART_COUNT": "0",
    "TORCHELASTIC_RUN_ID": "none",
}


def planned(*settings: str) -> Any:
    """The engine of the main recipe, as a user's ``--set`` makes it."""
    recipe = cort.load_recipe(
        "cort_math", "vllm", [f"engines.vllm.{s}" for s in (*settings, "kv_cache_gb=0.1")]
    )
    return cort.make_plan(recipe).engines["vllm"].build()


@pytest.mark.parametrize("size", ["tensor_parallel", "data_parallel"])
def test_two_processes_with_halves_or_copies_of_the_weights_sample_what_one_samples(
    engine: Any, live: Any, checkpoint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    from transformers import AutoModelForCausalLM

    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    cores = sorted(os.sched_getaffinity(0))
    monkeypatch.setenv(
        "VLLM_CPU_OMP_THREADS_BIND", f"{cores[0]}|{cores[-1]}"
    )  # for want of a second NUMA node
    other = planned(f"{size}=2")

    async def run() -> None:
        await other.open(cort.OpenContext(tmp_path))
        try:
            began = str(checkpoint(spread=0.2))
            sent = AutoModelForCausalLM.from_pretrained(checkpoint(spread=0.25))
            for version, weights in enumerate(
                (
                    cort.Weights(began),
                    cort.Weights(str(checkpoint(spread=0.3)), version=1),
                    cort.Weights(began, sent, version=2),
                )
            ):
                made = []
                for e in (engine, other):
                    await e.load_weights(weights)
                    calls = (e.generate([5, 6, s], cort.Sampling(0.0, 1.0, 30)) for s in range(8))
                    made.append(await asyncio.gather(*calls))
                assert 0 < other.load_gap < 1e-4
                for ours, theirs in zip(*made, strict=True):
                    assert (ours.ids, ours.weights_version) == (theirs.ids, version)
                    gaps = (abs(a - b) for a, b in zip(ours.logprobs, theirs.logprobs, strict=True))
                    assert max(gaps) < 1e-4
        finally:
            await other.close()

    live(run())


def test_every_copy_of_the_weights_is_proven(
    engine: Any, live: Any, checkpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    live(engine.load_weights(cort.Weights(str(checkpoint()))))
    asked: list[int | None] = []
    sample = engine._sample

    async def second_is_stale(
        backend: Any, ids: Any, sampling: Any, eos: Any, version: int, copy: Any
    ) -> Any:
        asked.append(copy)
        made = await sample(backend, ids, sampling, eos, version, 0)
        return (
            made if copy == 0 else cort.Generation(made.ids, tuple(p - 0.01 for p in made.logprobs), "length")
        )

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_sample", second_is_stale)
        patch.setattr(engine._backend, "copies", 2)
        with pytest.raises(EngineError, match=r"differ by up to 0\.01 nats"):
            live(engine.load_weights(cort.Weights(str(checkpoint()))))
    assert asked == [0, 1]


def test_a_size_that_the_model_does_not_allow_is_a_clear_error(
    live: Any, checkpoint: Any, tmp_path: Path
) -> None:
    other = planned("tensor_parallel=3")
    live(other.open(cort.OpenContext(tmp_path)))
    with pytest.raises(EngineError, match=r"vLLM did not start .* divisible by tensor parallel size \(3\)"):
        live(other.load_weights(cort.Weights(str(checkpoint()))))
    live(other.close())


def test_vllms_processes_begin_with_gpus_of_their_own_and_without_a_launchers_rank(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from cort_vllm.backends import _environment

    for name, value in {**LAUNCHED, "CUDA_VISIBLE_DEVICES": "0"}.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with _environment("1,2"):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1,2"
        assert not LAUNCHED.keys() & os.environ.keys()
    assert dict(os.environ) == before
