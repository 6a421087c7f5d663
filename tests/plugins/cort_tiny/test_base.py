"""The base that ships: its tokenizer, its size and its record."""

from __future__ import annotations

import json
import unicodedata
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cort_tiny import base_path
from cort_tiny.corpus import texts
from cort_tiny.tokenizer import ASSISTANT, END, END_THINK, THINK, USER, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base_path())


@settings(max_examples=200, deadline=None)
@given(text=st.text())
def test_any_text_survives_encoding_and_decoding_but_for_its_normal_form(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == unicodedata.normalize("NFC", text)


def test_a_tokenizer_that_was_saved_encodes_the_corpus_as_it_did_before(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    corpus = [text.response for text in islice(texts(1), 300)]
    before = train_tokenizer(corpus)
    before.save_pretrained(tmp_path)
    AutoConfig.for_model("qwen2").save_pretrained(tmp_path)  # its kind of model is what AutoTokenizer goes by
    after = AutoTokenizer.from_pretrained(tmp_path)
    assert before(corpus).input_ids == after(corpus).input_ids
    assert before.chat_template == after.chat_template


@settings(max_examples=100, deadline=None)
@given(number=st.integers(min_value=0))
def test_every_digit_is_a_token_of_its_own(tokenizer: Any, number: int) -> None:
    ids = tokenizer(f"n = {number}, {number}*{number}", add_special_tokens=False).input_ids
    pieces = [tokenizer.decode([i]) for i in ids]
    assert all(len(piece) == 1 for piece in pieces if any(c.isdigit() for c in piece))


def test_thinking_marks_are_single_tokens_and_fences_are_ordinary_text(tokenizer: Any) -> None:
    for mark in (THINK, END_THINK, USER, ASSISTANT, END):
        assert len(tokenizer(mark, add_special_tokens=False).input_ids) == 1
    assert tokenizer.eos_token == END
    assert not any("```" in token for token in tokenizer.all_special_tokens)


def test_the_chat_template_opens_the_thinking(tokenizer: Any) -> None:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|user|>Hi<|assistant|><think>\n"


def test_the_base_is_small_and_is_what_its_record_says() -> None:
    from transformers import AutoModelForCausalLM

    record = json.loads((base_path() / "base.json").read_text("utf-8"))
    weights = (base_path() / "model.safetensors").read_bytes()
    assert sha256(weights).hexdigest() == record["weights_sha256"]
    assert len(weights) < 10_000_000
    model = AutoModelForCausalLM.from_pretrained(base_path())
    assert model.num_parameters() == record["parameters"] <= 2_500_000
    assert model.config.model_type == "qwen2"
