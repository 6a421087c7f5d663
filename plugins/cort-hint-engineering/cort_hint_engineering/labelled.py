"""Trajectories in which a fault is marked, one JSON object a line, to measure detectors against.

An item has ``id``, ``kind``, ``language``, ``phenomenon`` (a tag to read figures by), ``turns`` (``author`` and ``text``; a tool
turn whose program failed has an ``outcome``) and ``span``: character positions in ``Trajectory.response``, end exclusive, or null
where there is no fault of this kind.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cort_framework import Outcome, RequestError, Task, ToolCall, ToolResult, Trajectory, Turn

Kind = Literal["delayed-computation", "result-distrust"]

_PROGRAM = re.compile(r"```python\n(.*?)\n?```\n\Z", re.DOTALL)
_OUTPUT = re.compile(r"\A```output\n(.*?)\n?```\n\Z", re.DOTALL)
_SENTENCE_END = re.compile(r"[。！？]|[.!?…](?=\s)|\n")


@dataclass(frozen=True)
class LabelledSpan:
    """One line of a file of spans."""

    id: str
    kind: Kind
    language: str
    phenomenon: str
    turns: Sequence[dict[str, str]]
    span: tuple[int, int] | None
    """Character positions in ``response``; ``None`` where there is no fault of this kind."""

    @property
    def response(self) -> str:
        """All text after the prompt, as ``Trajectory.response``."""
        return "".join(turn["text"] for turn in self.turns if turn["author"] != "prompt")

    @property
    def fault(self) -> str:
        """The marked text; empty for a negative."""
        return self.response[slice(*self.span)] if self.span else ""

    def trajectory(self) -> Trajectory:
        """As a rollout would have made it, without token ids."""
        task = Task(self.id, self.turns[0]["text"])
        turns: list[Turn] = []
        for turn in self.turns:
            text = turn["text"]
            if turn["author"] == "tool":
                program, output = _PROGRAM.search(turns[-1].text), _OUTPUT.match(text)
                if program is None or output is None:
                    raise ValueError(
                        f"{self.id}: a tool turn needs a program in front of it and a fence around it"
                    )
                call = ToolCall("python", program[1], index=sum(t.author == "tool" for t in turns))
                result = ToolResult(Outcome(turn.get("outcome", "ok")), output[1])
                turns.append(Turn("tool", (), text, call=call, result=result))
            else:
                turns.append(Turn("model" if turn["author"] == "model" else "prompt", (), text))
        return Trajectory(f"{self.id}/0", task, turns=turns)

    def hit_by(self, found: tuple[int, int]) -> bool:
        """Whether what a detector found counts as this fault: it overlaps the span, and starts inside it or at most one
        sentence before it."""
        if self.span is None:
            return False
        start, end = self.span
        return found[1] > start and _sentence_before(self.response, start) <= found[0] < end


def _sentence_before(text: str, position: int) -> int:
    """Where the sentence in front of ``position`` starts. A line break ends a sentence too."""
    starts = [0, *(match.end() for match in _SENTENCE_END.finditer(text, 0, position))]
    return max((s for s in starts if text[s:position].strip()), default=position)


def labelled_spans(path: Path) -> list[LabelledSpan]:
    """The items of a file of spans, in its order. Raises ``RequestError`` where a line is none."""
    items = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                item: dict[str, Any] = json.loads(line)
                item["span"] = tuple(item["span"]) if item["span"] else None
                items.append(LabelledSpan(**item))
            except (ValueError, KeyError, TypeError) as error:
                raise RequestError(f"{path}, line {number} is no labelled span: {error}") from error
    return items
