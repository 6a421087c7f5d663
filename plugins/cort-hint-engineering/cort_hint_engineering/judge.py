"""The two faults as another model sees them: a detector that asks any OpenAI-compatible chat endpoint (through cort-openai,
which is installed with the extra ``judge``).

It finds what the rules do not know words for, costs a question each time, and gives the same ``Span``s. Answers are JSON that
quotes the text; a quote that is not there, or an answer that is no JSON, is counted in ``malformed`` and says nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from cort_framework import PluginConfig, RequestError, Trajectory
from cort_framework.evaluation.behaviour import prose
from cort_hint_engineering.detectors import Span

if TYPE_CHECKING:
    from cort_openai.chat import Chat

Fault = Literal["delayed-computation", "result-distrust"]

REQUIRES = ("cort-openai>=0.1",)

_TASK = """You read the reasoning of a model that can run Python while it thinks: it writes a ```python block, and the \
interpreter's answer follows in an ```output block. Find every place where the reasoning shows this fault:

{fault}

Answer with one JSON object and nothing else:
{{"faults": [{{"quote": "the first sentence of the faulty passage, copied character by character", "reason": "a few words"}}]}}
The first sentence is the one that announces the work or the doubt, if there is one right before it. Without a fault the list \
is empty. When in doubt, there is none."""

_FAULTS: dict[Fault, str] = {
    "delayed-computation": "Delayed computation: the model carries out by hand, in prose, a long calculation, search, table, "
    "enumeration or expansion that a short program should have done. No fault: sums that anyone does in the head, algebra "
    "without a long calculation, an estimate, a well-known fact, a plan, a value read off an output, and whatever stands inside "
    "a code block.",
    "result-distrust": "Result distrust: the interpreter has returned a number, and the model doubts it or derives it again, by "
    "hand or in prose. No fault: checking the logic of a program, reading the problem again, checking with another program, "
    "repairing a program that failed, quoting an output and using it, and new work on something else.",
}


class JudgeConfig(PluginConfig):
    """For whatever asks a judge."""

    chat: dict[str, Any]
    """Where the model is, and what asking may cost: `url`, `judge` (its name there), `cache`, `retries`, `budget`,
    `max_questions` and the other settings of cort-openai's chat client."""
    every: int = Field(2000, ge=200)
    """For injectors: the judge reads a growing trajectory whenever it is longer by so many characters."""

    @field_validator("chat")
    @classmethod
    def _settings(cls, chat: dict[str, Any]) -> dict[str, Any]:
        try:
            from cort_openai.chat import ChatSettings
        except ImportError:  # the plan says what to install
            return chat
        ChatSettings(**chat)
        return chat


@contextmanager
def judge_installed() -> Iterator[None]:
    """``RequestError`` where the block cannot import what asking takes."""
    try:
        yield
    except ImportError as error:
        raise RequestError(
            "a judge needs cort-openai, which is not installed", "pip install 'cort-hint-engineering[judge]'"
        ) from error


class Judge:
    """Asks for one kind of fault. Use it on one event loop, and close it."""

    def __init__(self, fault: Fault, chat: dict[str, Any]) -> None:
        with judge_installed():
            from cort_openai.chat import Chat, ChatSettings
        self.fault = fault
        self.malformed = 0
        """Answers, or parts of them, that could not be used."""
        self.chat: Chat = Chat(ChatSettings(**chat))
        self._found: dict[bytes, list[Span]] = {}

    async def close(self) -> None:
        await self.chat.close()

    async def find(self, trajectory: Trajectory, upto: int | None = None) -> list[Span]:
        """The faults in the first ``upto`` characters of the response, in order. Raises what ``Chat.ask`` raises."""
        text = trajectory.response[:upto]
        key = hashlib.sha256(f"{trajectory.task.prompt}\0{text}".encode()).digest()
        if key not in self._found:  # an injector asks about the same words many times
            self._found[key] = await self._ask(trajectory, text)
        return self._found[key]

    async def _ask(self, trajectory: Trajectory, text: str) -> list[Span]:
        answer = await self.chat.ask(
            [
                {"role": "system", "content": _TASK.format(fault=_FAULTS[self.fault])},
                {"role": "user", "content": f"Problem:\n{trajectory.task.prompt}\n\nReasoning:\n{text}"},
            ]
        )
        own = prose(trajectory)
        spans = []
        for quote, reason in self._faults(answer):
            place = _place(quote, text)
            if place is None:
                self.malformed += 1
            elif any(a < place[1] and b > place[0] for a, b in own):
                spans.append(Span(*place, text[slice(*place)], reason))
        return sorted(spans, key=lambda span: span.start)

    def _faults(self, answer: str) -> list[tuple[str, str]]:
        """Quotes and reasons. An answer may have prose or a fence around its JSON."""
        begin, end = answer.find("{"), answer.rfind("}")
        try:
            items = json.loads(answer[begin : end + 1])["faults"]
        except (ValueError, KeyError, TypeError, RecursionError):
            items = None
        if not isinstance(items, list):
            self.malformed += 1
            return []
        faults = []
        for item in items:
            quote = item.get("quote") if isinstance(item, dict) else None
            if isinstance(quote, str) and quote.strip():
                faults.append((quote.strip(), str(item.get("reason") or f"the judge finds {self.fault}")))
            else:
                self.malformed += 1
        return faults


def _place(quote: str, text: str) -> tuple[int, int] | None:
    """Where it stands, spaces and line breaks aside."""
    at = text.find(quote)
    if at >= 0:
        return at, at + len(quote)
    match = re.search(r"\s+".join(map(re.escape, quote.split())), text)
    return match.span() if match else None
