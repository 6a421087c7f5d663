"""Where vLLM is: in processes of this program's own, or behind an address."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from pydantic import ValidationError

from cort_framework import RequestError, Sampling
from cort_framework.errors import EngineError

if TYPE_CHECKING:
    from torch import Tensor

    from cort_vllm.transfer import Sender

WORKER = "cort_vllm.worker.Reloading"
OWNER = "CORT_VLLM_OWNER"
"""The process that vLLM's are started by, in their environment."""
Tokens = AsyncGenerator[tuple[Sequence[int], Sequence[float]], None]
"""Sampled ids and their log-probs, as they come. Closing it ends the request."""


class Backend(Protocol):
    context: int
    """Tokens that the model reads at most."""
    copies: int
    """Of the weights, that can be asked one by one."""

    async def load(self, path: str) -> None:
        """Sample from this checkpoint; called while nothing is being generated."""

    sends: bool
    """Of the processes of one training, this is the one whose weights are to be sent here."""

    async def send(self, path: str, tensors: Mapping[str, Tensor], version: int) -> None:
        """Sample from these weights, of a model like the checkpoint; called while nothing is being generated."""

    async def arrival(self, version: int) -> None:
        """Wait until the one that sends has sent this version."""

    def generate(
        self, ids: Sequence[int], sampling: Sampling, stop_ids: frozenset[int], copy: int | None = None
    ) -> Tokens:
        """From any copy of the weights, or from a certain one."""

    async def sleep(self) -> None:
        """Give the device's memory back, where vLLM can; called while nothing is being generated."""

    async def wake(self) -> None: ...

    async def close(self) -> None: ...


class OwnProcesses:
    """vLLM's ``AsyncLLM``: its scheduler and workers are processes that end with this one."""

    def __init__(self, arguments: dict[str, Any], devices: str | None = None) -> None:
        self.arguments = arguments
        self.devices = devices
        self.context = 0
        self.copies = int(arguments.get("data_parallel_size", 1))
        self.sends = True  # nobody else can reach them
        self._llm: Any = None
        self._sender: Sender | None = None
        self._names = itertools.count()

    async def load(self, path: str) -> None:
        if self._llm is not None and self._llm.errored:
            await self.close()
        if self._llm is None:
            starting = asyncio.create_task(asyncio.to_thread(self._start, path))
            try:
                await asyncio.shield(starting)
            except asyncio.CancelledError:
                await starting  # or its processes would be nobody's; now close() finds them
                raise
            return
        await self._swap(
            lambda: self._llm.collective_rpc("cort_load_weights", args=(path,)), f"could not read {path}"
        )

    async def send(self, path: str, tensors: Mapping[str, Tensor], version: int) -> None:
        from cort_vllm.transfer import Sender

        if self._llm is None or self._llm.errored:
            await self.load(path)
        if self._sender is None:
            workers = self._llm.vllm_config.parallel_config.world_size_across_dp
            self._sender = Sender(self._ask, workers, "127.0.0.1")
        sender = self._sender
        await self._swap(lambda: sender.send(tensors), "did not take the trainer's weights")

    async def arrival(self, version: int) -> None: ...

    async def _ask(self, call: str, **arguments: Any) -> None:
        await self._llm.collective_rpc(call, kwargs=arguments)

    async def _swap(self, weights: Callable[[], Awaitable[Any]], failed: str) -> None:
        try:
            await self._llm.pause_generation(mode="wait", clear_cache=True)
            await weights()
            await self._llm.resume_generation()
        except Exception as error:
            await self.close()  # half-read weights help nobody; the next load starts afresh
            raise EngineError(
                f"vLLM {failed}: {type(error).__name__}: {error}", "its own lines above say more"
            ) from error

    def _start(self, path: str) -> None:
        from vllm import AsyncEngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM

        from cort_vllm.transfer import backend

        given = {
            "model": path,
            "skip_tokenizer_init": True,  # ids in, ids out
            "logprobs_mode": "processed_logprobs",
            "worker_extension_cls": WORKER,
            "weight_transfer_config": {"backend": backend()},
            "enable_sleep_mode": current_platform.is_sleep_mode_available(),
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
        }
        try:
            with _environment(self.devices):
                self._llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**{**given, **self.arguments}))
        except Exception as error:
            raise EngineError(
                f"vLLM did not start with {path}: {_reason(error)}",
                "vLLM's own lines above say more; kv_cache_gb and gpu_memory_utilization say how much memory it takes",
            ) from error
        self.context = self._llm.model_config.max_model_len

    async def generate(
        self, ids: Sequence[int], sampling: Sampling, stop_ids: frozenset[int], copy: int | None = None
    ) -> Tokens:
        from vllm import SamplingParams
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.exceptions import EngineDeadError

        parameters = SamplingParams(
            **_parameters(sampling, stop_ids),
            logprobs=0,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        name = f"cort-{next(self._names)}"
        try:
            made = self._llm.generate(tokens_input(list(ids)), parameters, name, data_parallel_rank=copy)
            async with aclosing(made) as outputs:
                async for output in outputs:
                    (part,) = output.outputs
                    if part.finish_reason in ("abort", "error"):
                        raise EngineError(f"vLLM gave up a request: {part.finish_reason}")
                    yield (
                        part.token_ids,
                        [at[token].logprob for at, token in zip(part.logprobs, part.token_ids, strict=True)],
                    )
        except EngineDeadError as error:
            raise EngineError("vLLM's process has died", "its own lines above say why") from error

    async def sleep(self) -> None:
        if self._llm is not None and self._llm.model_config.enable_sleep_mode:
            await self._llm.sleep(level=1, mode="wait")  # the weights wait in main memory

    async def wake(self) -> None:
        if self._llm is not None and self._llm.model_config.enable_sleep_mode:
            await self._llm.wake_up()

    async def close(self) -> None:
        llm, self._llm, self._sender = self._llm, None, None
        if llm is None:
            return
        if llm.output_handler is not None:
            llm.output_handler.cancel()  # or it takes the end of the processes for a failure, and says so at length
        await asyncio.to_thread(llm.shutdown)


class Served:
    """A ``vllm serve`` that runs somewhere. New weights come by the endpoints of its development mode."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.context = 0
        self.copies = 1
        self.sends = os.environ.get("RANK", "0") == "0"
        self._client: Any = None
        self._model = ""
        self._sender: Sender | None = None

    async def load(self, path: str) -> None:
        root = await self._connect()
        async with self._paused(needed=root != path) as paused:
            if paused:  # or it takes no weights, but those that it was started with are meant
                order = {"method": "cort_load_weights", "args": [path]}
                await self._ask("POST", "/collective_rpc", json=order)

    async def send(self, path: str, tensors: Mapping[str, Tensor], version: int) -> None:
        from cort_vllm.transfer import Sender

        await self._connect()
        if self._sender is None:
            workers = (await self._ask("GET", "/get_world_size")).json()["world_size"]
            self._sender = Sender(self._transfer, workers, self._own_address())
        sender, self._sender = self._sender, None  # after a failure, the next one meets the workers anew
        async with self._paused(needed=True):
            await sender.send(tensors)
            await self._ask("POST", "/update_weight_version", json={"new_version": _mark(version)})
        self._sender = sender

    async def arrival(self, version: int) -> None:
        from cort_vllm.transfer import TRANSFER_S

        await self._connect()
        try:
            async with asyncio.timeout(TRANSFER_S):
                while (await self._ask("GET", "/weight_info")).json()["weight_version"] != _mark(version):
                    await asyncio.sleep(0.2)
        except TimeoutError as error:
            raise EngineError(
                f"the first process did not send weights to vLLM at {self.url} within {TRANSFER_S} s",
                "the first error in the stage's launch/ folder says more",
            ) from error

    async def _transfer(self, call: str, **arguments: Any) -> None:
        await self._ask("POST", f"/{call}", json=arguments or None)

    async def _connect(self) -> str:
        """The model that the server was started with."""
        import httpx

        if self._client is None:
            limits = httpx.Limits(max_connections=None)  # vLLM queues, not we
            timeout = httpx.Timeout(None, connect=30)  # how long an answer may take is for the rollout to say
            self._client = httpx.AsyncClient(base_url=self.url, timeout=timeout, limits=limits)
        card = (await self._ask("GET", "/v1/models")).json()["data"][0]
        self._model, self.context = card["id"], card["max_model_len"]
        return str(card["root"])

    @asynccontextmanager
    async def _paused(self, needed: bool) -> AsyncIterator[bool]:
        """While the server generates nothing; ``False`` where it cannot be paused and that is not needed."""
        if await self._ask("POST", "/pause", params={"mode": "wait"}, missing=not needed) is None:
            yield False
            return
        try:
            yield True
        except BaseException:
            with suppress(EngineError):
                await self._ask("POST", "/resume")
            raise
        await self._ask("POST", "/resume")

    def _own_address(self) -> str:
        """Of this machine, on the way to the server."""
        server = urlsplit(self.url)
        with socket.create_connection((server.hostname, server.port or 80), timeout=30) as way:
            return str(way.getsockname()[0])

    async def generate(
        self, ids: Sequence[int], sampling: Sampling, stop_ids: frozenset[int], copy: int | None = None
    ) -> Tokens:
        import httpx

        body = {
            **_parameters(sampling, stop_ids),
            "model": self._model,
            "prompt": list(ids),
            "logprobs": 0,
            "return_token_ids": True,
            "stream": True,
            # what the checkpoint's generation config would otherwise set
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "frequency_penalty": 0.0,
            "presence_penalty": 0.0,
        }
        try:
            async with self._client.stream("POST", "/v1/completions", json=body) as response:
                if response.status_code != 200:
                    raise self._refused(
                        response.status_code, (await response.aread()).decode(errors="replace")
                    )
                async for line in response.aiter_lines():
                    if not line.startswith("data: ") or line == "data: [DONE]":
                        continue
                    event = json.loads(line.removeprefix("data: "))
                    if "choices" not in event:
                        raise EngineError(
                            f"vLLM at {self.url} gave up a request: {event.get('error', event)}"
                        )
                    for choice in event["choices"]:
                        yield choice["token_ids"], choice["logprobs"]["token_logprobs"]
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    async def sleep(self) -> None:
        """Its devices are not the trainer's."""

    async def wake(self) -> None: ...

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _ask(self, method: str, path: str, *, missing: bool = False, **content: Any) -> Any:
        """The response; ``None`` where the server has no such endpoint and ``missing`` allows it."""
        import httpx

        try:
            response = await self._client.request(method, path, **content)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if response.status_code == 404 and missing:
            return None
        if response.status_code == 404:
            raise RequestError(
                f"vLLM at {self.url} takes no new weights: it has no {path}",
                f"start it with VLLM_SERVER_DEV_MODE=1 and --worker-extension-cls {WORKER}, where only this run reaches it",
            )
        if response.status_code >= 400:
            raise self._refused(response.status_code, response.text, path)
        return response

    def _refused(self, status: int, text: str, path: str = "/v1/completions") -> EngineError:
        hint = None
        if path == "/collective_rpc":
            hint = f"for new weights it is started with --worker-extension-cls {WORKER}, with cort-vllm installed beside it"
        elif path == "/init_weight_transfer_engine":
            from cort_vllm.transfer import backend

            setting = f"--weight-transfer-config '{json.dumps({'backend': backend()})}'"
            hint = f"for weights that are sent it is started with {setting}, beside --worker-extension-cls {WORKER}"
        return EngineError(f"vLLM at {self.url} answered {status} to {path}: {text[:500]}", hint)

    def _unreachable(self, error: Exception) -> EngineError:
        return EngineError(
            f"vLLM at {self.url} cannot be reached: {str(error) or type(error).__name__}",
            "is `vllm serve` up?",
        )


def _mark(version: int) -> str:
    """By which the processes of one training know the weights of theirs."""
    return f"{os.environ.get('TORCHELASTIC_RUN_ID', 'alone')}-{version}"


@contextmanager
def _environment(devices: str | None) -> Iterator[None]:
    """Without what a launcher of many processes tells each of them: vLLM's processes would wait for that world's others.
    With the GPUs that are vLLM's, where they are not this process's."""
    names = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    prefixes = ("TORCHELASTIC_", "GROUP_", "ROLE_")
    given = {OWNER: str(os.getpid())}
    if devices is not None:
        given["CUDA_VISIBLE_DEVICES"] = devices
    names |= given.keys()
    taken = {name: os.environ[name] for name in os.environ if name in names or name.startswith(prefixes)}
    for name in taken:
        del os.environ[name]
    os.environ.update(given)
    try:
        yield
    finally:
        for name in given:
            del os.environ[name]
        os.environ.update(taken)


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(fault["msg"] for fault in error.errors())
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _parameters(sampling: Sampling, stop_ids: frozenset[int]) -> dict[str, Any]:
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": sampling.seed,
        "ignore_eos": True,  # what ends a sequence is for the framework's tokenizer to say
        "stop_token_ids": sorted(stop_ids),
    }
