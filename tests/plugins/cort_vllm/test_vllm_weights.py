"""Loads of weights: that they change what is sampled, and that none is believed without proof."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cort_framework as cort
from cort_framework.errors import EngineError

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

Make = Callable[..., Path]
SAMPLING = cort.Sampling(temperature=1.0, top_p=1.0, max_tokens=20, seed=1)


def test_reloaded_weights_change_the_policy_and_are_proven_with_tied_embeddings(
    engine: Any, live: Any, checkpoint: Make
) -> None:
    async def run() -> None:
        made, gaps = [], []
        for spread in (0.2, 0.3, 0.2):
            await engine.load_weights(cort.Weights(str(checkpoint(spread=spread))))
            gaps.append(engine.load_gap)
            made.append(await engine.generate([5, 6, 7], SAMPLING))
        assert made[0].logprobs != made[1].logprobs
        assert made[0].ids == made[2].ids
        assert max(gaps) < 2e-5

    live(run())


def test_the_head_that_vllm_leaves_stale_is_found_out_and_a_full_load_mends_it(
    engine: Any, live: Any, checkpoint: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("vLLM keeps a second copy of a tied head on a CPU alone")
    first, second = checkpoint(), checkpoint(spread=0.3)

    async def run() -> None:
        await engine.load_weights(cort.Weights(str(first)))

        async def plain(path: str) -> None:
            llm = engine._backend._llm
            await llm.pause_generation(mode="wait")
            await llm.collective_rpc("reload_weights", kwargs={"weights_path": path})
            await llm.resume_generation()

        with monkeypatch.context() as patch:
            patch.setattr(engine._backend, "load", plain)
            with pytest.raises(EngineError, match=r"is not what .* differ by up to .* over the tolerance"):
                await engine.load_weights(cort.Weights(str(second)))
        with pytest.raises(EngineError, match="no weights are in place"):
            await engine.generate([5], SAMPLING)
        await engine.load_weights(cort.Weights(str(second)))
        assert (await engine.generate([5], SAMPLING)).ids

    live(run())


def test_another_checkpoint_than_the_one_that_was_given_is_refused(
    engine: Any, live: Any, checkpoint: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        await engine.load_weights(cort.Weights(str(checkpoint())))
        load = engine._backend.load
        with monkeypatch.context() as patch:
            patch.setattr(engine._backend, "load", lambda path: load(str(checkpoint(spread=0.21))))
            with pytest.raises(EngineError, match=r"over the tolerance of 0\.0001 for float32"):
                await engine.load_weights(cort.Weights(str(checkpoint())))

    live(run())


def test_a_live_module_and_a_path_that_does_not_exist_are_refused_with_what_to_do(
    engine: Any, live: Any, tmp_path: Path
) -> None:
    with pytest.raises(cort.RequestError, match='placement = "disk"'):
        live(engine.load_weights(cort.Weights(module=object())))
    with pytest.raises(cort.RequestError, match="does not exist"):
        live(engine.load_weights(cort.Weights(str(tmp_path / "nothing"))))


def test_after_sleep_and_wake_the_same_weights_are_sampled_from(
    engine: Any, live: Any, checkpoint: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        await engine.load_weights(cort.Weights(str(checkpoint()), version=7))
        before = await engine.generate([5, 6, 7], SAMPLING)
        # where vLLM cannot give memory back it is not asked to; its scheduler sleeps everywhere
        monkeypatch.setattr(engine._backend._llm.model_config, "enable_sleep_mode", True)
        live_call = asyncio.create_task(engine.generate([5, 6, 7], SAMPLING.replace(max_tokens=200)))
        await asyncio.sleep(0)
        await engine.sleep()
        assert live_call.done()
        assert await engine._backend._llm.is_sleeping()
        await engine.wake()
        assert await engine.generate([5, 6, 7], SAMPLING) == before
        await engine.load_weights(cort.Weights(str(checkpoint(spread=0.3)), version=8))
        assert (await engine.generate([5, 6, 7], SAMPLING)).logprobs != before.logprobs

    live(run())
