"""Between tokens and text: what a trainer sees, what a growing text reads, where a trajectory can be cut."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import Language
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from cort_framework.rendering import (
    Detokenizer,
    cut,
    last_texts,
    native_tools,
    prompt_turn,
    render,
    token_texts,
)
from cort_framework.testing import ByteTokenizer, make_trajectory
from cort_framework.types import Author, Task, Trajectory, Turn

CORPUS = [
    "Let me see: 12 × 13 = 156, so the answer is 156. 😀 naïve café 中文字 и так далее\n",
    "```python\nprint(12 * 13)\n```\n```output\n156\n```\nIt looks tedious 👩‍👩‍👧 ≤ ∑ √2\n",
] * 20


class Tokens:
    """A tokenizer of the ``tokenizers`` library as the core sees it."""

    eos_ids = frozenset({0})

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.size = tokenizer.get_vocab_size()

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def apply_chat_template(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        return [0, *self.encode(messages[0]["content"]), 0]


@cache
def byte_level() -> Tokens:
    """As GPT-2's, Qwen's and Llama 3's: every byte is a token, so a character may be spread over several."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return Tokens(tokenizer)


@cache
def unigram() -> Tokens:
    """As T5's: the first token of a text loses its leading space."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=["<|end|>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return Tokens(tokenizer)


@cache
def byte_fallback() -> Tokens:
    """As Llama 2's: a character that is no token is spelt in byte tokens, and one that is cut off in one mark a byte."""
    pieces = ["<|end|>", "<unk>", *(f"<0x{b:02X}>" for b in range(256)), "▁", *"abcdefgh"]
    tokenizer = Tokenizer(
        models.BPE({p: i for i, p in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return Tokens(tokenizer)


# --- what a trainer sees ----------------------------------------------------------------------------------------
AUTHORS: tuple[Author, ...] = ("prompt", "model", "tool", "hint")
some_turns = st.lists(st.tuples(st.sampled_from(AUTHORS), st.integers(0, 6)), max_size=8)


@given(some_turns, st.sets(st.sampled_from(AUTHORS)))
def test_the_turns_joined_are_the_input_and_the_mask_is_one_exactly_on_the_chosen_authors(
    parts: list[tuple[Author, int]], chosen: set[Author]
) -> None:
    trajectory, authors, logprobs = Trajectory("t/0", Task("t", "")), [], []
    for number, (author, length) in enumerate(parts):
        ids = tuple(1000 * number + n for n in range(length))
        sampled = tuple(-0.1 * (i + 1) for i in ids) if author == "model" else None
        trajectory.turns.append(Turn(author, ids, "x" * length, sampled))
        authors += [author] * length
        logprobs += sampled or [0.0] * length
    seen = render(trajectory, chosen)
    assert seen.input_ids == trajectory.ids == [i for t in trajectory.turns for i in t.ids]
    assert seen.mask == [int(author in chosen) for author in authors]
    assert seen.logprobs == logprobs


def test_a_trainer_learns_from_model_and_hint_unless_told_otherwise() -> None:
    pieces = [("prompt", "p"), ("model", "m"), ("tool", ""), ("hint", "h")]
    seen = render(make_trajectory(pieces))
    assert seen.mask == [0, 1, *[0] * (len(seen.mask) - 3), 1]


def test_a_prompt_lists_the_tools_that_native_calls_reach_and_leaves_the_problem_as_it_is() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "string", "description": "a “number”"}}}
    tools = [Language("sum", parameters=schema), Language("fence")]
    task = Task("t", "What are {tools} and {problem}?")
    text = prompt_turn(ByteTokenizer(), "{tools}\n{problem}", task, tools).text
    assert text.endswith("</tools>\nWhat are {tools} and {problem}?<assistant>")
    listed = text.partition("<tools>\n")[2].partition("\n</tools>")[0]
    assert json.loads(listed) == {
        "type": "function",
        "function": {"name": "sum", "description": "", "parameters": schema},
    }
    assert native_tools([]) == "<tools>\n</tools>"


def test_a_prompt_is_put_into_the_template_as_it_stands() -> None:
    turn = prompt_turn(ByteTokenizer(), "Solve {problem} in \\boxed{}.", Task("t", "{problem} {x}"))
    assert turn.text == "<user>Solve {problem} {x} in \\boxed{}.<assistant>"


# --- text that grows --------------------------------------------------------------------------------------------
def ids_of(tokens: Tokens) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, tokens.size - 1), max_size=60)


@given(st.data())
@pytest.mark.parametrize("tokenizer", [byte_level, unigram])
def test_the_pieces_joined_are_the_text_of_the_whole_for_any_ids(tokenizer, data) -> None:  # type: ignore[no-untyped-def]
    tokens = tokenizer()
    before, ids = data.draw(ids_of(tokens)), data.draw(ids_of(tokens))
    assert "".join(token_texts(tokens, ids)) == tokens.decode(ids)
    whole = tokens.decode(before + ids)
    shared = Detokenizer(tokens)
    assert shared.feed(before) + shared.feed(ids) + shared.flush() == whole
    if not tokens.decode(before).endswith("\ufffd"):
        assert tokens.decode(before) + "".join(token_texts(tokens, ids, before)) == whole


@given(st.text(max_size=40), st.text(max_size=40))
@pytest.mark.parametrize("tokenizer", [byte_level, byte_fallback])
def test_the_pieces_joined_are_the_text_of_the_whole_for_any_text(tokenizer, one: str, two: str) -> None:  # type: ignore[no-untyped-def]
    tokens = tokenizer()
    before, ids = tokens.encode(one), tokens.encode(two)
    assert "".join(token_texts(tokens, ids)) == tokens.decode(ids)
    assert tokens.decode(before) + "".join(token_texts(tokens, ids, before)) == tokens.decode(before + ids)


@given(st.text(alphabet="ab 😀👩‍👧é中", max_size=30), st.integers(0, 40), st.integers(0, 40), st.booleans())
@pytest.mark.parametrize("tokenizer", [byte_level, unigram, byte_fallback])
def test_the_last_texts_are_those_of_the_whole(tokenizer, text, most, characters, ended) -> None:  # type: ignore[no-untyped-def]
    tokens = tokenizer()
    ids = tokens.encode(text)
    ids = ids if ended else ids[:-1]  # a character may be left open
    most = min(most, len(ids))
    before, sampled = ids[: len(ids) - most], ids[len(ids) - most :]
    detokenizer = Detokenizer(tokens, before)
    whole = [detokenizer.feed([i]) for i in sampled]
    if whole and ended:
        whole[-1] += detokenizer.flush()
    last = last_texts(tokens, ids, most, characters, ended)
    assert last == whole[len(whole) - len(last) :]
    assert len(last) == most or sum(map(len, last)) > characters


@given(st.text(alphabet="ab 😀👩‍👧é中", max_size=30))
@pytest.mark.parametrize("tokenizer", [byte_level, byte_fallback])
def test_no_piece_shows_part_of_a_character(tokenizer, text: str) -> None:  # type: ignore[no-untyped-def]
    tokens = tokenizer()
    detokenizer = Detokenizer(tokens)
    pieces = [detokenizer.feed([i]) for i in tokens.encode(text)]
    assert "\ufffd" not in "".join(pieces)
    assert len("".join(pieces)) >= len(text) - 1


def test_a_character_that_stays_incomplete_is_shown_as_the_tokenizer_shows_it() -> None:
    tokens = byte_level()
    ids = tokens.encode("a😀")[:-1]
    detokenizer = Detokenizer(tokens)
    assert detokenizer.feed(ids) == "a"
    assert detokenizer.flush() == "\ufffd" and detokenizer.flush() == ""


def test_a_prefix_space_is_seen_where_text_goes_on_and_not_where_it_begins() -> None:
    tokens = unigram()
    ids = tokens.encode("see")
    assert "".join(token_texts(tokens, ids)) == "see"
    assert "".join(token_texts(tokens, ids, tokens.encode("me"))) == " see"


# --- cutting ----------------------------------------------------------------------------------------------------
def spoken(tokens: Tokens, *pieces: tuple[Author, str]) -> Trajectory:
    """A trajectory whose turns are tokenised and decoded as a rollout does."""
    trajectory, before = Trajectory("t/0", Task("t", "")), list[int]()
    for author, text in pieces:
        ids = tokens.encode(text)
        text = "".join(token_texts(tokens, ids, before))
        logprobs = tuple(-0.5 - n for n in range(len(ids))) if author == "model" else None
        trajectory.turns.append(Turn(author, tuple(ids), text, logprobs))
        before += ids
    return trajectory


CODE = "So 12 × 13, naïve 😀\n```python\nprint(12 * 13)\n```\n"
STORY: list[tuple[Author, str]] = [
    ("prompt", "Let me see"),
    ("hint", "It looks tedious\n"),
    ("model", CODE),
    ("tool", "```output\n156 😀\n```\n"),
    ("model", "the answer is 156 👩‍👩‍👧, naïve"),
]


@pytest.mark.parametrize("tokenizer", [byte_level, unigram, byte_fallback])
def test_a_cut_keeps_whole_tokens_and_gives_back_the_characters_that_it_split(tokenizer) -> None:  # type: ignore[no-untyped-def]
    tokens = tokenizer()
    trajectory = spoken(tokens, *STORY)
    whole, output = render(trajectory), next(p for p in trajectory.segments() if p[0].author == "tool")
    for position in range(len(trajectory.response) + 1):
        turns, shared = cut(trajectory, position, tokens)
        child = Trajectory("t/0~1", trajectory.task, turns=turns)
        kept, text = render(child), child.response
        n = len(kept.input_ids)
        assert kept.input_ids == whole.input_ids[:n] and kept.logprobs == whole.logprobs[:n]
        assert "\ufffd" not in text
        if output[1] <= position < output[2]:  # never half an output, nor a call without its own
            assert text == trajectory.response[: output[2]] and shared == ""
            continue
        assert text + shared == trajectory.response[:position]
        assert not shared or len(tokens.decode(whole.input_ids[: n + 1])) > len(
            child.prompt
        ) + position - len(shared)  # no later boundary would have done
        for turn in turns:
            assert turn.logprobs is None or len(turn.logprobs) == len(turn.ids)


def test_a_cut_falls_on_the_last_boundary_at_or_before_the_position() -> None:
    tokens = ByteTokenizer(words=["answer"])
    trajectory = spoken(tokens, ("prompt", "p"), ("model", "my answer is 4"))  # type: ignore[arg-type]
    turns, shared = cut(trajectory, 3, tokens)
    assert (turns[-1].text, shared) == ("my ", "")
    turns, shared = cut(trajectory, 5, tokens)
    assert (turns[-1].text, shared) == ("my ", "an")
    turns, shared = cut(trajectory, 9, tokens)
    assert (turns[-1].text, shared) == ("my answer", "")


def test_a_cut_at_the_start_keeps_the_prompt_alone_and_one_at_the_end_keeps_all() -> None:
    trajectory = spoken(byte_level(), *STORY)
    assert cut(trajectory, 0, byte_level()) == (trajectory.turns[:1], "")
    assert cut(trajectory, len(trajectory.response), byte_level()) == (trajectory.turns, "")


def test_a_cut_leaves_the_trajectory_as_it_was() -> None:
    trajectory = spoken(byte_level(), *STORY)
    before = trajectory.to_json()
    cut(trajectory, 12, byte_level())
    assert trajectory.to_json() == before
