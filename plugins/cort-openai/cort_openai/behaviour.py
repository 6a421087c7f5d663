"""What each call of a trajectory is for, as a judge sees it: the labels and subjects of ``cort_framework.evaluation.behaviour``, which finds
them by rule, from any chat endpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast, get_args

from cort_framework import Trajectory
from cort_framework.evaluation.behaviour import Label, Subject
from cort_openai.chat import Chat

_TASK = """You read the reasoning of a model that can run programs while it thinks. Each call of a program is followed by a line \
[call N] and by what the program returned. Say of every call what it is for:

"calculation": its result was not known before: neither had the reasoning stated it, nor an earlier call returned it.
"verification": it checks a result that the reasoning or an earlier call had already reached.

and what it does:

"arithmetic": sums and products of a few numbers, with no search.
"enumeration": goes through many cases, counts, searches, or counts combinations.
"number theory": divisors, primes, remainders, powers modulo a number, digits in a base.
"symbolic": algebra with symbols: solves, simplifies, expands, differentiates, integrates.
"linear algebra": matrices and vectors.
"simulation": draws random numbers.
"data": statistics, or reading and grouping of data.
"units": physical units and constants.
"plotting": draws a picture.
"chemistry": molecules and reactions.

Where several fit, take the most particular one. Answer with one JSON object and nothing else:
{"calls": [{"call": 1, "label": "calculation", "subject": "arithmetic"}]}"""


@dataclass(frozen=True)
class Judged:
    """A judge's word on one call."""

    label: Label
    subject: Subject


class BehaviourJudge:
    """One question a trajectory. Whoever gives the ``chat`` closes it."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self.malformed = 0
        """Answers, or parts of them, that could not be used."""

    async def label(self, trajectory: Trajectory) -> list[Judged | None]:
        """One a call; ``None`` where the answer says nothing of it that could be used. Raises what ``Chat.ask`` raises."""
        found: list[Judged | None] = [None] * len(trajectory.calls)
        if not found:
            return found
        question = f"Problem:\n{trajectory.task.prompt}\n\nReasoning:\n{_numbered(trajectory)}"
        answer = await self.chat.ask(
            [{"role": "system", "content": _TASK}, {"role": "user", "content": question}]
        )
        for item in self._items(answer):
            try:
                number, judged = int(item["call"]), Judged(_known(item, Label), _known(item, Subject))
            except (KeyError, TypeError, ValueError):
                self.malformed += 1
                continue
            if 1 <= number <= len(found) and found[number - 1] is None:
                found[number - 1] = judged
            else:
                self.malformed += 1
        return found

    def _items(self, answer: str) -> list[Any]:
        """An answer may have prose or a fence around its JSON."""
        try:
            items = json.loads(answer[answer.find("{") : answer.rfind("}") + 1])["calls"]
        except (ValueError, KeyError, TypeError, RecursionError):
            items = None
        if isinstance(items, list):
            return items
        self.malformed += 1
        return []


def _numbered(trajectory: Trajectory) -> str:
    """The response with a line in front of each output, so that nobody has to count."""
    parts, number = [], 0
    for turn, _, _ in trajectory.segments():
        if turn.author == "tool":
            number += 1
            parts.append(f"[call {number}]\n")
        parts.append(turn.text)
    return "".join(parts)


def _known(item: Any, words: Any) -> Any:
    """The item's word of that kind. Raises ``ValueError`` where it is none."""
    key = "label" if words is Label else "subject"
    word = str(item[key]).strip().lower()
    if word not in get_args(words):
        raise ValueError(word)
    return cast(Any, word)
