"""Tool ``python``: one persistent kernel a trajectory, started at its first call."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from cort_framework import (
    InfrastructureError,
    OpenContext,
    Outcome,
    PluginConfig,
    Task,
    Tool,
    ToolCall,
    ToolResult,
    derive_seed,
)

if TYPE_CHECKING:
    from cort_python.client import CellReply, KernelClient
    from cort_python.processes import Backend, KernelProcess

RESTARTED = "[the session has restarted since the last call; all variables are gone]"
INTERRUPTED = "[the call was interrupted after {seconds:g} s; variables are kept]"
KILLED = "[the call was ended after {seconds:g} s and the session restarted; all variables are gone]"
DIED = "[the Python process ended ({how}) and the session restarted; all variables are gone]"
"""What the model reads, after what the cell had printed (where that is known), when a call did not end by itself."""


class PythonTool(Tool):
    """A real IPython session a trajectory: state persists, a last expression is echoed, ``await`` and magics work."""

    name = "python"
    language = "python"
    aliases = ("py", "python3")
    requires = ("ipykernel>=7.0", "jupyter-client>=8.6")
    description = "Runs Python code in a session that keeps its variables, and shows what it prints."
    parameters: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {"code": {"type": "string", "description": "Python code to run"}},
        "required": ["code"],
        "additionalProperties": False,
    }

    class Config(PluginConfig):
        timeout_s: float = Field(default=30.0, gt=0)
        """Seconds that a call may take; then it is interrupted, and the session ended if that does not help."""
        grace_s: float = Field(default=1.0, gt=0)
        """Seconds between the interrupt and the end."""
        output_limit: int = Field(default=800, ge=2)
        """Characters of a call's output: of a longer one the first and last half are shown (the paper: 800)."""
        memory_mb: int | None = Field(default=2048, gt=0)
        """Address space that a session may take for itself; code that asks for more gets a MemoryError. Linux."""
        max_kernels: int = Field(default=64, gt=0)
        """Sessions that have a kernel at the same time; the first call of another one waits for its turn."""
        start_timeout_s: float = Field(default=45.0, gt=0)
        """Seconds that the first call may wait for its turn and its kernel."""
        preload: tuple[str, ...] = ()
        """Modules that are imported before any session starts, so that importing them there takes no time. Numpy's
        global generator is seeded only where numpy is among them."""
        backend: Literal["auto", "fork", "local"] = "auto"
        """``fork``: kernels forked from a warm template (Linux); ``local``: ordinary kernels, started one by one."""

    config: Config

    async def open(self, context: OpenContext) -> None:
        from cort_python.client import new_context
        from cort_python.processes import ForkBackend, LocalBackend
        from cort_python.template import can_fork

        preload = list(dict.fromkeys((*self.config.preload, *context.preload)))
        options = {"output_limit": self.config.output_limit, "memory_mb": self.config.memory_mb}
        self.zmq = new_context()
        self.places = asyncio.Semaphore(self.config.max_kernels)
        self.ending: set[asyncio.Task[None]] = set()
        self.backend: Backend
        if self.config.backend == "fork" or (self.config.backend == "auto" and can_fork()):
            self.backend = ForkBackend(preload, **options)
        else:
            self.backend = LocalBackend(preload, self.zmq, **options)
        await self.backend.warm()

    async def close(self) -> None:
        if self.ending:
            await asyncio.wait(self.ending)
        await self.backend.close()
        self.zmq.destroy(linger=0)

    @asynccontextmanager
    async def session(self, task: Task, *, trajectory_id: str, seed: int) -> AsyncIterator[PythonSession]:
        session = PythonSession(self, derive_seed(seed, trajectory_id))
        try:
            yield session
        finally:
            session.end()
            if session.ending:
                await asyncio.wait(session.ending)


class PythonSession:
    """One trajectory's kernel. Not started before the first call; ended by ``end``."""

    def __init__(self, tool: PythonTool, seed: int) -> None:
        self.tool = tool
        self.seed = seed
        self.process: KernelProcess | None = None
        self.client: KernelClient | None = None
        self.ending: list[asyncio.Task[None]] = []
        """The ends of this session's kernels that are under way."""
        self.lost = False
        """Variables are gone and the model has not been told: a call was cancelled, or the machinery failed."""

    async def call(self, call: ToolCall) -> ToolResult:
        """Run one cell. Raises ``InfrastructureError`` where no kernel can be had. Cancelled, it ends the kernel."""
        code = call.code if call.code is not None else (call.arguments or {}).get("code")
        if not isinstance(code, str):
            text = 'the arguments of "python" must be {"code": "…"} with the code as a string'
            return ToolResult(Outcome.PROGRAM_ERROR, text, error="bad arguments")
        try:
            if self.process is None:
                await self._start()
            result = await self._run(code)
        except BaseException:
            self.lost = self.lost or self.process is not None
            self.end()
            raise
        if self.lost:
            self.lost = False
            text = f"{RESTARTED}\n{result.text}" if result.text else RESTARTED
            result = replace(result, text=text, restarted=True)
        return result

    async def _start(self) -> None:
        from cort_python.client import KernelClient

        limit = self.tool.config.start_timeout_s
        try:
            async with asyncio.timeout(limit):
                await self.tool.places.acquire()
                try:
                    self.process = await self.tool.backend.start(self.seed)
                except BaseException:
                    self.tool.places.release()
                    raise
        except TimeoutError:
            raise InfrastructureError(
                f"no Python kernel was to be had within {limit:g} s",
                "raise max_kernels or start_timeout_s, or roll out fewer trajectories at once",
            ) from None
        self.client = KernelClient(self.tool.zmq, self.process.connection)

    async def _run(self, code: str) -> ToolResult:
        """The ladder: wait for the reply, interrupt, wait a little, end. The kernel's own end is watched throughout."""
        assert self.process is not None and self.client is not None
        process, config = self.process, self.tool.config
        begun = time.monotonic()
        message = await self.client.send(code)
        reply = asyncio.ensure_future(self.client.reply(message))
        waiting: set[asyncio.Future[Any]] = {reply, process.exited}
        try:
            timed_out = False
            done, _ = await asyncio.wait(
                waiting, timeout=config.timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                timed_out = True
                process.interrupt()
                done, _ = await asyncio.wait(
                    waiting, timeout=config.grace_s, return_when=asyncio.FIRST_COMPLETED
                )
            if reply in done:
                return self._result(reply.result(), timed_out, time.monotonic() - begun)
        finally:
            reply.cancel()
        seconds = time.monotonic() - begun
        self.end()
        if not done:
            text = KILLED.format(seconds=config.timeout_s)
            return ToolResult(Outcome.TIMEOUT, text, seconds, restarted=True, error="timeout")
        status = process.exited.result()  # the template's end, too, is an InfrastructureError here
        how = describe_exit(status)
        return ToolResult(Outcome.RESOURCE_LIMIT, DIED.format(how=how), seconds, restarted=True, error=how)

    def _result(self, reply: CellReply, timed_out: bool, seconds: float) -> ToolResult:
        if timed_out:
            note = INTERRUPTED.format(seconds=self.tool.config.timeout_s)
            text = f"{reply.text}\n{note}" if reply.text else note
            return ToolResult(Outcome.TIMEOUT, text, seconds, reply.dropped, error="timeout")
        if reply.error is None:
            outcome = Outcome.OK
        elif reply.error.startswith("MemoryError"):
            outcome = Outcome.RESOURCE_LIMIT
        else:
            outcome = Outcome.PROGRAM_ERROR
        return ToolResult(outcome, reply.text, seconds, reply.dropped, error=reply.error)

    def end(self) -> None:
        """End the kernel, if there is one, without waiting; the next call starts another."""
        if self.client is not None:
            self.client.close()
            self.client = None
        if self.process is None:
            return
        process, self.process = self.process, None
        process.kill()
        task = asyncio.ensure_future(self._gone(process))
        self.ending.append(task)
        self.tool.ending.add(task)
        task.add_done_callback(self.tool.ending.discard)

    async def _gone(self, process: KernelProcess) -> None:
        try:
            await process.gone()
        finally:
            self.tool.places.release()


def describe_exit(status: int) -> str:
    """``exit code 1`` or ``SIGSEGV``."""
    if status < 0:
        with suppress(ValueError):
            return signal.Signals(-status).name
    return f"exit code {status}"
