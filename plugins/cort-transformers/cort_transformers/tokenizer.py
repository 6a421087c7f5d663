"""The core's ``Tokenizer`` over a Hugging Face one, and the watch for stop strings."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any


class HuggingFaceTokenizer:
    """``encode`` treats text as text: a special token spelt out in a tool's output becomes ordinary tokens, so that no
    output can end a turn or open another."""

    def __init__(self, tokenizer: Any, eos_ids: frozenset[int]) -> None:
        self.hf = tokenizer
        self.eos_ids = eos_ids
        # a tokenizer of its own: switching one back and forth is not safe with several threads
        self._verbatim = copy.deepcopy(tokenizer)
        self._verbatim.split_special_tokens = True

    def encode(self, text: str) -> list[int]:
        return list(self._verbatim.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.hf.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def apply_chat_template(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        ids = self.hf.apply_chat_template(
            [dict(m) for m in messages], add_generation_prompt=True, tokenize=True, return_dict=False
        )
        return list(ids)


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
