"""Tool ``python``: one persistent kernel a trajectory, acquired at its first call."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
from cort_python.isolation.policy import Limits, Policy
from cort_python.isolation.settings import IsolationConfig, check_required, refuse_without
from cort_python.outcomes import (
    DIED,
    INTERRUPTED,
    KILLED,
    NO_CODE,
    NO_TEXT,
    RESTARTED,
    TOO_LONG,
    describe_exit,
)

if TYPE_CHECKING:
    from cort_python.client import CellReply
    from cort_python.processes import Kernel


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
        code_limit: int = Field(default=1_000_000, gt=0)
        """Characters that a cell may have."""
        memory_mb: int | None = Field(default=2048, gt=0)
        """Address space that a session may take for itself; code that asks for more gets a MemoryError. Linux."""
        cpu_s: int | None = Field(default=600, gt=0)
        """Processor seconds that a session may use in its whole life; then it ends."""
        processes: int | None = Field(default=64, gt=0)
        """Processes and threads that a session may have."""
        file_mb: int | None = Field(default=256, gt=0)
        """Size that a file may grow to."""
        open_files: int | None = Field(default=256, ge=64)
        """Files that a process may have open."""
        scratch_mb: int | None = Field(default=512, gt=0)
        """What all files of a session may hold together, in memory, where there are name spaces; elsewhere they are on
        disk and not limited."""
        isolation: IsolationConfig = IsolationConfig()
        """What kernels may reach, and what has to be there for them to start."""
        max_kernels: int = Field(default=64, gt=0)
        """Kernels that live at the same time, spares among them; the first call of another session waits for its turn."""
        spares: int = Field(default=2, ge=0)
        """Kernels that are kept ready, so that a session's first call need not wait for one."""
        starts: int | None = Field(default=None, gt=0)
        """Kernels that start at the same time; as many as there are processors where it is left out."""
        start_timeout_s: float = Field(default=45.0, gt=0)
        """Seconds that the first call may wait for its turn and its kernel."""
        preload: tuple[str, ...] = ()
        """Modules that are imported before any session starts, so that importing them there takes no time."""
        backend: Literal["auto", "fork", "lite", "local"] = "auto"
        """``fork``: kernels forked from a warm template (Linux); ``lite``: the same without Jupyter; ``local``: ordinary
        kernels, started one by one; ``auto``: ``fork`` where that is to be had, else ``local``."""

    config: Config

    @property
    def forks(self) -> bool:
        from cort_python.template import can_fork

        wanted = self.config.backend
        return wanted in ("fork", "lite") or (wanted == "auto" and can_fork())

    @property
    def policy(self) -> Policy:
        c = self.config
        return Policy(
            readable=tuple(map(str, c.isolation.readable)),
            without=c.isolation.without,
            total_memory_mb=c.memory_mb and c.max_kernels * c.memory_mb,
            total_processes=c.processes and c.max_kernels * c.processes,
        )

    def preflight(self) -> None:
        from cort_python.template import layers_here

        if require := self.config.isolation.require:
            refuse_without(require, layers_here(self.policy) if self.forks else {})

    async def open(self, context: OpenContext) -> None:
        from cort_python.client import new_context
        from cort_python.pool import Pool
        from cort_python.processes import Backend, ForkBackend, LocalBackend

        c = self.config
        preload = list(dict.fromkeys((*c.preload, *context.preload)))
        self.zmq = new_context(c.max_kernels)
        backend: Backend
        if self.forks:
            backend = ForkBackend(
                preload,
                self.zmq,
                limits=Limits(c.memory_mb, c.cpu_s, c.processes, c.file_mb, c.open_files, c.scratch_mb),
                policy=self.policy,
                output_limit=c.output_limit,
                lite=c.backend == "lite",
            )
        else:
            backend = LocalBackend(preload, self.zmq, output_limit=c.output_limit, memory_mb=c.memory_mb)
        starts = c.starts or os.cpu_count() or 1
        self.pool = Pool(backend, cap=c.max_kernels, spares=c.spares, starts=starts)
        await backend.warm()
        check_required(c.isolation, backend.layers)

    async def close(self) -> None:
        await self.pool.close()
        await self.pool.backend.close()
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
    """One trajectory's kernel. Not acquired before the first call; ended by ``end``."""

    def __init__(self, tool: PythonTool, seed: int) -> None:
        self.tool = tool
        self.seed = seed
        self.kernel: Kernel | None = None
        self.fresh = False
        """The kernel has run no cell yet."""
        self.lost = False
        """Variables are gone and the model has not been told: a call was cancelled, or the machinery failed."""
        self.ending: list[asyncio.Task[None]] = []
        """The ends of this session's kernels that are under way."""

    async def call(self, call: ToolCall) -> ToolResult:
        """Run one cell. Raises ``InfrastructureError`` where no kernel can be had. Cancelled, it ends the kernel."""
        code = call.code
        if code is None and set(call.arguments or {}) == {"code"}:
            code = (call.arguments or {})["code"]
        if (fault := self._fault(code)) is not None:
            return ToolResult(Outcome.PROGRAM_ERROR, fault, error=fault)
        assert isinstance(code, str)
        try:
            if self.kernel is None:
                self.kernel = await self._acquire()
                self.fresh = True
            if self.kernel.exited.done():  # no cell was at work: this one is not to blame
                how = describe_exit(self.kernel.exited.result())
                raise InfrastructureError(f"the kernel had ended between two calls ({how})")
            result = await self._run(self.kernel, code)
        except BaseException:
            self.lost = self.lost or (self.kernel is not None and not self.fresh)
            self.end()
            raise
        if self.lost:
            self.lost = False
            text = f"{RESTARTED}\n{result.text}" if result.text else RESTARTED
            result = replace(result, text=text, restarted=True)
        return result

    def _fault(self, code: object) -> str | None:
        """What keeps this from being a cell at all."""
        limit = self.tool.config.code_limit
        if not isinstance(code, str):
            return NO_CODE
        if len(code) > limit:
            return TOO_LONG.format(size=len(code), limit=limit)
        try:
            code.encode()
        except UnicodeEncodeError as error:
            return NO_TEXT.format(position=error.start)
        return None

    async def _acquire(self) -> Kernel:
        limit = self.tool.config.start_timeout_s
        try:
            async with asyncio.timeout(limit):
                return await self.tool.pool.acquire()
        except TimeoutError:
            raise InfrastructureError(
                f"no Python kernel was to be had within {limit:g} s",
                "raise max_kernels or start_timeout_s, or roll out fewer trajectories at once",
            ) from None

    async def _run(self, kernel: Kernel, code: str) -> ToolResult:
        """The ladder: wait for the reply, interrupt, wait a little, end. The kernel's own end is watched throughout."""
        config = self.tool.config
        begun = time.monotonic()
        reply = asyncio.ensure_future(kernel.client.run(code, self.seed if self.fresh else None))
        waiting: set[asyncio.Future[Any]] = {reply, kernel.exited}
        try:
            timed_out = False
            done, _ = await asyncio.wait(
                waiting, timeout=config.timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                timed_out = True
                kernel.interrupt()
                done, _ = await asyncio.wait(
                    waiting, timeout=config.grace_s, return_when=asyncio.FIRST_COMPLETED
                )
            self.fresh = False
            if reply in done:
                return self._result(reply.result(), timed_out, time.monotonic() - begun)
        finally:
            reply.cancel()
        seconds = time.monotonic() - begun
        self.end()
        if not done:
            text = KILLED.format(seconds=config.timeout_s)
            return ToolResult(Outcome.TIMEOUT, text, seconds, restarted=True, error="timeout")
        how = describe_exit(kernel.exited.result())  # raises InfrastructureError where the template has ended
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
        """End the kernel, if there is one, without waiting; the next call acquires another."""
        if self.kernel is not None:
            kernel, self.kernel = self.kernel, None
            self.ending.append(self.tool.pool.release(kernel))
