"""Between tokens and text, exactly: prompts to ids, ids to text as they grow, trajectories to what a trainer sees.

The loss mask is authorship: nothing here decodes, searches or re-encodes text to find it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cort_framework.interfaces import Tokenizer
from cort_framework.types import Author, Task, Trajectory, Turn


def prompt_turn(tokenizer: Tokenizer, template: str, task: Task) -> Turn:
    """The user's message through the model's own chat template, with the generation prompt (paper: no system prompt)."""
    ids = tokenizer.apply_chat_template([{"role": "user", "content": template.replace("{problem}", task.prompt)}])
    return Turn("prompt", tuple(ids), tokenizer.decode(ids))


@dataclass(frozen=True)
class Rendered:
    """A trajectory as a trainer sees it; three lists of one length."""

    input_ids: list[int]
    mask: list[int]
    """1 exactly where the author is one of those trained on."""
    logprobs: list[float]
    """What the token was sampled with; 0.0 where no model sampled it."""


def render(trajectory: Trajectory, train_on: Iterable[Author] = ("model", "hint")) -> Rendered:
    """The turns' ids concatenated, and their authorship as a mask."""
    chosen = frozenset(train_on)
    ids: list[int] = []
    mask: list[int] = []
    logprobs: list[float] = []
    for turn in trajectory.turns:
        ids.extend(turn.ids)
        mask.extend([int(turn.author in chosen)] * len(turn.ids))
        logprobs.extend(turn.logprobs if turn.logprobs is not None else [0.0] * len(turn.ids))
    return Rendered(ids, mask, logprobs)


class Detokenizer:
    """Decodes ids one stretch at a time; a character whose bytes are not all there yet is held back.

    It decodes a short window behind each new token, so the cost of a trajectory is linear in its length and tokenizers
    that treat the first token of a text differently (a leading space) decode as they would in one piece.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._shown = ""
        """Text of the window that was already given out."""

    def feed(self, ids: Sequence[int]) -> list[str]:
        """The text that each of the ids completes; an empty string where a character is still incomplete."""
        pieces = []
        for token in ids:
            self._window.append(token)
            text = self._tokenizer.decode(self._window)
            if text.endswith("\ufffd") and len(self._window) < 12:
                pieces.append("")
                continue
            pieces.append(text[len(self._shown) :])
            self._window = self._window[-4:]
            self._shown = self._tokenizer.decode(self._window)
        return pieces

    def flush(self) -> str:
        """What is left of an incomplete character, as the tokenizer shows it; the next token starts afresh."""
        text = self._tokenizer.decode(self._window)[len(self._shown) :]
        self._window, self._shown = [], ""
        return text


def token_texts(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """One string a token; joined, the text of the ids. A character spread over tokens belongs to its last one."""
    detokenizer = Detokenizer(tokenizer)
    texts = detokenizer.feed(ids)
    if texts:
        texts[-1] += detokenizer.flush()
    return texts


def cut(trajectory: Trajectory, position: int, tokenizer: Tokenizer) -> tuple[list[Turn], str]:
    """The turns up to the last token boundary at or before ``position`` (in ``Trajectory.response``), and the characters
    between that boundary and ``position``, which the dropped token shared with the kept text."""
    kept = [turn for turn in trajectory.turns if turn.author == "prompt"]
    for turn, start, end in trajectory.segments():
        if end <= position:
            kept.append(turn)
            continue
        if start >= position:
            return kept, ""
        if turn.author == "tool":  # never half an output
            return kept, ""
        n, boundary, length = 0, start, start
        for count, text in enumerate(token_texts(tokenizer, turn.ids), 1):
            length += len(text)
            if length > position:
                break
            if text:  # else a character is still incomplete, and its tokens stay together
                n, boundary = count, length
        if n:
            logprobs = turn.logprobs[:n] if turn.logprobs is not None else None
            kept.append(replace(turn, ids=turn.ids[:n], text=turn.text[: boundary - start], logprobs=logprobs))
        return kept, turn.text[boundary - start : position - start]
    return kept, ""
