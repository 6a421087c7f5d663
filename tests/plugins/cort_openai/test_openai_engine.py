"""The engine against a real server, beside the embedded engine on the same weights."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from openai_server import Server, running
from transformers import AutoTokenizer

import cort_framework as cort
from cort_framework.errors import EngineError, RequestError
from cort_openai.engine import OpenAIEngine
from cort_tiny import base_path
from cort_transformers.engine import TransformersEngine

MODEL = base_path()


def asked(engine: cort.Engine) -> list[int]:
    return engine.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the product of 37 and 48?"}]
    )


@pytest.fixture(scope="module", params=[True, False], ids=["ids", "text"])
def server(request: pytest.FixtureRequest):
    with running(made := Server(MODEL, sends_ids=request.param)) as url:
        yield made, url


def with_engine(engine: cort.Engine, path: Path, work: Callable[[Any], Awaitable[Any]]) -> Any:
    async def go() -> Any:
        try:
            await engine.open(cort.OpenContext(scratch=Path("/tmp")))
            await engine.load_weights(cort.Weights(str(path)))
            return await work(engine)
        finally:
            await engine.close()

    return asyncio.run(asyncio.wait_for(go(), 60))


def remote(url: str, path: Path, work: Callable[[Any], Awaitable[Any]], **config: Any) -> Any:
    return with_engine(OpenAIEngine(OpenAIEngine.Config(url=url, **config)), path, work)


@pytest.mark.parametrize("prompt", ["ids", "text"])
def test_it_says_what_the_embedded_engine_says(server, prompt: str) -> None:
    made, url = server
    sampling = cort.Sampling(temperature=0, max_tokens=24)

    async def generate(engine: cort.Engine) -> tuple[cort.Generation, str]:
        one = await engine.generate(asked(engine), sampling)
        return one, engine.tokenizer.decode(one.ids)

    ours, our_text = with_engine(TransformersEngine(), MODEL, generate)
    theirs, their_text = remote(url, MODEL, generate, prompt=prompt)
    assert their_text == our_text and theirs.stop == ours.stop
    if made.sends_ids:
        assert theirs.ids == ours.ids
        assert theirs.logprobs == pytest.approx(ours.logprobs, abs=1e-4)
    else:
        assert theirs.logprobs is None
    assert isinstance(made.requests[-1]["prompt"], list if prompt == "ids" else str)


def test_a_stop_string_ends_a_stretch_wherever_it_began_and_the_server_hears_of_it(server) -> None:
    made, url = server
    before = made.broken_off

    async def generate(engine: cort.Engine) -> None:
        whole = await engine.generate(asked(engine), cort.Sampling(temperature=0, max_tokens=40))
        text = engine.tokenizer.decode(whole.ids)
        at = next(n for n in range(8, len(text) - 2) if text.find(text[n : n + 3]) == n)
        string = text[at : at + 3]
        first = await engine.generate(
            asked(engine), cort.Sampling(temperature=0, max_tokens=40, stop=(string,))
        )
        assert first.stop == "stop" and len(first.ids) < len(whole.ids)
        assert string in engine.tokenizer.decode(first.ids)
        # the string begins before the stretch: all but its last character stands there already
        begun = asked(engine) + engine.tokenizer.encode(text[:at] + string[:-1])
        rest = await engine.generate(begun, cort.Sampling(temperature=0, max_tokens=8, stop=(string,)))
        assert rest.ids and (rest.stop == "stop") == engine.tokenizer.decode(rest.ids).startswith(string[-1])

    remote(url, MODEL, generate)
    for _ in range(100):
        if made.broken_off > before:
            break
        time.sleep(0.05)
    assert made.broken_off > before


@pytest.mark.slow
def test_whole_trajectories_equal_those_of_the_embedded_engine() -> None:
    from cort_framework.rollout import RolloutSetup, rollout
    from cort_python.tool import PythonTool
    from cort_tiny.tasks import TinyTasks

    tasks = list(TinyTasks(TinyTasks.Config(split="test", size=1)).tasks())
    settings = cort.RolloutSettings(temperature=0, max_tokens=400, max_tool_calls=3)
    template = "{problem}\nPlease integrate natural language reasoning with python programs to solve the problem above, and put your final answer within \\boxed{}."

    async def roll(engine: cort.Engine) -> list[cort.Trajectory]:
        tool = PythonTool()
        await tool.open(cort.OpenContext(scratch=Path("/tmp")))
        try:
            setup = RolloutSetup(engine, {"python": tool}, settings, template)
            return [
                line[-1]
                for line in await asyncio.gather(*(rollout(cort.RolloutRequest(t), setup) for t in tasks))
            ]
        finally:
            await tool.close()

    ours = with_engine(TransformersEngine(), base_path(), roll)
    assert all(t.error is None for t in ours) and any(t.calls for t in ours)
    for sends_ids in (True, False):
        with running(Server(base_path(), sends_ids)) as url:
            theirs = remote(url, base_path(), roll)
        assert [t.response for t in theirs] == [t.response for t in ours]
        assert [t.stop_reason for t in theirs] == [t.stop_reason for t in ours]
        if sends_ids:
            assert [t.ids for t in theirs] == [t.ids for t in ours]
        else:
            assert all(turn.logprobs is None for t in theirs for turn in t.turns)
            # what the server spells out is the model's own word
            (thought,) = AutoTokenizer.from_pretrained(base_path()).encode(
                "</think>", add_special_tokens=False
            )
            assert any(thought in t.ids for t in ours)
            assert [t.ids.count(thought) for t in theirs] == [t.ids.count(thought) for t in ours]


def test_what_passes_is_tried_again_and_what_does_not_is_said(server, monkeypatch) -> None:
    made, url = server
    monkeypatch.setenv("SOME_KEY", "secret")

    async def generate(engine: cort.Engine) -> cort.Generation:
        made.faults[:] = [503, 429]
        return await engine.generate(asked(engine), cort.Sampling(max_tokens=2))

    assert remote(url, MODEL, generate, key_variable="SOME_KEY").ids
    assert made.faults == [] and made.headers[-1]["authorization"] == "Bearer secret"

    async def refused(engine: cort.Engine) -> None:
        made.faults[:] = [401]
        with pytest.raises(RequestError, match="answered 401: fault 401") as caught:
            await engine.generate(asked(engine), cort.Sampling(max_tokens=2))
        assert "key_variable" in (caught.value.hint or "")
        made.faults[:] = [500, 500]
        with pytest.raises(EngineError, match="answered 500"):
            await engine.generate(asked(engine), cort.Sampling(max_tokens=2))

    remote(url, MODEL, refused, retries=1)
    with pytest.raises(EngineError, match="cannot be reached"):
        remote("http://127.0.0.1:9/v1", MODEL, generate, retries=0)


def test_another_tokenizer_than_the_servers_is_found_out(server) -> None:
    made, url = server
    made.extra_tokens = 1  # as a server that puts a token of its own in front
    try:
        with pytest.raises(RequestError, match=r"reads \d+ tokens in a prompt of \d+"):
            remote(url, MODEL, lambda engine: engine.wake())
    finally:
        made.extra_tokens = 0


def test_a_server_gets_no_new_weights(server) -> None:
    _, url = server
    engine = OpenAIEngine(OpenAIEngine.Config(url=url))
    for weights in (cort.Weights(str(MODEL), version=1), cort.Weights(str(MODEL), module=object())):
        with pytest.raises(RequestError, match="cannot give a server new weights"):
            asyncio.run(engine.load_weights(weights))
    with pytest.raises(RequestError, match=r"serves no 'other'.*"):
        remote(url, MODEL, lambda engine: engine.wake(), served="other")
