"""Two ways to get a kernel process, with one interface: forked from a warm template, or started cold."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
from abc import ABC, abstractmethod
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import zmq.asyncio
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager

from cort_framework import InfrastructureError
from cort_python.client import KernelClient, ipc_connection
from cort_python.folders import KERNEL_OPTIONS, clean_environment, new_root
from cort_python.template import ForkedKernel, Template


class KernelProcess(ABC):
    """A kernel that answers at ``connection``; ``exited`` becomes its exit code, negative for a signal."""

    connection: dict[str, Any]
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
    """Where kernel processes come from."""

    @abstractmethod
    async def start(self, seed: int) -> KernelProcess:
        """A kernel that is ready, or ``InfrastructureError``. Cancelled, it leaves nothing behind."""

    async def warm(self) -> None:  # noqa: B027 - only where there is something to warm
        """Wait until kernels can start quickly, or raise ``InfrastructureError``."""

    @abstractmethod
    async def close(self) -> None: ...


# --- forked -----------------------------------------------------------------------------------------------------
class ForkBackend(Backend):
    """Kernels forked from one template, which is started again should it end."""

    def __init__(self, preload: list[str], **options: Any) -> None:
        self.preload = preload
        self.options = options
        self._numbers = count(1)
        self._template = Template(preload)

    async def warm(self) -> None:
        await asyncio.shield(asyncio.wrap_future(self._template.warm))

    async def start(self, seed: int) -> KernelProcess:
        if not self._template.alive:
            self._template = Template(self.preload)
        await self.warm()
        folder = self._template.folder / str(next(self._numbers))
        connection = ipc_connection(folder)
        environment = {"HOME": str(folder), "TMPDIR": str(folder)}
        forked = self._template.fork(connection, folder, seed=seed, environment=environment, **self.options)
        process = ForkedProcess(forked, connection, folder)
        try:
            await asyncio.shield(asyncio.wrap_future(forked.ready))
        except BaseException:
            process.kill()
            raise
        return process

    async def close(self) -> None:
        await asyncio.to_thread(self._template.close)


class ForkedProcess(KernelProcess):
    def __init__(self, forked: ForkedKernel, connection: dict[str, Any], folder: Path) -> None:
        self.forked = forked
        self.connection = connection
        self.folder = folder
        self.exited = asyncio.wrap_future(forked.exited)
        self.exited.add_done_callback(
            lambda future: future.cancelled() or future.exception()
        )  # may go unread

    def interrupt(self) -> None:
        self.forked.send_signal(signal.SIGINT)

    def kill(self) -> None:
        self.forked.send_signal(signal.SIGKILL)

    async def gone(self) -> None:
        with suppress(InfrastructureError):
            await asyncio.shield(self.exited)
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)


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
        self._numbers = count(1)

    async def start(self, seed: int) -> KernelProcess:
        folder = self.root / str(next(self._numbers))
        folder.mkdir()
        manager = AsyncKernelManager(
            kernel_name="cort-local",
            kernel_spec_manager=ColdSpec(),
            connection_file=str(folder / "kernel.json"),
            transport="tcp" if sys.platform == "win32" else "ipc",
        )
        manager.ip = "127.0.0.1" if sys.platform == "win32" else str(folder / "k")
        environment = {
            **clean_environment(folder),
            KERNEL_OPTIONS: json.dumps({**self.options, "seed": seed}),
        }
        launching = asyncio.ensure_future(manager.start_kernel(env=environment, cwd=str(folder)))
        try:
            await asyncio.shield(launching)
        except asyncio.CancelledError:
            launching.add_done_callback(lambda _: ColdProcess(manager, folder).kill())
            raise
        except Exception as error:
            raise InfrastructureError(f"a kernel could not start: {error}") from error
        process = ColdProcess(manager, folder)
        client = KernelClient(self.context, process.connection)
        ready = asyncio.ensure_future(client.ready())
        try:
            either: set[asyncio.Future[Any]] = {ready, process.exited}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                raise InfrastructureError(
                    f"a kernel ended before it was ready (exit code {process.exited.result()})"
                )
        except BaseException:
            process.kill()
            raise
        finally:
            ready.cancel()
            client.close()
        return process

    async def close(self) -> None:
        await asyncio.to_thread(shutil.rmtree, self.root, ignore_errors=True)


class ColdProcess(KernelProcess):
    def __init__(self, manager: AsyncKernelManager, folder: Path) -> None:
        self.manager = manager
        self.folder = folder
        self.connection = dict(manager.get_connection_info())
        self.process = manager.provisioner.process  # type: ignore[union-attr]
        self.exited = asyncio.ensure_future(self._watch())

    async def _watch(self) -> int:
        while (status := self.process.poll()) is None:
            await asyncio.sleep(0.05)
        return int(status)

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        self.process.kill()

    async def gone(self) -> None:
        await asyncio.shield(self.exited)
        self.manager.cleanup_connection_file()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)
