"""Engine ``openai``: any completions endpoint, for evaluation and for hints at inference."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal

import cort_framework as cort
from cort_framework.errors import EngineError

if TYPE_CHECKING:
    from cort_openai.endpoint import Endpoint
    from cort_transformers.tokenizer import HuggingFaceTokenizer

MAX_SEED = 2**31 - 1


class OpenAIEngine(cort.Engine):
    """Samples at an address: vLLM, SGLang, llama.cpp, or whatever else has ``/v1/completions``.

    The trajectory's ids go out. Where the server sends ids and log-probs back (vLLM does), they are kept as they are; else
    the text that it sends is tokenised here, with the tokenizer of the recipe's `model`, and log-probs are not known. So
    this engine takes no new weights, and trains nothing. What ends a stretch is settled here, from the stream, so that no
    server's own notion of stop strings matters.
    """

    name = "openai"
    requires = ("httpx>=0.28", "transformers>=5.10")

    class Config(cort.PluginConfig):
        url: str
        """Of the endpoint, `/v1` included: `http://localhost:8080/v1`."""
        served: str | None = None
        """The model's name there; the first that the server lists where it is not given."""
        key_variable: str = "OPENAI_API_KEY"
        """The environment variable that holds the key."""
        prompt: Literal["ids", "text"] = "ids"
        """What the server gets: token ids, or their text where it takes none. Then its tokenizer has to read as many tokens in
        it as there are, or it is refused."""
        options: dict[str, Any] = {}
        """Other fields of the request, as they are: `top_k = 0`."""
        retries: int = 4
        """How often a request is sent again that failed before its answer began."""

    config: Config
    tokenizer: HuggingFaceTokenizer

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._endpoint: Endpoint | None = None
        self._served = ""

    def read_tokenizer(self, model: str, download: bool = True) -> HuggingFaceTokenizer:
        from cort_transformers.tokenizer import read_tokenizer

        return read_tokenizer(model, download)

    async def close(self) -> None:
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            await endpoint.close()

    # --- weights ----------------------------------------------------------------------------------------------
    async def load_weights(self, weights: cort.Weights) -> None:
        """Reads the tokenizer, and asks the server for one token to see that it counts the prompt as we do.

        Raises ``RequestError`` for weights that the server cannot have, and where it reads the prompt differently.
        """
        from cort_openai.endpoint import Endpoint

        if weights.module is not None or weights.path is None or weights.version:
            raise cort.RequestError(
                "the engine 'openai' cannot give a server new weights", "train with 'transformers' or 'vllm'"
            )
        self.tokenizer = await asyncio.to_thread(self.read_tokenizer, weights.path)
        if self._endpoint is None:
            self._endpoint = Endpoint(self.config.url, self.config.key_variable, self.config.retries)
        listed = [card["id"] for card in (await self._endpoint.get("/models"))["data"]]
        self._served = self.config.served or listed[0]
        if self._served not in listed:
            raise cort.RequestError(
                f"{self.config.url} serves no {self._served!r}", f"it serves: {', '.join(listed)}"
            )
        await self._check()

    async def _check(self) -> None:
        assert self._endpoint is not None
        ids = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": "What is 6*7? Use ```python.\n"}]
        )
        body = {**self._request(ids, cort.Sampling(temperature=0, max_tokens=1)), "stream": False}
        answer = await self._endpoint.post("/completions", body)
        counted = (answer.get("usage") or {}).get("prompt_tokens")
        if counted is not None and counted != len(ids):
            raise cort.RequestError(
                f"{self.config.url} reads {counted} tokens in a prompt of {len(ids)}: it has another tokenizer, or adds to "
                "what it is sent",
                "let the recipe's `model` be the one that is served"
                + ('; prompt = "ids" sends tokens instead of text' if self.config.prompt == "text" else ""),
            )

    # --- generation -------------------------------------------------------------------------------------------
    def _request(self, ids: Sequence[int], sampling: cort.Sampling) -> dict[str, Any]:
        return {
            "model": self._served,
            "prompt": list(ids) if self.config.prompt == "ids" else self.tokenizer.decode(ids),
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            # a server's noise begins anew with every request: one seed for two stretches would give them the same
            "seed": cort.derive_seed(sampling.seed, len(ids)) % MAX_SEED,
            "logprobs": 0,
            "return_token_ids": True,  # vLLM's; others do not know it
            "skip_special_tokens": False,
            **self.config.options,
        }

    async def generate(self, ids: Sequence[int], sampling: cort.Sampling) -> cort.Generation:
        if self._endpoint is None:
            raise EngineError("load_weights was not called, or failed")
        stretch = _Stretch(self.tokenizer, ids, sampling.stop)
        async with aclosing(self._endpoint.stream("/completions", self._request(ids, sampling))) as events:
            async for event in events:
                for choice in event.get("choices", ()):
                    stretch.add(choice)
                if stretch.stop is not None:
                    break  # the server may be a few tokens further; they are nobody's
        return stretch.generation(sampling.max_tokens)


class _Stretch:
    """What has come of one request."""

    def __init__(self, tokenizer: HuggingFaceTokenizer, before: Sequence[int], stop: tuple[str, ...]) -> None:
        self.tokenizer = tokenizer
        self.strings = stop
        self.stop: Literal["eos", "stop", "length"] | None = None
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.text = ""
        self.known = True
        """The server sends ids and log-probs."""
        self._reach = max(map(len, stop), default=1) + 3
        """Characters, or tokens, in which a stop string may have begun: a token is at least a character or a part of one."""
        self._tail = tokenizer.decode(before[-self._reach :])

    def add(self, choice: dict[str, Any]) -> None:
        text = choice.get("text") or ""
        ids, values = choice.get("token_ids"), (choice.get("logprobs") or {}).get("token_logprobs")
        if ids is not None and values is not None and len(ids) == len(values):
            self._add_ids(ids, values)
        elif text:
            self.known = False
        self.text += text
        if self.stop is None and self._hit(text):
            self.stop = "stop"
        if self.stop is None and choice.get("finish_reason") is not None:
            self.stop = "length" if choice["finish_reason"] == "length" else "eos"

    def _add_ids(self, ids: Sequence[int], values: Sequence[float]) -> None:
        for token, value in zip(ids, values, strict=True):
            self.ids.append(token)
            self.logprobs.append(value)
            if token in self.tokenizer.eos_ids:
                self.stop = "eos"
                return

    def _hit(self, new: str) -> bool:
        """Whether the newest text ends a stop string, which may have begun long before."""
        seen = self._tail + new
        self._tail = seen[-self._reach :]
        return any(seen.rfind(s) + len(s) > len(seen) - len(new) for s in self.strings if s in seen)

    def generation(self, max_tokens: int) -> cort.Generation:
        """Raises ``EngineError`` where nothing came."""
        ids, stop = self.ids, self.stop or "length"
        logprobs: tuple[float, ...] | None = tuple(self.logprobs)
        if not self.known:
            ids, logprobs = self.tokenizer.encode(self.text, special=True), None
        if stop == "eos" and (not ids or ids[-1] not in self.tokenizer.eos_ids):
            ids, logprobs = (
                [*ids, min(self.tokenizer.eos_ids)],
                None,
            )  # a server leaves it out of what it sends
        if len(ids) > max_tokens:
            ids, stop = ids[:max_tokens], "length"  # the next request brings the rest
        if not ids:
            raise EngineError("the server ended a request without a token")
        return cort.Generation(tuple(ids), logprobs, stop)
