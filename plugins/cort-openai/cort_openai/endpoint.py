"""One endpoint: its address and key, patience with what passes, and errors that say what to do."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Any, Self

import httpx

from cort_framework import RequestError
from cort_framework.errors import EngineError

PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Answers that may be others a moment later."""


class Endpoint:
    """``url`` ends in ``/v1``, as servers give it. ``key_variable``: the environment variable that holds the key, if there is
    one. ``retries``: how often a request is sent again that failed before its answer began."""

    def __init__(self, url: str, key_variable: str = "OPENAI_API_KEY", retries: int = 4) -> None:
        self.url = url.rstrip("/")
        self._retries = retries
        key = os.environ.get(key_variable)
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx.Limits(max_connections=None),  # how many at once is for the recipe to say
            timeout=httpx.Timeout(None, connect=30),  # how long an answer may take is for the rollout to say
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._client.aclose()

    async def get(self, path: str) -> Any:
        """Raises ``EngineError`` or ``RequestError``, as the others do."""
        response = await self._send("GET", path, None)
        await response.aread()
        return response.json()

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        response = await self._send("POST", path, body)
        await response.aread()
        return response.json()

    async def stream(self, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """The events of an answer as they come. Closing it ends the request."""
        response = await self._send("POST", path, {**body, "stream": True})
        try:
            async for line in response.aiter_lines():
                data = line.removeprefix("data:").strip()
                if line.startswith("data:") and data != "[DONE]":
                    event = json.loads(data)
                    if "error" in event:
                        raise EngineError(f"{self.url} gave up a request: {_message(event)}")
                    yield event
        except httpx.TransportError as error:
            raise EngineError(
                f"{self.url} broke off an answer: {str(error) or type(error).__name__}"
            ) from error
        finally:
            await response.aclose()

    async def _send(self, method: str, path: str, body: dict[str, Any] | None) -> httpx.Response:
        wait = 0.5
        for left in range(self._retries, -1, -1):
            request = self._client.build_request(method, self.url + path, json=body)
            try:
                response = await self._client.send(request, stream=True)
            except httpx.TransportError as error:
                if not left:
                    reason = str(error) or type(error).__name__
                    raise EngineError(
                        f"{self.url} cannot be reached: {reason}", "is the server up?"
                    ) from error
            else:
                if response.is_success:
                    return response
                text = (await response.aread()).decode(errors="replace")
                await response.aclose()
                if response.status_code not in PASSING or not left:
                    raise self._refused(response.status_code, path, text)
                wait = max(wait, _retry_after(response))
            await asyncio.sleep(wait)
            wait *= 2
        raise AssertionError("unreachable")

    def _refused(self, status: int, path: str, text: str) -> Exception:
        try:
            text = _message(json.loads(text))
        except ValueError:
            text = text.strip()[:500]
        fault = f"{self.url}{path} answered {status}: {text}"
        if status in (401, 403):
            return RequestError(fault, "put the key into the environment variable that `key_variable` names")
        if status == 404:
            return RequestError(fault, "`url` ends as the server says, mostly in /v1")
        return EngineError(fault)


def _message(answer: Any) -> str:
    found = answer.get("error", answer) if isinstance(answer, dict) else answer
    return str(found.get("message", found) if isinstance(found, dict) else found)[:500]


def _retry_after(response: httpx.Response) -> float:
    """Seconds that the server asks to wait, a minute at most."""
    try:
        return min(60.0, float(response.headers.get("retry-after", 0)))
    except ValueError:
        return 0.0
