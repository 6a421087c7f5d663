"""Weights from the trainer's memory into vLLM's workers, by vLLM's own weight transfer: over NCCL between GPUs, over gloo
between processors.

vLLM's workers have a transfer engine each, which a trainer's process meets in a process group and receives from one
tensor after another. On GPUs that engine is vLLM's own, ``nccl``. vLLM has none for processors; ``gloo`` is that same one
over another group. Whatever the group, the calls are the same, and so is the way here.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.nccl_common import NCCLWeightTransferInitInfo
from vllm.distributed.weight_transfer.nccl_engine import (
    NCCLWeightTransferEngine,
    NCCLWeightTransferUpdateInfo,
)

from cort_framework.errors import EngineError

TRANSFER_S = 600
"""How long one transfer, or one meeting, may take."""

T = TypeVar("T")
Ask = Callable[..., Awaitable[Any]]
"""``ask("update_weights", update_info=...)``: one of the calls of vLLM's weight transfer, to all of its workers."""


class Sender:
    """The trainer's end: rank 0 of a group with all workers of one vLLM."""

    def __init__(self, ask: Ask, workers: int, address: str) -> None:
        """``address``: of this machine, as the workers see it."""
        self._ask = ask
        self._workers = workers
        self._address = address
        self._group: Any = None

    async def send(self, tensors: Mapping[str, Tensor]) -> None:
        """Into all workers, by the names of a checkpoint. Raises ``EngineError`` where that takes longer than it may; after
        any error, what the workers have is not to be used."""
        described = {
            "names": list(tensors),
            "dtype_names": [str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()],
            "shapes": [list(tensor.shape) for tensor in tensors.values()],
        }
        try:
            async with asyncio.timeout(TRANSFER_S):
                if self._group is None:
                    self._group = await self._meet()
                await self._ask("start_weight_update")
                await _both(
                    self._ask("update_weights", update_info=described),
                    _in_thread(lambda: _broadcast(self._group, tensors)),
                )
                await self._ask("finish_weight_update")
        except TimeoutError as error:
            raise EngineError(
                f"the weights did not reach vLLM's workers within {TRANSFER_S} s",
                f"they have to reach this machine at {self._address}",
            ) from error

    async def _meet(self) -> Any:
        meeting = {
            "master_address": self._address,
            "master_port": _free_port(),
            "world_size": 1 + self._workers,
        }
        workers = self._ask("init_weight_transfer_engine", init_info={**meeting, "rank_offset": 1})
        return await _both(workers, _in_thread(lambda: _join(meeting)))


def backend() -> str:
    """The transfer engine that vLLM's workers have to be started with."""
    return "nccl" if torch.cuda.is_available() else "gloo"


def _join(meeting: dict[str, Any]) -> Any:
    if backend() == "gloo":
        return Gloo(**meeting, rank=0)
    from vllm.distributed.weight_transfer.nccl_common import trainer_init

    return trainer_init(meeting)


def _broadcast(group: Any, tensors: Mapping[str, Tensor]) -> None:
    """One by one: vLLM can pack them for NCCL, but not for gloo, and both go one way here."""
    on_gpu = backend() == "nccl"
    for tensor in tensors.values():
        group.broadcast(tensor.detach().to("cuda" if on_gpu else "cpu").contiguous(), src=0)
    if on_gpu:
        torch.cuda.synchronize()  # until here they are only queued


# --- processors ------------------------------------------------------------------------------------------------------
class Gloo:
    """What vLLM's NCCL communicator is to its transfer engines, for processors."""

    def __init__(self, master_address: str, master_port: int, world_size: int, rank: int) -> None:
        from torch.distributed import PrefixStore, ProcessGroupGloo, TCPStore

        patience = timedelta(seconds=TRANSFER_S)
        store = TCPStore(master_address, master_port, world_size, rank == 0, patience)
        self._group = ProcessGroupGloo(PrefixStore("cort", store), rank, world_size, patience)

    def broadcast(self, tensor: Tensor, src: int, stream: None = None) -> None:
        options = torch.distributed.BroadcastOptions()
        options.rootRank = src
        self._group.broadcast([tensor], options).wait()


class GlooReceiver(NCCLWeightTransferEngine):
    """A worker's end on a processor: vLLM's ``nccl``, with another group and without streams."""

    def init_transfer_engine(self, init_info: NCCLWeightTransferInitInfo) -> None:
        own = self.parallel_config
        rank = init_info.rank_offset + own.data_parallel_index * own.world_size + own.rank
        assert init_info.master_address is not None and init_info.master_port is not None
        self.model_update_group = Gloo(
            init_info.master_address, init_info.master_port, init_info.world_size, rank
        )

    def update_weights(self, update_info: dict[str, Any]) -> None:
        self.receive_weights(self.parse_update_info(update_info))  # and no device to wait for

    def receive_weights(self, update_info: NCCLWeightTransferUpdateInfo) -> None:
        for name, dtype, shape in zip(
            update_info.names, update_info.dtype_names, update_info.shapes, strict=True
        ):
            weight = torch.empty(shape, dtype=getattr(torch, dtype), device="cpu")
            self.model_update_group.broadcast(weight, src=0)
            self.model.load_weights([(name, weight)])

    def finish_weight_update(self) -> None:
        from cort_vllm.worker import repack_head

        super().finish_weight_update()
        repack_head(self.model)


def register() -> None:
    """Make ``gloo`` known to the process that a worker lives in."""
    if "gloo" not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine("gloo", GlooReceiver)


# --- waiting ---------------------------------------------------------------------------------------------------------
async def _both(asked: Awaitable[Any], here: Awaitable[T]) -> T:
    """Both at once, since each waits for the other. What fails first ends it, and what is here."""
    tasks = asyncio.ensure_future(asked), asyncio.ensure_future(here)
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task in done:
                task.result()
        return tasks[1].result()
    finally:
        for task in tasks:
            task.cancel()


def _in_thread(work: Callable[[], T]) -> Awaitable[T]:
    """In a daemon of its own: where the other end has gone, it must not keep this process from ending."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="cort-weights", daemon=True).start()
    return asyncio.wrap_future(future)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])
