"""The core's ``Tokenizer`` over a Hugging Face one, and the watch for stop strings."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import cort_framework as cort


class HuggingFaceTokenizer:
    """``encode`` treats text as text unless it is asked for ``special`` tokens: one spelt out in a tool's output becomes
    ordinary tokens, so that no output can end a turn or open another."""

    def __init__(self, tokenizer: Any, eos_ids: frozenset[int]) -> None:
        self.hf = tokenizer
        self.eos_ids = eos_ids
        # a tokenizer of its own: switching one back and forth is not safe with several threads
        self._verbatim = copy.deepcopy(tokenizer)
        self._verbatim.split_special_tokens = True
        self._special = eos_ids | set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        if special:
            return list(self.hf.encode(text, add_special_tokens=False))
        ids = list(self._verbatim.encode(text, add_special_tokens=False))
        if self._special.isdisjoint(ids):
            return ids
        # a unigram model has its special tokens among its pieces, and finds them in plain text
        word = self.decode([next(i for i in ids if i in self._special)])
        at = text.find(word) + 1
        return self.encode(text[:at]) + self.encode(text[at:]) if at and len(word) > 1 else ids

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.hf.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def apply_chat_template(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        ids = self.hf.apply_chat_template(
            [dict(m) for m in messages], add_generation_prompt=True, tokenize=True, return_dict=False
        )
        return list(ids)


def read_tokenizer(reference: str, download: bool = True) -> HuggingFaceTokenizer:
    """Of a folder or a hub id, without the model: with every id that ends a sequence, as ``loading.load_tokenizer`` gives it.

    Raises ``RequestError``; without ``download`` also where it is not on this machine.
    """
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(reference, local_files_only=not download)
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise cort.RequestError(
            f"cannot load the tokenizer of '{reference}': {reason}",
            "`model` names a folder or a hub id with a tokenizer",
        ) from error
    configured = None
    for source in (GenerationConfig, AutoConfig):  # a model without the first makes it from the second
        with suppress(OSError, ValueError):
            configured = source.from_pretrained(reference, local_files_only=not download).eos_token_id
            break
    ids = {tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])}
    return HuggingFaceTokenizer(tokenizer, frozenset(i for i in ids if i is not None))


class StopWatch:
    """Tells whether the newest token completes a stop string. Keeps one entry for each set of strings asked for."""

    def __init__(self, tokenizer: HuggingFaceTokenizer) -> None:
        self.tokenizer = tokenizer
        self._pieces: list[str] = []
        self._enders: dict[tuple[str, ...], tuple[frozenset[int], int]] = {}

    def hit(self, ids: Sequence[int], stop: tuple[str, ...]) -> bool:
        """Decoding is dear, so only a token that holds the last character of a stop string is looked at, and only as
        many tokens before it as the longest string can span. Those may be from before this stretch: a stop string
        that an earlier stretch began, and this one ends, counts."""
        if not stop:
            return False
        enders, window = self._enders.get(stop) or self._prepare(stop)
        if ids[-1] not in enders:
            return False
        text = self.tokenizer.decode(ids[-window:])
        new = len(text) - len(self.tokenizer.decode(ids[-window:-1]))
        return any(text.rfind(s) + len(s) > len(text) - new for s in stop if s in text)

    def _prepare(self, stop: tuple[str, ...]) -> tuple[frozenset[int], int]:
        if not self._pieces:
            self._pieces = self.tokenizer.hf.batch_decode(
                [[i] for i in range(len(self.tokenizer.hf))], clean_up_tokenization_spaces=False
            )
        last = {s[-1] for s in stop}
        # A token with part of a character decodes to the replacement mark; one alone may lose its leading space.
        enders = frozenset(
            i
            for i, piece in enumerate(self._pieces)
            if " " in last or "\N{REPLACEMENT CHARACTER}" in piece or any(c in piece for c in last)
        )
        # a token is at least a byte; three more for a character that began before the window
        found = enders, max(len(s.encode()) for s in stop) + 3
        self._enders[stop] = found
        return found
