"""Lets any Jupyter client start a forked kernel: the provisioner ``cort-fork``.

A kernel spec names it (``{"metadata": {"kernel_provisioner": {"provisioner_name": "cort-fork"}}}``), as the spec
``cort-python`` that this distribution installs does. One template serves all the kernels of a process.
"""

from __future__ import annotations

import asyncio
import atexit
import signal
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import LocalProvisioner
from traitlets import Enum, Int, List, Unicode

from cort_python.isolation import LAYERS, Limits, Policy
from cort_python.isolation.settings import refuse_without
from cort_python.template import ForkedKernel, Template

_templates: dict[tuple[tuple[str, ...], Policy], Template] = {}


def shared_template(preload: tuple[str, ...], policy: Policy) -> Template:
    """This process's template for that set of modules; it ends with the process."""
    template = _templates.get((preload, policy))
    if template is None or not template.alive:
        template = _templates[preload, policy] = Template(list(preload), policy=policy)
        atexit.register(template.close)
    return template


class ForkProvisioner(LocalProvisioner):
    """Forks where ``LocalProvisioner`` starts a process; the connection is made in the same way."""

    preload = List(Unicode(), config=True, help="Modules that the template imports.")
    output_limit = Int(
        100_000, config=True, help="Characters of a cell's output; of more, the ends are shown."
    )

    require = List(Enum(LAYERS), config=True, help="Layers of isolation without which no kernel starts.")
    without = List(Enum(LAYERS), config=True, help="Layers of isolation to leave out.")
    readable = List(Unicode(), config=True, help="Paths that code may read, besides programs and libraries.")

    forked: ForkedKernel | None = None

    @property
    def has_process(self) -> bool:
        return self.forked is not None

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        if "curve_publickey" in self.connection_info:
            raise RuntimeError("forked kernels do not speak CurveZMQ: set transport_encryption to 'disabled'")
        policy = Policy(readable=tuple(self.readable), without=tuple(self.without), foreign=True)
        template = shared_template(tuple(self.preload), policy)
        await asyncio.wrap_future(template.warm)
        refuse_without(self.require, template.layers)
        key = self.connection_info["key"]
        connection = {**self.connection_info, "key": key.decode() if isinstance(key, bytes) else key}
        folder = Path(kwargs.get("cwd") or Path.cwd()).resolve()
        self.forked = template.fork(
            connection,
            folder,
            output_limit=self.output_limit,
            limits=Limits(None, None, None, None, None),
            environment=kwargs.get("env") or {},
        )
        self.pid = await asyncio.wrap_future(self.forked.ready)
        return self.connection_info

    async def poll(self) -> int | None:
        if self.forked is None:
            return 0
        return self.forked.exited.result() if self.forked.exited.done() else None

    async def wait(self) -> int | None:
        status = 0 if self.forked is None else await asyncio.wrap_future(self.forked.exited)
        self.forked = None
        return status

    async def send_signal(self, signum: int) -> None:
        if self.forked is not None:
            self.forked.send_signal(signum)

    async def kill(self, restart: bool = False) -> None:
        await self.send_signal(signal.SIGKILL)

    async def terminate(self, restart: bool = False) -> None:
        await self.send_signal(signal.SIGTERM)
