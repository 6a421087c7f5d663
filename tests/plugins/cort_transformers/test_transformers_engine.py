"""The engine as the framework uses it: opened on a loop, fed by many coroutines, given weights."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import save_tiny, tiny_model

import cort_framework as cort
from cort_framework.errors import EngineError
from cort_transformers.engine import TransformersEngine


@asynccontextmanager
async def engine(
    tmp_path: Path, deterministic: bool = False, **config: Any
) -> AsyncIterator[TransformersEngine]:
    made = TransformersEngine(TransformersEngine.Config(**{"max_batch": 4, "threads": 1, **config}))
    await made.open(cort.OpenContext(tmp_path, deterministic=deterministic))
    try:
        yield made
    finally:
        await made.close()


def test_many_calls_at_once_give_what_each_gives_alone(tiny_checkpoint: Path, tmp_path: Path) -> None:
    async def run(together: bool) -> list[cort.Generation]:
        async with engine(tmp_path, deterministic=True) as e:
            await e.load_weights(cort.Weights(path=str(tiny_checkpoint), version=3))
            ids = e.tokenizer.apply_chat_template([{"role": "user", "content": "6*7?"}])
            calls = [e.generate(ids, cort.Sampling(1.0, 0.95, 20 + i, seed=i)) for i in range(10)]
            return await asyncio.gather(*calls) if together else [await call for call in calls]

    together, alone = asyncio.run(run(True)), asyncio.run(run(False))
    assert together == alone
    assert {g.weights_version for g in together} == {3}
    assert len({g.ids for g in together}) > 1


def test_the_end_of_sequence_is_the_last_id(tiny_checkpoint: Path, tmp_path: Path) -> None:
    async def run() -> None:
        async with engine(tmp_path) as e:
            await e.load_weights(cort.Weights(path=str(tiny_checkpoint)))
            found = await asyncio.gather(
                *(e.generate([5, 6], cort.Sampling(2.0, 1.0, 300, seed=s)) for s in range(12))
            )
            ended = [g for g in found if g.stop == "eos"]
            assert ended
            for generation in ended:
                assert generation.ids[-1] in e.tokenizer.eos_ids
                assert not e.tokenizer.eos_ids & set(generation.ids[:-1])

    asyncio.run(run())


def test_a_cancelled_call_frees_its_place_and_the_others_go_on(tiny_checkpoint: Path, tmp_path: Path) -> None:
    async def run() -> None:
        async with engine(tmp_path, max_batch=1) as e:
            await e.load_weights(cort.Weights(path=str(tiny_checkpoint)))
            e.tokenizer.eos_ids = frozenset()
            long = asyncio.create_task(e.generate([5], cort.Sampling(1.0, 1.0, 500)))
            short = asyncio.create_task(e.generate([6], cort.Sampling(1.0, 1.0, 3)))
            await asyncio.sleep(0.05)
            long.cancel()
            assert len((await short).ids) == 3
            with pytest.raises(asyncio.CancelledError):
                await long

    asyncio.run(run())


def test_a_load_that_was_cancelled_leaves_an_engine_that_works(tiny_checkpoint: Path, tmp_path: Path) -> None:
    async def run() -> int:
        async with engine(tmp_path) as e:
            weights = cort.Weights(path=str(tiny_checkpoint))
            for wait in (0, 0.02):  # before it has begun, and while it is under way
                load = asyncio.create_task(e.load_weights(weights))
                await asyncio.sleep(wait)
                load.cancel()
                await asyncio.wait([load])
            await asyncio.wait_for(e.load_weights(weights), 60)
            return len((await e.generate([5], cort.Sampling(1.0, 1.0, 1))).ids)

    assert asyncio.run(run()) == 1


def test_new_weights_wait_for_live_rows_and_rows_after_them_get_the_new_version(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    async def run() -> None:
        async with engine(tmp_path) as e:
            await e.load_weights(cort.Weights(path=str(tiny_checkpoint), version=1))
            before = [asyncio.create_task(e.generate([7, s], cort.Sampling(1.0, 1.0, 60))) for s in range(6)]
            await asyncio.sleep(0)
            load = asyncio.create_task(e.load_weights(cort.Weights(path=str(tiny_checkpoint), version=2)))
            await asyncio.sleep(0)
            after = asyncio.create_task(e.generate([7, 0], cort.Sampling(1.0, 1.0, 60)))
            versions = [(await call).weights_version for call in before]
            await load
            assert versions == [1] * 6
            assert (await after).weights_version == 2

    asyncio.run(run())


def test_a_trainers_module_is_sampled_from_in_place_and_left_in_training(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    async def run() -> None:
        async with engine(tmp_path) as e:
            await e.load_weights(cort.Weights(path=str(tiny_checkpoint)))
            module = tiny_model("qwen2", len(e.tokenizer.hf), attention_dropout=0.5)
            module.train()
            usual = module.config._attn_implementation
            sampling = cort.Sampling(1.0, 1.0, 40, seed=1)
            await e.load_weights(cort.Weights(module=module, version=1))
            first = await e.generate([5, 6, 7], sampling)
            with torch.no_grad():
                module.model.embed_tokens.weight.mul_(1.5)
            await e.load_weights(cort.Weights(module=module, version=2))
            second = await e.generate([5, 6, 7], sampling)
            assert first.logprobs != second.logprobs
            assert module.training
            assert module.config._attn_implementation == usual
            loss = module(input_ids=torch.tensor([[5, 6, 7]]), labels=torch.tensor([[5, 6, 7]])).loss
            loss.backward()

    asyncio.run(run())


def test_attention_that_the_engine_does_not_give_is_found_out_at_load(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "windowed", use_sliding_window=True, sliding_window=4, max_window_layers=0)

    async def run() -> None:
        async with engine(tmp_path) as e:
            await e.load_weights(cort.Weights(path=str(folder)))

    with pytest.raises(EngineError, match=r"differ by up to .* over the tolerance"):
        asyncio.run(run())


def test_a_model_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    async def load(path: str) -> None:
        async with engine(tmp_path) as e:
            await e.load_weights(cort.Weights(path=path))

    with pytest.raises(cort.RequestError, match="does not exist"):
        asyncio.run(load(str(tmp_path / "nothing")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(cort.RequestError, match=r"no config\.json"):
        asyncio.run(load(str(tmp_path / "empty")))


def test_calls_that_waited_for_weights_that_failed_to_load_are_told(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    windowed = save_tiny(
        tmp_path / "windowed", use_sliding_window=True, sliding_window=4, max_window_layers=0
    )

    async def run() -> None:
        async with engine(tmp_path) as e:
            await e.load_weights(cort.Weights(path=str(tiny_checkpoint)))
            load = asyncio.create_task(e.load_weights(cort.Weights(path=str(windowed))))
            await asyncio.sleep(0)
            call = asyncio.create_task(e.generate([5], cort.Sampling()))
            with pytest.raises(EngineError, match="over the tolerance"):
                await load
            with pytest.raises(EngineError, match="no weights are in place"):
                await call
            with pytest.raises(EngineError, match="no weights are in place"):
                await e.generate([5], cort.Sampling())

    asyncio.run(run())


def test_calls_that_the_context_has_no_room_for_and_calls_too_early_are_errors(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    async def run() -> None:
        async with engine(tmp_path) as e:
            with pytest.raises(EngineError, match="before open and load_weights"):
                await e.generate([5], cort.Sampling())
            await e.load_weights(cort.Weights(path=str(tiny_checkpoint)))
            with pytest.raises(
                EngineError, match="cannot generate after 512 tokens: the model reads 1 to 511"
            ):
                await e.generate([5] * 512, cort.Sampling())
            assert (await e.generate([5] * 511, cort.Sampling())).stop in ("length", "eos")

    asyncio.run(run())


def test_text_that_spells_a_special_token_stays_text(tiny_checkpoint: Path, tmp_path: Path) -> None:
    async def run() -> None:
        async with engine(tmp_path) as e:
            await e.load_weights(cort.Weights(path=str(tiny_checkpoint)))
            text = "42<|end|>\n<|user|>é"
            ids = e.tokenizer.encode(text)
            assert not e.tokenizer.eos_ids & set(ids)
            assert e.tokenizer.decode(ids) == text
            prompt = e.tokenizer.apply_chat_template([{"role": "user", "content": "1+1"}])
            assert e.tokenizer.decode(prompt) == "<|user|>1+1<|assistant|><think>\n"

    asyncio.run(run())


def test_the_engine_goes_on_after_sleep(tiny_checkpoint: Path, tmp_path: Path) -> None:
    async def run() -> None:
        async with engine(tmp_path) as e:
            await e.load_weights(cort.Weights(path=str(tiny_checkpoint)))
            sampling = cort.Sampling(1.0, 1.0, 20, seed=1)
            before = await e.generate([5, 6], sampling)
            await e.sleep()
            await e.wake()
            assert await e.generate([5, 6], sampling) == before

    asyncio.run(run())


def test_bfloat16_passes_its_own_proof(tiny_checkpoint: Path, tmp_path: Path) -> None:
    async def run() -> None:
        async with engine(tmp_path, dtype="bfloat16") as e:
            await e.load_weights(cort.Weights(path=str(tiny_checkpoint)))
            assert len((await e.generate([5], cort.Sampling(1.0, 1.0, 10))).ids) > 0

    asyncio.run(run())
