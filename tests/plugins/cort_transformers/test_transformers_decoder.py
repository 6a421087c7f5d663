"""The decode loop: what a row gets does not depend on when, where and with whom it is decoded."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_model

from cort_framework import Generation, Sampling
from cort_framework.errors import EngineError
from cort_transformers.decoder import Decoder, Row
from cort_transformers.loading import load_model, load_tokenizer
from cort_transformers.proof import check_reproducible, largest_gap
from cort_transformers.tokenizer import HuggingFaceTokenizer, StopWatch

VOCABULARY = 300


class NoTokenizer:
    eos_ids = frozenset({1})


def make_decoder(model: object, max_batch: int = 8, keep_bytes: int = 1 << 24) -> Decoder:
    return Decoder(model, StopWatch(NoTokenizer()), max_batch=max_batch, keep_bytes=keep_bytes)  # type: ignore[arg-type]


def job(seed: int, longest: int = 300, **sampling: object) -> Row:
    noise = random.Random(seed)
    ids = [noise.randrange(2, VOCABULARY) for _ in range(noise.randrange(1, longest))]
    values = {
        "temperature": 1.0,
        "top_p": 1.0 if seed % 2 else 0.9,
        "max_tokens": noise.randrange(1, 40),
        "seed": seed,
    }
    return Row(ids, Sampling(**{**values, **sampling}), frozenset({1}))  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def model(request: pytest.FixtureRequest) -> object:
    torch.set_num_threads(1)
    return tiny_model(request.param, VOCABULARY)


def plain_logprobs(model: object, row: Row, temperature: float = 1.0) -> torch.Tensor:
    ids = torch.tensor([row.ids])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, row.prompt - 1 : -1]  # type: ignore[operator]
    return torch.log_softmax(logits / temperature, -1).gather(-1, ids[0, row.prompt :, None])[:, 0]


def test_sampled_logprobs_are_those_of_a_plain_forward_pass(model: object) -> None:
    rows = [job(seed, temperature=0.7) for seed in range(20)]
    make_decoder(model).run(rows)
    for row in rows:
        assert row.generation is not None
        gap = (plain_logprobs(model, row, 0.7) - torch.tensor(row.generation.logprobs)).abs().max()
        assert gap < 1e-5


def test_greedy_decoding_is_transformers_own(model: object) -> None:
    row = job(3, temperature=0.0, max_tokens=30)
    (ours,) = make_decoder(model).run([row])
    ids = torch.tensor([row.ids[: row.prompt]])
    theirs = model.generate(ids, do_sample=False, max_new_tokens=30, attention_mask=torch.ones_like(ids))  # type: ignore[attr-defined]
    assert list(ours.ids) == theirs[0, row.prompt :].tolist()


@cache
def alone() -> dict[int, Generation]:
    model = tiny_model("qwen2", VOCABULARY)
    return {seed: make_decoder(model, 1, 0).run([job(seed)])[0] for seed in range(8)}


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1, 3, 8, 32]), st.sampled_from([0, 1 << 24]))
def test_a_row_is_the_same_bit_for_bit_in_any_company_and_order(
    order: int, max_batch: int, keep_bytes: int
) -> None:
    model, noise = tiny_model("qwen2", VOCABULARY), random.Random(order)
    reference = alone()
    decoder = make_decoder(model, max_batch, keep_bytes)
    rows = {seed: job(seed) for seed in range(24)}
    waiting = list(rows.values())
    noise.shuffle(waiting)
    while waiting or not decoder.idle:
        for _ in range(noise.randrange(4)):
            if waiting:
                decoder.submit(waiting.pop())
        decoder.step()
    for seed, generation in reference.items():
        assert rows[seed].generation == generation


def test_the_machine_passes_the_check_of_reproducibility(model: object) -> None:
    decoder = make_decoder(model, 16)
    check_reproducible(decoder)
    assert largest_gap(decoder) < 1e-5


def test_a_fixed_width_gives_the_same_tokens() -> None:
    model = tiny_model("qwen2", VOCABULARY)
    decoder = make_decoder(model)
    decoder.width = 32
    for seed in range(4):
        free, fixed = make_decoder(model).run([job(seed)])[0], decoder.run([job(seed)])[0]
        assert free.ids == fixed.ids


@settings(max_examples=5, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.sampled_from([0, 1 << 24]))
def test_generating_in_stretches_gives_what_one_stretch_gives(stretches: list[int], keep_bytes: int) -> None:
    model = tiny_model("qwen2", VOCABULARY)
    whole = make_decoder(model).run([job(5, max_tokens=sum(stretches))])[0]
    decoder = make_decoder(model, keep_bytes=keep_bytes)
    ids, logprobs = list(job(5).ids), []
    for count in stretches:
        (part,) = decoder.run([Row(list(ids), Sampling(1.0, 1.0, count, seed=5), frozenset({1}))])
        ids += part.ids
        logprobs += part.logprobs
        if part.stop == "eos":
            break
    assert tuple(ids[len(job(5).ids) :]) == whole.ids
    assert tuple(logprobs) == whole.logprobs


def test_a_trajectory_that_comes_back_reads_only_what_is_new() -> None:
    decoder = make_decoder(tiny_model("qwen2", VOCABULARY))
    row = job(7, max_tokens=10)
    (first,) = decoder.run([row])
    again = Row([*row.ids, 5, 6, 7], Sampling(1.0, 1.0, 5, seed=7), frozenset())
    decoder.submit(again)
    decoder.step()
    assert first.stop == "length"
    assert again.computed == len(row.ids) + 3
    assert len(decoder._kept.entries) == 1


def test_samples_of_one_prompt_read_it_once() -> None:
    decoder = make_decoder(tiny_model("qwen2", VOCABULARY), max_batch=8)
    read: list[int] = []
    forward = decoder._forward

    def counted(reads: list[tuple[list[int], int]]) -> torch.Tensor:
        read.append(sum(len(ids) for ids, _ in reads))
        return forward(reads)

    decoder._forward = counted  # type: ignore[method-assign]
    prompt = [3 + i % 200 for i in range(200)]
    decoder.run([Row(list(prompt), Sampling(1.0, 1.0, 4, seed=s), frozenset()) for s in range(8)])
    assert sum(read) < 200 + 8 * 8


def test_a_row_that_ends_is_replaced_in_the_next_step() -> None:
    decoder = make_decoder(tiny_model("qwen2", VOCABULARY), max_batch=2)
    for seed, tokens in enumerate([2, 30, 5]):
        decoder.submit(job(seed, longest=10, max_tokens=tokens, temperature=1.0))
    ended = decoder.step() + decoder.step()
    assert len(ended) == 1
    decoder.step()
    assert len(decoder.rows) == 2
    assert not decoder.pending


def test_a_cancelled_row_frees_its_place() -> None:
    decoder = make_decoder(tiny_model("qwen2", VOCABULARY), max_batch=1)
    first, second = job(1, max_tokens=1000), job(2, max_tokens=3)
    decoder.submit(first)
    decoder.submit(second)
    decoder.step()
    first.future.cancel()
    decoder.run([])
    assert second.generation is not None
    assert first.generation is None


def test_the_context_ends_a_row(model: object) -> None:
    row = Row([5] * 500, Sampling(1.0, 1.0, 1000, seed=1), frozenset())
    (generation,) = make_decoder(model).run([row])
    assert (generation.stop, len(row.ids)) == ("length", 512)


def test_weights_that_are_no_numbers_are_an_error() -> None:
    model = tiny_model("qwen2", VOCABULARY)
    model.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(EngineError, match="no numbers"):
        make_decoder(model).run([job(1)])


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint: Path) -> HuggingFaceTokenizer:
    return load_tokenizer(str(tiny_checkpoint), load_model(str(tiny_checkpoint), "auto", "cpu"))


@settings(max_examples=40, deadline=None)
@given(before=st.text(max_size=12), stop=st.sampled_from(["`\n", "é!", "```"]), after=st.text(max_size=12))
def test_a_stop_string_ends_the_stretch_at_the_token_that_completes_it(
    tokenizer: HuggingFaceTokenizer, before: str, stop: str, after: str
) -> None:
    strings = (stop, "never seen")
    watch = StopWatch(tokenizer)
    ids = tokenizer.encode("x")
    for token in tokenizer.encode((before + stop + after).encode(errors="replace").decode()):
        ids.append(token)
        if watch.hit(ids, strings):
            break
    assert stop in tokenizer.decode(ids)
    assert stop not in tokenizer.decode(ids[:-1])
