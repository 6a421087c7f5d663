"""The engine over vLLM in processes of its own, with random models."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import cort_framework as cort
from cort_framework.errors import EngineError

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

Make = Callable[..., Path]
PROMPTS = [[5 + i, 40 + 7 * i, 90, 17 + i] * (1 + i % 3) for i in range(6)]


@pytest.fixture(autouse=True)
def weights(engine: Any, live: Any, checkpoint: Make) -> Path:
    """A model with tied embeddings is in place before every test."""
    folder = checkpoint()
    live(engine.load_weights(cort.Weights(str(folder), version=1)))
    return folder


def logprobs(folder: Path, ids: list[int], new: tuple[int, ...], temperature: float = 1.0) -> torch.Tensor:
    """The checkpoint's own, by one forward pass."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    whole = torch.tensor([[*ids, *new]])
    with torch.inference_mode():
        logits = model(whole).logits[0, len(ids) - 1 : -1]
    return torch.log_softmax(logits / temperature, -1).gather(-1, whole[0, len(ids) :, None])[:, 0]


def test_greedy_generations_are_those_of_the_engine_transformers(
    engine: Any, live: Any, weights: Path, tmp_path: Path
) -> None:
    from cort_transformers.engine import TransformersEngine

    greedy = cort.Sampling(temperature=0.0, top_p=1.0, max_tokens=60)

    async def both() -> list[list[cort.Generation]]:
        other = TransformersEngine(TransformersEngine.Config(threads=1))
        await other.open(cort.OpenContext(tmp_path))
        try:
            await other.load_weights(cort.Weights(str(weights), version=1))
            return [await asyncio.gather(*(e.generate(p, greedy) for p in PROMPTS)) for e in (engine, other)]
        finally:
            await other.close()

    for ours, theirs in zip(*live(both()), strict=True):
        assert (ours.ids, ours.stop, ours.weights_version) == (theirs.ids, theirs.stop, 1)
        assert max(abs(a - b) for a, b in zip(ours.logprobs, theirs.logprobs, strict=True)) < 1e-3


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
def test_sampled_logprobs_are_those_at_the_temperature(
    engine: Any, live: Any, weights: Path, temperature: float
) -> None:
    made = live(engine.generate(PROMPTS[0], cort.Sampling(temperature, 1.0, 40, seed=2)))
    own = logprobs(weights, PROMPTS[0], made.ids, temperature)
    assert (own - torch.tensor(made.logprobs)).abs().max() < 1e-4


def test_one_seed_gives_one_text_in_any_company_and_others_give_others(engine: Any, live: Any) -> None:
    async def run() -> None:
        calls = [engine.generate(PROMPTS[1], cort.Sampling(1.0, 1.0, 20, seed=s)) for s in range(8)]
        together = await asyncio.gather(*calls)
        alone = await engine.generate(PROMPTS[1], cort.Sampling(1.0, 1.0, 20, seed=3))
        assert alone.ids == together[3].ids
        assert len({made.ids for made in together}) == 8

    live(run())


def test_two_stretches_of_one_trajectory_do_not_share_their_noise(
    engine: Any, live: Any, checkpoint: Make
) -> None:
    async def run() -> None:
        flat = checkpoint(spread=1e-4)  # every token is as likely as any other, so the noise alone decides
        await engine.load_weights(cort.Weights(str(flat)))
        engine.tokenizer.eos_ids = frozenset()
        sampling = cort.Sampling(1.0, 1.0, 12, seed=1)
        first = await engine.generate(PROMPTS[0], sampling)
        second = await engine.generate([*PROMPTS[0], *first.ids], sampling)
        assert sum(a == b for a, b in zip(first.ids, second.ids, strict=True)) < 4

    live(run())


def test_the_token_that_crosses_a_stop_string_is_kept_whole_also_when_an_earlier_stretch_began_it(
    engine: Any, live: Any
) -> None:
    async def run() -> None:
        decode = engine.tokenizer.decode
        engine.tokenizer.eos_ids = frozenset()
        free = await engine.generate(PROMPTS[2], cort.Sampling(0.0, 1.0, 200))
        pieces = [decode([token]) for token in free.ids]
        at = next(
            n
            for n in range(3, len(pieces))
            if len(pieces[n]) > 1 and "\N{REPLACEMENT CHARACTER}" not in pieces[n - 1] + pieces[n]
        )
        stop = (pieces[at - 1][-1] + pieces[at][0], "never seen")
        whole = await engine.generate(PROMPTS[2], cort.Sampling(0.0, 1.0, 200, stop))
        assert whole.stop == "stop"
        assert whole.ids == free.ids[: len(whole.ids)]
        assert stop[0] in decode(whole.ids)
        assert stop[0] not in decode(whole.ids[:-1])

        begun = [*PROMPTS[2], *free.ids[:at]]
        end = await engine.generate(begun, cort.Sampling(0.0, 1.0, 50, stop))
        assert (end.ids, end.stop) == ((free.ids[at],), "stop")

    live(run())


def test_the_end_of_sequence_is_the_last_id(engine: Any, live: Any) -> None:
    async def run() -> None:
        calls = (engine.generate([5, 6], cort.Sampling(2.0, 1.0, 400, seed=s)) for s in range(12))
        ended = [made for made in await asyncio.gather(*calls) if made.stop == "eos"]
        assert ended
        for made in ended:
            assert made.ids[-1] in engine.tokenizer.eos_ids
            assert not engine.tokenizer.eos_ids & set(made.ids[:-1])

    live(run())


def test_the_context_ends_a_stretch_and_what_it_has_no_room_for_is_an_error(engine: Any, live: Any) -> None:
    async def run() -> None:
        made = await engine.generate([5] * 500, cort.Sampling(0.0, 1.0, 1000))
        assert made.stop in ("length", "eos")
        assert len(made.ids) <= 12
        assert (await engine.generate([5] * 511, cort.Sampling())).ids
        with pytest.raises(EngineError, match="cannot generate after 512 tokens: the model reads 1 to 511"):
            await engine.generate([5] * 512, cort.Sampling())

    live(run())


def test_cancelled_calls_leave_nothing_running(engine: Any, live: Any) -> None:
    async def run() -> None:
        engine.tokenizer.eos_ids = frozenset()
        calls = [
            asyncio.create_task(engine.generate([5, s], cort.Sampling(1.0, 1.0, 500, seed=s)))
            for s in range(8)
        ]
        await engine.generate([6], cort.Sampling(1.0, 1.0, 3))  # by now they are under way
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert all(call.cancelled() for call in calls)
        llm = engine._backend._llm
        assert llm.get_num_unfinished_requests() == 0
        assert await llm.reset_prefix_cache()  # refused while any request holds a block
        assert len((await engine.generate([6], cort.Sampling(1.0, 1.0, 3))).ids) == 3

    live(run())


def test_new_weights_wait_for_live_calls_and_calls_after_them_get_the_new_version(
    engine: Any, live: Any, checkpoint: Make
) -> None:
    async def run() -> None:
        sampling = cort.Sampling(1.0, 1.0, 60)
        before = [asyncio.create_task(engine.generate([7, s], sampling)) for s in range(6)]
        await asyncio.sleep(0)
        load = asyncio.create_task(engine.load_weights(cort.Weights(str(checkpoint(spread=0.3)), version=2)))
        await asyncio.sleep(0)
        after = asyncio.create_task(engine.generate([7, 0], sampling))
        assert [(await call).weights_version for call in before] == [1] * 6
        await load
        assert (await after).weights_version == 2

    live(run())
