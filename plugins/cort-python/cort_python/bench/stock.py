"""The baseline that everybody knows: an ordinary ipykernel and jupyter-client's own client."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager


class OneSpec(KernelSpecManager):
    """Finds one kernel spec, whatever is installed: ipykernel's own, or with ``preload`` ours, forked."""

    def __init__(self, preload: list[str] | None = None) -> None:
        super().__init__()
        self.preload = preload

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        if self.preload is None:
            module, provisioner = "ipykernel_launcher", {"provisioner_name": "local-provisioner"}
        else:
            module = "cort_python.cold"
            provisioner = {"provisioner_name": "cort-fork", "config": {"preload": self.preload}}  # type: ignore[dict-item]
        return KernelSpec(
            argv=[sys.executable, "-m", module, "-f", "{connection_file}"],
            display_name="Python",
            language="python",
            metadata={"kernel_provisioner": provisioner},
        )


class Messages:
    """What a cell showed, as a client collects it: (kind, content) in order, a stream's pieces joined."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, Any]] = []

    def __call__(self, message: dict[str, Any]) -> None:
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            kind, value = content["name"], content["text"]
            if self.shown and self.shown[-1][0] == kind:
                value = self.shown.pop()[1] + value
        elif kind in ("execute_result", "display_data"):
            value = content["data"]
        elif kind == "error":
            value = (content["ename"], content["evalue"])
        else:
            return
        self.shown.append((kind, value))


class StockKernel:
    """A started kernel, stock client connected."""

    def __init__(self, manager: AsyncKernelManager, client: AsyncKernelClient) -> None:
        self.manager = manager
        self.client = client

    async def run(self, code: str) -> list[tuple[str, Any]]:
        messages = Messages()
        await self.client.execute_interactive(code, output_hook=messages, timeout=120, allow_stdin=False)
        return messages.shown


@asynccontextmanager
async def stock_kernel(preload: list[str] | None = None) -> AsyncIterator[StockKernel]:
    """An ordinary kernel, or with ``preload`` one of ours, driven by jupyter-client alone."""
    manager = AsyncKernelManager(kernel_name="bench", kernel_spec_manager=OneSpec(preload))
    with tempfile.TemporaryDirectory() as folder:
        await manager.start_kernel(cwd=folder)
        client = manager.client()
        client.start_channels()
        try:
            await client.wait_for_ready(timeout=120)
            yield StockKernel(manager, client)
        finally:
            client.stop_channels()
            await manager.shutdown_kernel(now=True)
