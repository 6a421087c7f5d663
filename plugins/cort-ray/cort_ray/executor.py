"""Executor ``ray``: trajectories are made wherever the cluster has room, and each comes back as it is done."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import Field

from cort_framework import (
    Executor,
    InfrastructureError,
    PluginConfig,
    RequestError,
    RolloutRequest,
    Trajectory,
)
from cort_framework.errors import DeadlineExceeded
from cort_framework.executor import RolloutJob
from cort_framework.runtime import Runtime

CLOSE_S = 30
"""Seconds that workers get to end their kernels and engines."""


@dataclass(eq=False)
class Hand:
    """The driver's side of one worker."""

    actor: Any
    ready: bool = False
    """Its plugins are open and its engine has the weights."""
    at_work: set[Any] = field(default_factory=set)
    """What it has been asked for and has not given back."""


class RayExecutor(Executor):
    """Keeps a worker process for each share of the cluster. A worker that is lost, with its machine or without, loses no
    trajectory: what it was at is made again, from the same seed, by another one."""

    name = "ray"
    requires = ("ray>=2.50",)

    class Config(PluginConfig):
        address: str | None = None
        """`host:port` of a running cluster; `auto`: the one of `RAY_ADDRESS`, or that was started on this machine; `local`:
        a cluster of this machine alone that begins and ends with the run. Not given: `auto` where there is one, and else
        `local`."""
        workers: int | None = Field(default=None, ge=1)
        """Processes that roll out; by default one for each machine of the cluster."""
        cpus: float = Field(default=1, ge=0)
        """Processor cores that Ray sets aside for each."""
        gpus: float = Field(default=0, ge=0)
        """GPUs that Ray sets aside for each."""
        start_timeout_s: float = Field(default=600, gt=0)
        """Seconds until at least one worker has its plugins open and its weights loaded."""
        replacements: int = Field(default=8, ge=0)
        """Workers that are started for lost ones, in one run."""

    config: Config

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._hands: list[Hand] = []
        self._replaced = 0
        self._own_cluster = False

    def map(self, job: RolloutJob, runtime: Runtime) -> Iterator[list[Trajectory]]:
        """Raises ``RequestError`` where the weights are a live module, ``InfrastructureError`` where no worker is left or
        none starts, ``DeadlineExceeded`` after the job's ``batch_timeout_s``."""
        if job.weights.module is not None:
            raise RequestError(
                "workers of the executor 'ray' cannot sample from a model that lives in another process",
                'write the weights to a folder at every step (`placement = "disk"` in the options of the trainer), on a'
                " file system that all machines share",
            )
        deadline = time.monotonic() + job.settings.batch_timeout_s
        try:
            yield from self._lines(job, runtime, deadline)
        except BaseException:  # also where nobody wants the rest: no worker may go on with it
            self._dismiss()
            raise

    # --- one batch --------------------------------------------------------------------------------------------
    def _lines(self, job: RolloutJob, runtime: Runtime, deadline: float) -> Iterator[list[Trajectory]]:
        import ray
        from ray.exceptions import RayActorError, RayTaskError

        self._connect(ray)
        waiting = deque(job.requests)
        empty = replace(job, requests=())
        asked: dict[Any, tuple[Hand, RolloutRequest | None]] = {}
        """What is under way: a request, or the preparation that comes before the first one."""

        def ask(hand: Hand, request: RolloutRequest | None) -> None:
            call = hand.actor.prepare.remote(empty) if request is None else hand.actor.line.remote(request)
            asked[call] = (hand, request)
            hand.at_work.add(call)

        count = self.config.workers or sum(node["Alive"] for node in ray.nodes())
        share = math.ceil(job.settings.concurrency / count)
        while len(self._hands) < count:
            self._hands.append(self._hire(ray, job, runtime, share))
        for hand in self._hands:
            hand.ready = False
            ask(hand, None)
        start_by = time.monotonic() + self.config.start_timeout_s

        missing = len(job.requests)
        while missing:
            for hand in sorted(self._hands, key=lambda hand: len(hand.at_work)):
                while hand.ready and waiting and len(hand.at_work) < share:
                    ask(hand, waiting.popleft())
            if not asked:
                raise InfrastructureError(
                    "no worker of the executor 'ray' is left",
                    "`ray status` shows the cluster; `replacements` says how many lost workers are replaced",
                )
            limit = deadline
            if not any(hand.ready for hand in self._hands):
                limit = min(deadline, start_by)
            done, _ = ray.wait(list(asked), timeout=max(0.0, limit - time.monotonic()))
            if not done and limit == deadline:
                raise DeadlineExceeded(
                    f"the batch of {len(job.requests)} rollouts did not end within {job.settings.batch_timeout_s:g} s"
                )
            if not done:
                raise InfrastructureError(
                    f"no worker of the executor 'ray' was ready within {self.config.start_timeout_s:g} s",
                    f"each wants {self.config.cpus:g} cores and {self.config.gpus:g} GPUs, and the cluster has free: "
                    f"{ray.available_resources()}",
                )
            for call in done:
                hand, request = asked.pop(call)
                hand.at_work.discard(call)
                try:
                    answer = ray.get(call)
                except RayActorError:
                    if request is not None:
                        waiting.appendleft(request)
                    if hand in self._hands:
                        self._hands.remove(hand)
                        if self._replaced < self.config.replacements:
                            self._replaced += 1
                            other = self._hire(ray, job, runtime, share)
                            self._hands.append(other)
                            ask(other, None)
                    continue
                except RayTaskError as error:  # what the worker raised
                    raise error.cause from error
                if request is None:
                    hand.ready = True
                else:
                    missing -= 1
                    yield answer

    # --- workers ----------------------------------------------------------------------------------------------
    def _connect(self, ray: Any) -> None:
        if ray.is_initialized():
            return
        try:
            ray.init(
                address=self.config.address,
                log_to_driver=False,
                logging_level="WARNING",
                configure_logging=False,
            )
        except Exception as error:  # Ray raises what it likes
            where = f"at {self.config.address}" if self.config.address else "here"
            raise InfrastructureError(
                f"there is no Ray cluster {where}: {str(error).strip() or type(error).__name__}",
                "`ray status` shows the cluster; one of this machine alone fails to start where the machine is very busy:"
                " run again, what is done is kept",
            ) from error
        self._own_cluster = True

    def _hire(self, ray: Any, job: RolloutJob, runtime: Runtime, share: int) -> Hand:
        from cort_ray.worker import Worker

        context = runtime.context
        actor = ray.remote(Worker).options(
            num_cpus=self.config.cpus,
            num_gpus=self.config.gpus,
            max_concurrency=share + 1,
            scheduling_strategy="SPREAD",
        )
        return Hand(actor.remote(context.seed, context.deterministic, context.preload))

    def _dismiss(self) -> None:
        """End all workers: let each close what it has opened, then end its process."""
        import ray

        hands, self._hands = self._hands, []
        if not hands or not ray.is_initialized():
            return
        closing = [hand.actor.close.remote() for hand in hands if hand.ready]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=CLOSE_S)
        for hand in hands:
            ray.kill(hand.actor)

    async def close(self) -> None:
        await asyncio.to_thread(self._leave)

    def _leave(self) -> None:
        import ray

        self._dismiss()
        if self._own_cluster and ray.is_initialized():
            ray.shutdown()
