"""A chat model to ask, for plugins that judge: every answer is kept, what fails in passing is asked again, and there is a
limit to what it may cost."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from cort_framework import CortError, PluginConfig, RequestError
from cort_framework.recipe.tables import parse_override
from cort_openai.endpoint import Endpoint


class SpendingLimit(CortError):
    """The next question would go beyond what may be spent."""


class ChatSettings(PluginConfig):
    """Where the model is, and what asking it may cost."""

    url: str
    """Of the endpoint, `/v1` included: `http://localhost:8000/v1`."""
    judge: str
    """The model's name there."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the key."""
    max_tokens: int = Field(2048, ge=1)
    """Tokens of an answer at most."""
    options: dict[str, Any] = {}
    """Other fields of the request, as they are."""
    cache: Path | None = None
    """A folder that keeps every answer: the same question is asked once, in this run and in later ones."""
    concurrency: int = Field(8, ge=1)
    """Questions at the same time."""
    retries: int = Field(4, ge=0)
    """How often a question is asked again that failed in passing."""
    price_in: float = Field(0.0, ge=0)
    """Of a million tokens of questions, in whatever currency `budget` is."""
    price_out: float = Field(0.0, ge=0)
    """Of a million tokens of answers."""
    budget: float | None = Field(None, ge=0)
    """What all questions of a run to this judge may cost together, whoever asks. An answer that was kept costs nothing."""
    max_questions: int | None = Field(None, ge=0)
    """How many questions a run may ask this judge, whoever asks; those with an answer that was kept do not count."""


def read_settings(options: Sequence[str], **settings: Any) -> ChatSettings:
    """The settings, and those of a command's ``--chat KEY=VALUE``. Raises ``RequestError``."""
    for option in options:
        (key, *rest), value = parse_override(option)
        if rest:
            raise RequestError(f"--chat {option}: not of the form KEY=VALUE")
        settings[key] = value
    try:
        return ChatSettings(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise RequestError(f"--chat {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


@dataclass
class Spending:
    """What one judge was asked, by all that ask it at the time: the plugins of a run."""

    asked: int = 0
    """Questions that went out; those that failed do not count."""
    spent: float = 0.0
    """What they cost, by the tokens that the server counted; what is under way is counted at its most."""
    chats: int = 0
    """How many ask."""


_SPENDING: dict[tuple[str, str], Spending] = {}


class Chat:
    """Asks. One for each plugin that needs it, opened and closed with it."""

    def __init__(self, settings: ChatSettings) -> None:
        self.settings = settings
        self._judge = settings.url, settings.judge
        self.spending = _SPENDING.setdefault(self._judge, Spending())
        self.spending.chats += 1
        self._endpoint = Endpoint(settings.url, settings.key_variable, settings.retries)
        self._places = asyncio.Semaphore(settings.concurrency)
        self._under_way: dict[str, asyncio.Task[str]] = {}

    async def close(self) -> None:
        self.spending.chats -= 1
        if not self.spending.chats:
            _SPENDING.pop(self._judge, None)
        for task in self._under_way.values():
            task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)
        await self._endpoint.close()

    async def ask(self, messages: Sequence[dict[str, str]]) -> str:
        """The text of the answer. Raises ``SpendingLimit`` before a question that would go beyond the limits, and
        ``EngineError`` or ``RequestError`` where the endpoint fails."""
        s = self.settings
        body = {
            "model": s.judge,
            "messages": list(messages),
            "max_tokens": s.max_tokens,
            "temperature": 0,
            **s.options,
        }
        key = hashlib.sha256(json.dumps([s.url, body], sort_keys=True).encode()).hexdigest()
        kept = self._kept(key)
        if kept is not None:
            return kept
        if key not in self._under_way:  # two that ask the same wait for one answer
            self._under_way[key] = asyncio.create_task(self._answer(key, body))
            self._under_way[key].add_done_callback(lambda _: self._under_way.pop(key, None))
        return await asyncio.shield(self._under_way[key])

    async def _answer(self, key: str, body: dict[str, Any]) -> str:
        s, spending = self.settings, self.spending
        async with self._places:
            # a token is hardly ever less than a byte, so this is the most that the question can cost
            length = sum(len(m["content"].encode(errors="replace")) + 16 for m in body["messages"])
            most = self._cost(length, s.max_tokens)
            if s.budget is not None and spending.spent + most > s.budget:
                raise SpendingLimit(
                    f"{s.judge} has cost {spending.spent:.4g} so far, and the next question may cost {most:.2g}: "
                    f"over the budget of {s.budget:g}",
                    "raise `budget`; answers that are in `cache` cost nothing",
                )
            if s.max_questions is not None and spending.asked >= s.max_questions:
                raise SpendingLimit(
                    f"{s.judge} was asked {spending.asked} questions, which is as many as it may be",
                    "raise `max_questions`",
                )
            spending.asked += 1
            spending.spent += most
            try:
                answer = await self._endpoint.post("/chat/completions", body)
            except CortError:  # there was no answer to pay for
                spending.asked -= 1
                spending.spent -= most
                raise
            usage = answer.get("usage") or {}
            if "prompt_tokens" in usage and "completion_tokens" in usage:
                spending.spent += self._cost(usage["prompt_tokens"], usage["completion_tokens"]) - most
        text = str(answer["choices"][0]["message"]["content"] or "")
        self._keep(key, body, text)
        return text

    def _cost(self, tokens_in: float, tokens_out: float) -> float:
        return (tokens_in * self.settings.price_in + tokens_out * self.settings.price_out) / 1e6

    # --- answers that are kept --------------------------------------------------------------------------------
    def _file(self, key: str) -> Path | None:
        return None if self.settings.cache is None else self.settings.cache / key[:2] / f"{key}.json"

    def _kept(self, key: str) -> str | None:
        file = self._file(key)
        try:
            return None if file is None else str(json.loads(file.read_text(encoding="utf-8"))["answer"])
        except (OSError, ValueError, KeyError, TypeError):  # none yet, or one that something has damaged
            return None

    def _keep(self, key: str, question: dict[str, Any], answer: str) -> None:
        file = self._file(key)
        if file is None:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.{os.getpid()}")
        partial.write_text(
            json.dumps({"question": question, "answer": answer}, ensure_ascii=False), encoding="utf-8"
        )
        partial.replace(file)
