"""A judge over a real local server: what it finds, what it is asked, and what becomes of an answer that is no use."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hint_stories import cut_back, program, told

from cort_framework import OpenContext, RequestError, Trajectory
from cort_hint_engineering.filters import NoJudgedDelayedComputation, NoJudgedResultDistrust
from cort_hint_engineering.injectors import JudgedDelayedComputationHint
from cort_hint_engineering.judge import Judge
from cort_hint_engineering.labelled import labelled_spans
from cort_hint_engineering.measure import measure

pytest.importorskip("uvicorn")
pytest.importorskip("cort_openai.chat")
sys.path.insert(0, str(Path(__file__).parents[1] / "cort_openai"))
from openai_server import Server, running

HAND = "I shall now go about it with pencil and patience: forty-eight times thirty-seven.\n"
STORY = told("Okay, I need the product.\n", HAND, program("print(37*48)", "1776"), "So it is 1776.\n")


@pytest.fixture
def server() -> Iterator[tuple[Server, str]]:
    made = Server()
    with running(made) as url:
        yield made, url


def answer(*quotes: str) -> str:
    return json.dumps({"faults": [{"quote": quote, "reason": "slow"} for quote in quotes]})


def found(url: str, trajectory: Trajectory = STORY, times: int = 1, **chat: Any) -> tuple[list[str], int]:
    async def go() -> tuple[list[str], int]:
        judge = Judge("delayed-computation", {"url": url, "judge": "j", **chat})
        try:
            for _ in range(times):
                spans = await judge.find(trajectory)
            for span in spans:
                assert trajectory.response[span.start : span.end] == span.evidence
            return [span.evidence for span in spans], judge.malformed
        finally:
            await judge.close()

    return asyncio.run(go())


def test_a_quote_becomes_the_span_where_it_stands(server: tuple[Server, str]) -> None:
    made, url = server
    made.reply = lambda body: answer(HAND.strip())
    assert found(url) == ([HAND.strip()], 0)
    question = made.requests[0]["messages"]
    assert "by hand" in question[0]["content"]
    assert STORY.response in question[1]["content"]


def test_an_answer_may_stand_in_a_fence_and_break_its_lines_elsewhere(server: tuple[Server, str]) -> None:
    made, url = server
    made.reply = lambda body: f"Here it is:\n```json\n{answer(HAND.strip().replace(' ', '  '))}\n```\nDone."
    assert found(url) == ([HAND.strip()], 0)


@pytest.mark.parametrize(
    ("reply", "malformed"),
    [
        ("no JSON at all", 1),
        ("{", 1),
        ('{"faults": 3}', 1),
        ("[]", 1),
        ('{"faults": [3, {"quote": 4}, {"quote": ""}]}', 3),
        (answer("words that nobody wrote"), 1),
        ('{"faults": []}', 0),
        ('{"faults": ' + "[" * 5000, 1),
    ],
)
def test_an_answer_that_is_no_use_is_counted_and_finds_nothing(
    server: tuple[Server, str], reply: str, malformed: int
) -> None:
    made, url = server
    made.reply = lambda body: reply
    assert found(url) == ([], malformed)


def test_a_quote_from_a_program_or_an_output_is_no_fault(server: tuple[Server, str]) -> None:
    made, url = server
    made.reply = lambda body: answer("print(37*48)")
    assert found(url) == ([], 0)


def test_the_same_words_are_asked_about_once_and_a_kept_answer_serves_the_next_run(
    server: tuple[Server, str], tmp_path: Path
) -> None:
    made, url = server
    made.reply = lambda body: answer()
    found(url, times=3, cache=tmp_path)
    found(url, cache=tmp_path)
    assert len(made.requests) == 1


def test_what_fails_in_passing_is_asked_again(server: tuple[Server, str]) -> None:
    made, url = server
    made.faults = [503]
    made.reply = lambda body: answer(HAND.strip())
    assert found(url) == ([HAND.strip()], 0)


def test_there_is_a_limit_to_what_is_asked(server: tuple[Server, str]) -> None:
    _, url = server
    with pytest.raises(Exception, match="as many as it may be"):
        found(url, max_questions=0)


def test_the_injector_asks_each_time_that_the_text_has_grown_and_cuts_back_to_the_quote(
    server: tuple[Server, str], tmp_path: Path
) -> None:
    made, url = server
    made.reply = lambda body: answer(HAND.strip() if "pencil" in body["messages"][1]["content"] else "")
    config = JudgedDelayedComputationHint.Config(chat={"url": url, "judge": "j"}, every=200)
    trajectory = told("Okay, I need the product.\n", HAND + "Eight sevens first. " * 20)

    async def go() -> Any:
        injector = JudgedDelayedComputationHint(config)
        await injector.open(OpenContext(tmp_path))
        try:
            assert await injector.inject(told("Okay.\n")) is None
            assert not made.requests
            await injector.inject(trajectory)
            return await injector.inject(trajectory)
        finally:
            await injector.close()

    hint = asyncio.run(go())
    assert len(made.requests) == 1
    assert cut_back(trajectory, hint).response.startswith("Okay, I need the product.\nIt looks tedious")


@pytest.mark.parametrize("kind", [NoJudgedDelayedComputation, NoJudgedResultDistrust])
def test_the_filter_drops_what_the_judge_objects_to(
    server: tuple[Server, str], tmp_path: Path, kind: Any
) -> None:
    made, url = server

    async def verdict(reply: str) -> Any:
        made.reply = lambda body: reply
        judged = kind(kind.Config(chat={"url": url, "judge": "j"}))
        await judged.open(OpenContext(tmp_path))
        try:
            return await judged.judge(STORY)
        finally:
            await judged.close()

    assert asyncio.run(verdict(answer())).keep
    dropped = asyncio.run(verdict(answer(HAND.strip())))
    assert not dropped.keep
    assert STORY.response[slice(*dropped.span)] == HAND.strip()


def test_a_setting_that_the_chat_client_does_not_know_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="endpoint"):
        NoJudgedDelayedComputation.Config(chat={"url": "http://x/v1", "judge": "j", "endpoint": 1})


def test_without_cort_openai_the_line_that_installs_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cort_openai.chat", None)
    with pytest.raises(RequestError) as error:
        Judge("result-distrust", {"url": "http://x/v1", "judge": "j"})
    assert "pip install 'cort-hint-engineering[judge]'" in str(error.value.hint)


def test_a_judge_is_measured_as_the_rules_are(server: tuple[Server, str], tmp_path: Path) -> None:
    made, url = server
    lines = (Path(__file__).parent / "spans" / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    some = tmp_path / "some.jsonl"
    some.write_text("\n".join(lines[:6] + lines[100:103]) + "\n", encoding="utf-8")
    items = labelled_spans(some)

    def reply(body: dict[str, Any]) -> str:
        asked = body["messages"][1]["content"]
        item = next(item for item in items if asked.endswith(item.response))
        return answer(item.fault) if item.fault else answer()

    made.reply = reply
    result = CliRunner().invoke(measure, [str(some), "--judge", url, "--json"], catch_exceptions=False)
    figures = json.loads(result.stdout)
    assert figures["groups"][0]["recall"]["value"] == figures["groups"][0]["precision"]["value"] == 1
    assert figures["malformed"] == 0
    limited = [str(some), "--judge", url, "--chat", "concurrency=1", "--max-questions"]
    result = CliRunner().invoke(measure, [*limited, "4", "--json"], catch_exceptions=False)
    figures = json.loads(result.stdout)
    assert (figures["left_out"], figures["groups"][0]["recall"]["value"]) == (5, 1)
    shown = CliRunner().invoke(measure, [*limited, "4"], catch_exceptions=False).stdout
    assert "5 items were left out" in shown and "as many as it may be" in shown
    with pytest.raises(RequestError, match="--chat bugdet"):
        CliRunner().invoke(measure, [*limited, "4", "--chat", "bugdet=1"], catch_exceptions=False)
