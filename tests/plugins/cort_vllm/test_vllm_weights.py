"""Loads of weights: that they change what is sampled, and that none is believed without proof."""

from __future__ import annotations

import asyncio
import shutil
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


def live_module(folder: Path) -> Any:
    """As a trainer holds it."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("tied", [True, False])
def test_a_trainers_live_weights_are_sent_to_vllm_and_sampled_as_from_a_folder(
    engine: Any, live: Any, checkpoint: Make, tmp_path: Path, tied: bool
) -> None:
    import torch

    began, folder = checkpoint(tie_word_embeddings=tied), tmp_path / "policy"
    shutil.copytree(began, folder)  # with the tokenizer
    policy = live_module(began)
    greedy = SAMPLING.replace(temperature=0.0, max_tokens=40)

    async def run() -> None:
        await engine.load_weights(cort.Weights(str(began)))
        noise, before = torch.Generator().manual_seed(0), await engine.generate([5, 6, 7], greedy)
        for version in (1, 2):
            with torch.no_grad():  # an update of every weight
                for weight in policy.parameters():
                    weight.mul_(1 + 0.2 * torch.rand(weight.shape, generator=noise))
            live_call = asyncio.create_task(engine.generate([5, 6, 7], greedy))
            await asyncio.sleep(0)
            await engine.load_weights(cort.Weights(str(began), policy, version))
            assert 0 < engine.load_gap < 2e-5
            sent = await engine.generate([5, 6, 7], greedy)
            assert await live_call == before  # it was waited for
            assert sent.weights_version == version and sent.logprobs != before.logprobs
            before = sent
        policy.save_pretrained(folder)
        await engine.load_weights(cort.Weights(str(folder), version=2))
        read = await engine.generate([5, 6, 7], greedy)
        assert (read.ids, read.stop) == (sent.ids, sent.stop)
        assert read.logprobs == pytest.approx(sent.logprobs, abs=1e-6)

    live(run())


def test_workers_that_fail_to_take_the_weights_are_an_error_at_once_and_the_next_load_starts_afresh(
    engine: Any, live: Any, checkpoint: Make
) -> None:
    import torch

    folder = checkpoint()
    tensors = {name: torch.zeros(4) for name in ("model.norm.weight", "model.nothing.weight", "lm_head.more")}

    async def run() -> None:
        await engine.load_weights(cort.Weights(str(folder)))
        with pytest.raises(EngineError, match="did not take the trainer's weights"):
            await engine._backend.send(str(folder), tensors, 2)
        await engine.load_weights(cort.Weights(str(folder), live_module(folder), version=3))
        assert (await engine.generate([5], SAMPLING)).weights_version == 3

    live(run())


def test_a_live_module_without_its_checkpoint_and_a_path_that_does_not_exist_are_refused(
    engine: Any, live: Any, tmp_path: Path
) -> None:
    with pytest.raises(cort.RequestError, match="brings no tokenizer"):
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
