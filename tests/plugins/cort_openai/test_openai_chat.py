"""Asking a chat model: what is kept, what is asked again, and what is not spent."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from openai_server import Server, running

from cort_framework.errors import EngineError
from cort_openai.chat import Chat, ChatSettings, SpendingLimit


@pytest.fixture
def server():
    made = Server()
    made.reply = lambda body: body["messages"][-1]["content"].upper()
    with running(made) as url:
        yield made, url


def ask(url: str, *questions: str, **settings: Any) -> tuple[list[str | BaseException], Chat]:
    async def go() -> tuple[list[str | BaseException], Chat]:
        chat = Chat(ChatSettings(url=url, judge="served-model", **settings))
        try:
            answers = [chat.ask([{"role": "user", "content": q}]) for q in questions]
            return await asyncio.gather(*answers, return_exceptions=True), chat
        finally:
            await chat.close()

    return asyncio.run(asyncio.wait_for(go(), 60))


def test_an_answer_is_kept_and_the_same_question_is_asked_once(server, tmp_path: Path) -> None:
    made, url = server
    made.pause = 0.05
    answers, chat = ask(url, "a", "a", "b", cache=tmp_path)
    assert answers == ["A", "A", "B"] and len(made.requests) == chat.spending.asked == 2
    answers, chat = ask(url, "b", "a", cache=tmp_path)
    assert answers == ["B", "A"] and chat.spending.asked == 0
    damaged = next(tmp_path.glob("*/*.json"))
    damaged.write_text("{")
    answers, chat = ask(url, "a", "b", cache=tmp_path)
    assert answers == ["A", "B"] and chat.spending.asked == 1


def test_what_fails_in_passing_is_asked_again(server) -> None:
    made, url = server
    made.faults = [429, 503]
    assert ask(url, "a")[0] == ["A"]
    made.faults = [500, 500]
    (error,), _ = ask(url, "a", retries=1)
    assert isinstance(error, EngineError) and "answered 500" in error.message


def test_all_that_ask_a_judge_have_one_purse_and_what_fails_costs_nothing(server) -> None:
    made, url = server
    made.faults = [500, 500]

    async def go() -> list[str | BaseException]:
        settings = ChatSettings(url=url, judge="served-model", max_questions=2, retries=1)
        one, other = Chat(settings), Chat(settings)
        said: list[str | BaseException] = []
        for chat, word in ((one, "a"), (one, "b"), (other, "c"), (one, "d"), (other, "e")):
            said += await asyncio.gather(
                chat.ask([{"role": "user", "content": word}]), return_exceptions=True
            )
        await one.close()
        await other.close()
        return said

    failed, *answers, first, second = asyncio.run(asyncio.wait_for(go(), 60))
    assert isinstance(failed, EngineError) and answers == ["B", "C"]
    assert isinstance(first, SpendingLimit) and isinstance(second, SpendingLimit)
    assert ask(url, "f", max_questions=1)[0] == ["F"]  # the next run begins anew


def test_no_question_goes_beyond_what_may_be_spent(server) -> None:
    made, url = server
    prices = {"price_in": 1000.0, "price_out": 10_000.0, "max_tokens": 10, "concurrency": 1}
    # by hand: at most (1 + 16) x 0.001 + 10 x 0.01 = 0.117 before, 100 x 0.001 + 10 x 0.01 = 0.2 after each
    answers, chat = ask(url, "a", "b", "c", "d", budget=0.55, **prices)
    assert answers[:3] == ["A", "B", "C"] and isinstance(answers[3], SpendingLimit)
    assert chat.spending.spent == pytest.approx(0.6) and len(made.requests) == 3
    answers, chat = ask(url, "a", "b", max_questions=1, concurrency=1)
    assert answers[0] == "A" and "as many as it may be" in str(answers[1])
