"""Ways to get a kernel, with one interface: forked from a warm template (with Jupyter or without), or started cold."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import zmq.asyncio
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager

from cort_framework import InfrastructureError
from cort_framework.machine.scratch import remove_scratch
from cort_python.client import Client, KernelClient, LiteClient, ipc_connection
from cort_python.folders import KERNEL_OPTIONS, WORK, clean_environment, new_root, remove_tree
from cort_python.isolation import Layer, Limits, Policy, State
from cort_python.leases import Lease
from cort_python.outcomes import describe_exit
from cort_python.template import ForkedKernel, Template

_numbers = count(1)
"""Name the kernels' folders, all equally long: what is wrapped where a path ends must not depend on the path."""


class Kernel(ABC):
    """A kernel's process, and the client that talks to it. ``exited`` becomes its exit code, negative for a signal."""

    client: Client
    exited: asyncio.Future[int]

    @abstractmethod
    def interrupt(self) -> None:
        """SIGINT."""

    @abstractmethod
    def kill(self) -> None:
        """Ask for its end, at once and without waiting, so that a cancelled call can do it."""

    @abstractmethod
    async def gone(self) -> None:
        """Wait until a killed process is reaped and its folder removed."""


class Backend(ABC):
    """Where kernels come from."""

    layers: Mapping[Layer, State] = {}
    """What isolates them; there after ``warm``."""

    @abstractmethod
    async def start(self) -> Kernel:
        """A kernel that is ready, or ``InfrastructureError``. Cancelled, it leaves nothing behind."""

    async def warm(self) -> None:  # noqa: B027 - only where there is something to warm
        """Wait until kernels can start quickly, or raise ``InfrastructureError``."""

    @abstractmethod
    async def close(self) -> None: ...


# --- forked -----------------------------------------------------------------------------------------------------
class ForkBackend(Backend):
    """Forks of a template, which is shared with other tools and started again should it end. ``lite``: without Jupyter."""

    def __init__(
        self,
        preload: list[str],
        context: zmq.asyncio.Context,
        *,
        limits: Limits,
        policy: Policy,
        output_limit: int,
        lite: bool = False,
    ) -> None:
        self.context = context
        self.limits = limits
        self.output_limit = output_limit
        self.lite = lite
        self._lease = Lease(tuple(preload), kernels=not lite, policy=policy)

    @property
    def template(self) -> Template:
        """The template, alive."""
        return self._lease.template

    async def warm(self) -> None:
        await asyncio.shield(noted(self.template.warm))
        self.layers = self.template.layers

    async def start(self) -> Kernel:
        template = self.template
        await asyncio.shield(noted(template.warm))
        folder = template.folder / f"{next(_numbers):06}"
        connection = {"lite": f"{folder}/k"} if self.lite else ipc_connection(folder)
        forked = template.fork(
            connection,
            folder,
            limits=self.limits,
            output_limit=self.output_limit,
            work=True,
            environment=dict.fromkeys(("HOME", "TMPDIR"), str(folder / WORK)),
        )
        try:
            await asyncio.shield(noted(forked.ready))
            # not before: who connects to what is not there yet is made to wait
            client = LiteClient(folder / "k") if self.lite else KernelClient(self.context, connection)
            kernel = Fork(forked, client, folder)
            await answered(kernel)
        except BaseException:
            forked.send_signal(signal.SIGKILL)
            await gone(noted(forked.exited), folder)
            raise
        return kernel

    async def close(self) -> None:
        await asyncio.to_thread(self._lease.close)


def noted(future: Future[int]) -> asyncio.Future[int]:
    """The same for this loop; nobody need read what becomes of it."""
    here = asyncio.wrap_future(future)
    here.add_done_callback(lambda done: done.cancelled() or done.exception())
    return here


async def answered(kernel: Kernel) -> None:
    """Wait until a new kernel has answered. Raises ``InfrastructureError`` where it ends instead."""
    touched = asyncio.ensure_future(kernel.client.touch())
    try:
        either: set[asyncio.Future[Any]] = {touched, kernel.exited}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not touched.done():
            how = describe_exit(kernel.exited.result())
            raise InfrastructureError(f"a kernel ended before it was ready ({how})")
    except BaseException:
        touched.cancel()
        kernel.client.close()
        raise


async def gone(exited: asyncio.Future[int], folder: Path) -> None:
    """Wait for a kernel's end and remove its folder."""
    with suppress(InfrastructureError):
        await asyncio.shield(exited)
    await asyncio.to_thread(remove_tree, folder)


class Fork(Kernel):
    def __init__(self, forked: ForkedKernel, client: Client, folder: Path) -> None:
        self.forked = forked
        self.client = client
        self.folder = folder
        self.exited = noted(forked.exited)

    def interrupt(self) -> None:
        self.forked.send_signal(signal.SIGINT)

    def kill(self) -> None:
        self.client.close()
        self.forked.send_signal(signal.SIGKILL)

    async def gone(self) -> None:
        await gone(self.exited, self.folder)


# --- cold -------------------------------------------------------------------------------------------------------
class ColdSpec(KernelSpecManager):
    """Names one kernel: ours, started by jupyter-client's local provisioner whatever else is configured."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(
            argv=[sys.executable, "-P", "-m", "cort_python.cold", "-f", "{connection_file}"],
            display_name="Python",
            language="python",
            metadata={"kernel_provisioner": {"provisioner_name": "local-provisioner"}},
        )


class LocalBackend(Backend):
    """Ordinary kernels: some twenty times slower to start, but they run wherever Jupyter does."""

    def __init__(self, preload: list[str], context: zmq.asyncio.Context, **options: Any) -> None:
        self.options = {"preload": preload, **options}
        self.context = context
        self.root = new_root()

    async def start(self) -> Kernel:
        folder = self.root / f"{next(_numbers):06}"
        work = folder / WORK
        work.mkdir(parents=True)
        manager = AsyncKernelManager(
            kernel_name="cort-local",
            kernel_spec_manager=ColdSpec(),
            connection_file=str(folder / "kernel.json"),
            transport="tcp" if sys.platform == "win32" else "ipc",
        )
        manager.ip = "127.0.0.1" if sys.platform == "win32" else str(folder / "k")
        environment = {
            **clean_environment(work),
            KERNEL_OPTIONS: json.dumps(self.options),
        }
        launching = asyncio.ensure_future(manager.start_kernel(env=environment, cwd=str(work)))
        try:
            await asyncio.shield(launching)
        except asyncio.CancelledError:
            launching.add_done_callback(lambda _: manager.provisioner.process.kill())  # type: ignore[union-attr]
            raise
        except Exception as error:
            raise InfrastructureError(f"a kernel could not start: {error}") from error
        client = KernelClient(self.context, dict(manager.get_connection_info()))
        kernel = Cold(manager, client, folder)
        try:
            await answered(kernel)
        except BaseException:
            kernel.kill()
            raise
        return kernel

    async def close(self) -> None:
        await asyncio.to_thread(remove_tree, self.root)
        remove_scratch(self.root)


class Cold(Kernel):
    def __init__(self, manager: AsyncKernelManager, client: Client, folder: Path) -> None:
        self.manager = manager
        self.client = client
        self.folder = folder
        self.process = manager.provisioner.process  # type: ignore[union-attr]
        self.exited = asyncio.ensure_future(self._watch())

    async def _watch(self) -> int:
        while (status := self.process.poll()) is None:
            await asyncio.sleep(0.05)
        return int(status)

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        self.client.close()
        self.process.kill()

    async def gone(self) -> None:
        await gone(self.exited, self.folder)
        self.manager.cleanup_connection_file()
