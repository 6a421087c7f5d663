"""Between tokens and text, exactly: prompts to ids, ids to text as they grow, trajectories to what a trainer sees.

The loss mask is authorship: nothing here decodes, searches or re-encodes text to find it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cort_framework.interfaces import Tokenizer, Tool
from cort_framework.types import Author, Task, Trajectory, Turn

RETOLD = "tokenised_again_from"
"""In a trajectory's metadata: it was encoded anew from the text of the one of this id (see ``stages.distill``)."""


def prompt_turn(tokenizer: Tokenizer, template: str, task: Task, tools: Iterable[Tool] = ()) -> Turn:
    """The user's message through the model's own chat template, with the generation prompt (paper: no system prompt).

    ``{problem}`` in the template is the task's prompt, and ``{tools}`` what ``native_tools`` says of the tools.
    """
    if "{tools}" in template:
        template = template.replace("{tools}", native_tools(tools))
    content = template.replace("{problem}", task.prompt)
    ids = tokenizer.apply_chat_template([{"role": "user", "content": content}])
    return Turn("prompt", tuple(ids), tokenizer.decode(ids))


def native_tools(tools: Iterable[Tool]) -> str:
    """The tools that native calls reach, as Hermes and Qwen models have learnt to read them: a line of JSON each, between
    ``<tools>`` tags."""
    functions = [
        {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
        for tool in tools
        if tool.parameters is not None
    ]
    lines = [json.dumps({"type": "function", "function": f}, ensure_ascii=False) for f in functions]
    return "\n".join(["<tools>", *lines, "</tools>"])


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
    """Decodes ids one stretch at a time, as the whole decodes; a character whose bytes are not all there yet is held back.

    It decodes a short window before each stretch with it, so the cost of a trajectory is linear in its length and
    tokenizers that treat the first token of a text differently (a leading space) decode as they would in one piece.
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int] = ()) -> None:
        """``before``: the ids that the text goes on from."""
        self._tokenizer = tokenizer
        self._window = list(before[-4:])
        self._given = tokenizer.decode(self._window)
        """Text of the window that was already given out."""

    def feed(self, ids: Sequence[int]) -> str:
        """The text that the ids complete; empty where a character is still incomplete."""
        self._window.extend(ids)
        text = self._tokenizer.decode(self._window)
        whole = text.rstrip("\ufffd")  # bytes at the end that are no character may yet become one
        new = whole[len(self._given) :]
        self._given = text[: max(len(whole), len(self._given))]
        if whole == text:
            self._shorten()
        return new

    def _shorten(self) -> None:
        """A character is at most four tokens; the window has to begin with a whole one."""
        for tail in (self._window[-n:] for n in (4, 3, 2, 1)):
            text = self._tokenizer.decode(tail)
            if "\ufffd" not in text:
                self._window, self._given = tail, text
                return

    def flush(self) -> str:
        """What is left of an incomplete character, as the tokenizer shows it."""
        text = self._tokenizer.decode(self._window)
        new, self._given = text[len(self._given) :], text
        return new


def token_texts(tokenizer: Tokenizer, ids: Sequence[int], before: Sequence[int] = ()) -> list[str]:
    """One string a token; joined, the text of the ids where they come after ``before``. A character spread over tokens
    belongs to its last one."""
    detokenizer = Detokenizer(tokenizer, before)
    texts = [detokenizer.feed([i]) for i in ids]
    if texts:
        texts[-1] += detokenizer.flush()
    return texts


def last_texts(
    tokenizer: Tokenizer, ids: Sequence[int], at_most: int, characters: int, ended: bool
) -> list[str]:
    """As ``token_texts``, of the last tokens alone: of so many that they hold more than ``characters``, or of ``at_most``
    tokens. Costs what it looks at, however long ``ids`` are. ``ended``: nothing follows that could complete a character.
    """
    count = 2
    while True:
        count = min(2 * count, at_most)
        begin = len(ids) - count
        before = ids[max(0, begin - 4) : begin]
        if count < at_most and "\ufffd" in tokenizer.decode(before):
            continue  # a character is spread over the boundary: it belongs to the token that ends it
        detokenizer = Detokenizer(tokenizer, before)
        texts = [detokenizer.feed([i]) for i in ids[begin:]]
        if texts and ended:
            texts[-1] += detokenizer.flush()
        if count == at_most or sum(map(len, texts)) > characters:
            return texts


def cut(trajectory: Trajectory, position: int, tokenizer: Tokenizer) -> tuple[list[Turn], str]:
    """The turns up to the last token boundary at or before ``position`` (in ``Trajectory.response``), and the characters
    between that boundary and ``position``, which the dropped token shared with the kept text.

    A call and its output stay together: a position in front of an output, or inside it, cuts behind it.
    """
    kept = [turn for turn in trajectory.turns if turn.author == "prompt"]
    for turn, start, end in trajectory.segments():
        if end <= position or (turn.author == "tool" and start <= position):
            kept.append(turn)
            continue
        count, boundary, length = 0, start, start
        before = [i for t in kept for i in t.ids]
        for n, text in enumerate(token_texts(tokenizer, turn.ids, before), 1):
            length += len(text)
            if length > position:
                break
            if text:  # else a character is still incomplete, and its tokens stay together
                count, boundary = n, length
        if count:
            logprobs = turn.logprobs[:count] if turn.logprobs is not None else None
            kept.append(
                replace(turn, ids=turn.ids[:count], text=turn.text[: boundary - start], logprobs=logprobs)
            )
        return kept, turn.text[boundary - start : max(position, boundary) - start]
    return kept, ""
