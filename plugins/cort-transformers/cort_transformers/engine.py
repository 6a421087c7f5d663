"""The engine: one worker thread with a ``Decoder``, fed with futures, so that the event loop stays free for the tools."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

import cort_framework as cort
from cort_framework.errors import EngineError
from cort_framework.machine.footprint import Footprint, Work

if TYPE_CHECKING:
    from cort_transformers.decoder import Decoder, Row
    from cort_transformers.tokenizer import HuggingFaceTokenizer

# Before torch is loaded: its idle threads then sleep. Spinning, they take the processor from the tools and from each
# other: forty times slower was seen on two busy cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

TOLERANCE = {"float32": 1e-4, "bfloat16": 0.25, "float16": 0.05}
"""Largest gap between a sampled log-prob and a plain forward pass, in nats, that rounding explains."""


class TransformersEngine(cort.Engine):
    """Samples from a Hugging Face causal language model in this process.

    Weights are a ``save_pretrained`` folder or hub id, or the trainer's own live module (placement ``shared``: nothing
    is copied). Works with every architecture that calls transformers' attention interface with full attention.
    """

    name = "transformers"
    requires = ("torch>=2.11", "transformers>=5.10")

    class Config(cort.PluginConfig):
        max_batch: int = Field(64, ge=1)
        """Trajectories that generate at the same time; more wait their turn."""
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
        """Number format of the weights; auto: as they were saved."""
        device: str = "auto"
        """``cpu``, ``cuda``, ``cuda:1``; auto: the first GPU, where there is one."""
        threads: int | None = Field(None, ge=1)
        """Processor threads of a forward pass; torch's own number where it is not given. One is best for a model of a
        few million parameters that shares its cores with the tools."""
        keep_mb: int = Field(256, ge=0)
        """Memory for keys and values of trajectories that wait for a tool. Costs time when short, changes no result."""
        tolerance: float | None = Field(None, gt=0)
        """Largest gap, in nats, between sampled log-probs and a plain forward pass; by the number format if not given."""

    config: Config
    tokenizer: HuggingFaceTokenizer

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._inbox: queue.SimpleQueue[Row | Callable[[], None] | None] = queue.SimpleQueue()
        self._worker: threading.Thread | None = None
        self._decoder: Decoder | None = None
        self._own = False
        """The weights are not a trainer's."""
        self._tokenizer_of: str | None = None
        """The checkpoint that the tokenizer came from."""
        self._deterministic = False
        self._widths: dict[tuple[object, ...], int | None] = {}
        """The width that makes a forward pass reproducible, for each shape of model that was checked."""
        self.load_gap = 0.0
        """Of the last load: the largest gap between sampled log-probs and a plain forward pass, in nats."""

    def footprint(self, work: Work) -> Footprint:
        from cort_transformers.memory import footprint

        return footprint(self.config, work)

    def read_tokenizer(self, model: str, download: bool = True) -> HuggingFaceTokenizer:
        from cort_transformers.tokenizer import read_tokenizer

        return read_tokenizer(model, download)

    async def open(self, context: cort.OpenContext) -> None:
        self._deterministic = context.deterministic
        self._worker = threading.Thread(target=self._serve, name="cort-transformers", daemon=True)
        self._worker.start()

    async def close(self) -> None:
        if self._worker is not None:
            self._inbox.put(None)
            await asyncio.to_thread(self._worker.join)
            self._worker = None

    async def load_weights(self, weights: cort.Weights) -> None:
        """Waits for the rows that are being generated, then swaps.

        Raises ``RequestError`` where the path does not exist or cannot be loaded, ``EngineError`` where sampling does
        not agree with the weights.
        """
        await self._on_worker(lambda: self._load(weights))

    async def generate(self, ids: Sequence[int], sampling: cort.Sampling) -> cort.Generation:
        from cort_transformers.decoder import Row

        if self._worker is None or not hasattr(self, "tokenizer"):
            raise EngineError("generate was called before open and load_weights")
        row = Row(list(ids), sampling, self.tokenizer.eos_ids)
        self._inbox.put(row)
        return await asyncio.wrap_future(row.future)  # cancelling it cancels row.future, which frees the row

    async def sleep(self) -> None:
        """Keys and values go, and the weights move off the device, unless they are a trainer's."""
        await self._on_worker(lambda: self._rest("cpu"))

    async def wake(self) -> None:
        await self._on_worker(lambda: self._rest(self._device()))

    def _rest(self, device: str) -> None:
        if self._decoder is not None:
            self._decoder.release()
            if self._own:
                self._decoder.model.to(device)

    # --- the worker thread ------------------------------------------------------------------------------------
    async def _on_worker(self, order: Callable[[], None]) -> None:
        """Have the worker do this as soon as no row is live."""
        done: Future[None] = Future()

        def carry_out() -> None:
            if not done.set_running_or_notify_cancel():
                return
            try:
                with _threads(self.config.threads):
                    order()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)

        if self._worker is None:
            raise EngineError("the engine is not open")
        self._inbox.put(carry_out)
        await asyncio.wrap_future(done)

    def _serve(self) -> None:
        orders: deque[Callable[[], None]] = deque()
        held: deque[Row] = deque()
        while True:
            idle = self._decoder is None or self._decoder.idle
            if idle and orders:
                orders.popleft()()
                continue
            while held and not orders:
                self._submit(held.popleft())
                idle = self._decoder is None or self._decoder.idle
            try:
                item = self._inbox.get(block=idle)
            except queue.Empty:
                assert self._decoder is not None
                self._advance(self._decoder)
                continue
            if item is None:
                break
            if callable(item):
                orders.append(item)
            else:
                held.append(item)  # a row that comes after an order waits for it
        for row in [*held, *(self._decoder.abandon() if self._decoder else ())]:
            row.future.cancel()

    def _submit(self, row: Row) -> None:
        decoder = self._decoder
        if decoder is None:
            error = EngineError("no weights are in place: the last load_weights failed")
        elif not 0 < len(row.ids) < decoder.context:
            error = EngineError(
                f"cannot generate after {len(row.ids)} tokens: the model reads 1 to {decoder.context - 1}",
                "lower the token limits of the recipe",
            )
        else:
            return decoder.submit(row)
        if row.future.set_running_or_notify_cancel():
            row.future.set_exception(error)

    def _advance(self, decoder: Decoder) -> None:
        try:
            with _threads(self.config.threads):
                finished = decoder.step()
        except Exception as error:  # every row in the batch is lost with it; each caller is told
            for row in decoder.abandon():
                if row.future.set_running_or_notify_cancel():
                    row.future.set_exception(error)
            return
        for row in finished:
            if row.generation is not None and row.future.set_running_or_notify_cancel():
                row.future.set_result(row.generation)

    # --- weights ----------------------------------------------------------------------------------------------
    def _load(self, weights: cort.Weights) -> None:
        from cort_transformers.decoder import Decoder
        from cort_transformers.loading import load_model, load_tokenizer
        from cort_transformers.proof import check_reproducible, largest_gap
        from cort_transformers.tokenizer import StopWatch

        before, self._decoder = self._decoder, None  # nothing is sampled from weights that are not proven
        self._own = weights.module is None
        if weights.module is not None:
            model = weights.module
            if weights.path is not None and weights.path != self._tokenizer_of:
                self.tokenizer = load_tokenizer(weights.path, model)
        elif weights.path is not None:
            before = None  # two sets of weights may not fit
            model = load_model(weights.path, self.config.dtype, self._device())
            self.tokenizer = load_tokenizer(weights.path, model)
        else:
            raise EngineError("weights without a path or a module")
        if not hasattr(self, "tokenizer"):
            raise EngineError(
                "a live module brings no tokenizer", "give its checkpoint as the weights' path, too"
            )
        self._tokenizer_of = weights.path or self._tokenizer_of

        decoder = before
        if decoder is None or decoder.model is not model:
            decoder = Decoder(
                model,
                StopWatch(self.tokenizer),
                max_batch=self.config.max_batch,
                keep_bytes=self.config.keep_mb << 20,
            )
            if self._deterministic:
                shape = (model.dtype, model.device, *(weight.shape for weight in model.parameters()))
                if shape not in self._widths:
                    self._widths[shape] = check_reproducible(decoder)
                decoder.width = self._widths[shape]
        decoder.forget()
        decoder.version = weights.version

        self.load_gap = largest_gap(decoder)
        decoder.forget()
        number_format = decoder.number_format
        tolerance = self.config.tolerance or TOLERANCE[number_format]
        if not self.load_gap <= tolerance:
            source = weights.path if self._own else f"the trainer's {type(model).__name__}"
            raise EngineError(
                f"what the engine samples is not what {source} says: log-probs differ by up to "
                f"{self.load_gap:.2g} nats, over the tolerance of {tolerance:g} for {number_format}",
                "the model's attention may need what this engine does not give it (sliding windows, sinks, "
                "soft caps): use another engine, or set the engine's tolerance if this gap is acceptable",
            )
        self._decoder = decoder

    def _device(self) -> str:
        import torch

        if self.config.device != "auto":
            return self.config.device
        return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Set torch's processor threads for as long as this lasts; a trainer in another thread finds its own again."""
    import torch

    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count is not None:
            torch.set_num_threads(before)
