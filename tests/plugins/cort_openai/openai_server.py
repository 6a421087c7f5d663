"""A small server that speaks OpenAI's protocol: a real model behind completions, a script behind chat."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from transformers import AutoModelForCausalLM, AutoTokenizer

from cort_framework.rendering import Detokenizer
from cort_transformers.tokenizer import HuggingFaceTokenizer


class Server:
    """``sends_ids``: as vLLM answers; else text alone, as llama.cpp does."""

    def __init__(self, folder: Path | None = None, sends_ids: bool = True) -> None:
        self.sends_ids = sends_ids
        self.takes_ids = True
        self.faults: list[int] = []
        """Status codes of the next answers."""
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.broken_off = 0
        self.reply: Callable[[dict[str, Any]], str] = lambda body: "yes"
        self.extra_tokens = 0
        self.pause = 0.0
        if folder is not None:
            self.model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
            hf = AutoTokenizer.from_pretrained(folder)
            self.tokenizer = HuggingFaceTokenizer(hf, frozenset({hf.eos_token_id}))
        routes = [
            Route("/v1/models", self.models),
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
        ]
        self.app = Starlette(routes=routes)

    async def models(self, request: Request) -> Response:
        return JSONResponse({"data": [{"id": "served-model"}]})

    async def _body(self, request: Request) -> tuple[dict[str, Any], Response | None]:
        body = await request.json()
        if self.faults:
            code = self.faults.pop(0)
            return body, JSONResponse({"error": {"message": f"fault {code}"}}, code, {"retry-after": "0.01"})
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        return body, None

    async def chat(self, request: Request) -> Response:
        body, fault = await self._body(request)
        if fault is not None:
            return fault
        await asyncio.sleep(self.pause)
        answer = self.reply(body)
        usage = {"prompt_tokens": 100, "completion_tokens": 10}
        return JSONResponse({"choices": [{"message": {"content": answer}}], "usage": usage})

    async def completions(self, request: Request) -> Response:
        body, fault = await self._body(request)
        if fault is not None:
            return fault
        prompt = body["prompt"]
        if isinstance(prompt, list) and not self.takes_ids:
            return JSONResponse({"error": {"message": "prompt must be a string"}}, 400)
        ids = (
            list(prompt)
            if isinstance(prompt, list)
            else list(self.tokenizer.hf(prompt, add_special_tokens=False).input_ids)
        )
        if not body.get("stream"):
            return JSONResponse({"choices": [], "usage": {"prompt_tokens": len(ids) + self.extra_tokens}})
        return StreamingResponse(self._events(ids, body), media_type="text/event-stream")

    async def _events(self, ids: list[int], body: dict[str, Any]) -> AsyncIterator[str]:
        finished = False
        try:
            text = Detokenizer(self.tokenizer, ids)
            for n in range(body["max_tokens"]):
                token, logprob = await asyncio.to_thread(self._next, ids, body)
                ids.append(token)
                end = token in self.tokenizer.eos_ids
                last = end or n + 1 == body["max_tokens"]
                choice: dict[str, Any] = {
                    "text": "" if end else text.feed([token]) + (text.flush() if last else "")
                }
                choice["finish_reason"] = "stop" if end else "length" if last else None
                if self.sends_ids:
                    choice |= {"token_ids": [token], "logprobs": {"token_logprobs": [logprob]}}
                yield f"data: {json.dumps({'choices': [choice]})}\n\n"
                if last:
                    break
            yield "data: [DONE]\n\n"
            finished = True
        finally:
            self.broken_off += not finished

    def _next(self, ids: list[int], body: dict[str, Any]) -> tuple[int, float]:
        with torch.no_grad():
            logits = self.model(torch.tensor([ids])).logits[0, -1].double()
        if body["temperature"] == 0:
            values = torch.log_softmax(logits, -1)
            token = int(values.argmax())
        else:
            values = torch.log_softmax(logits / body["temperature"], -1)
            noise = torch.Generator().manual_seed(body["seed"] + len(ids))
            token = int(torch.multinomial(values.exp(), 1, generator=noise))
        return token, float(values[token])


@contextmanager
def running(server: Server):
    """Its address while it runs, in a thread."""
    config = uvicorn.Config(server.app, port=0, log_level="error", lifespan="off")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    limit = time.monotonic() + 30
    while not running.started and time.monotonic() < limit:
        time.sleep(0.01)
    port = running.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        running.should_exit = True
        thread.join(10)
