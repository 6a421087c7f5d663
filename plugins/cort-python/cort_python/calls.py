"""One function call in one process: for what may hang, crash or leave something behind.

A ``Caller`` runs ``"module:function"`` (or ``"module:object.method"``) on values that JSON can hold. Each call has a
process of its own, forked from a warm template and gone with the answer, so no call sees what another has done, and
one that takes too long costs nobody else anything. Where fork is not to be had, an ordinary process does the same,
slowly. The child's side is ``callee``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from cort_framework import InfrastructureError
from cort_python.folders import clean_environment
from cort_python.isolation.policy import Layer, Policy, State
from cort_python.leases import Lease
from cort_python.outcomes import describe_exit
from cort_python.template import ForkedKernel, can_fork

MAX_ANSWER = 2**26
"""Bytes of an answer; a child that writes more is ended."""

MAX_SPARES = 4
"""Processes that wait for a call, at most."""

START_TIMEOUT_S = 120
"""For an ordinary process to import what it needs, on however busy a machine."""


class CallRaised(Exception):
    """The function raised; the message is the exception's class and its text."""


class CallDied(Exception):
    """The function ended its process; the message says how: ``SIGSEGV``, ``exit code 3``."""


class Caller:
    """``concurrency`` calls of one function at the same time; more wait for their turn.

    ``timeout_s`` is wall time once the process is there, ``cpu_s`` processor time, ``memory_mb`` address space beyond
    what the process begins with. ``preload``: modules that are imported beforehand. ``folder``: where ordinary processes
    run; a fork has none. ``policy``: what isolates the forks. ``rehearsal``: a value that processes which wait for a call
    try the function on: the pages of memory that every call writes to are copied before it comes. Choose a cheap one.
    """

    def __init__(
        self,
        target: str,
        *,
        folder: Path,
        timeout_s: float,
        preload: tuple[str, ...] = (),
        cpu_s: float | None = None,
        memory_mb: int | None = None,
        concurrency: int = 2,
        policy: Policy | None = None,
        rehearsal: Any = None,
        backend: Literal["auto", "fork", "cold"] = "auto",
    ) -> None:
        self.timeout_s = timeout_s
        self._places = asyncio.Semaphore(concurrency)
        preload = tuple(dict.fromkeys((*preload, target.partition(":")[0])))
        fork = backend == "fork" or (backend == "auto" and can_fork())
        limits = {"target": target, "cpu_s": cpu_s, "memory_mb": memory_mb}
        self._backend: Backend
        if fork:
            self._backend = ForkedCalls(
                preload, limits, policy or Policy(), min(concurrency, MAX_SPARES), rehearsal
            )
        else:
            self._backend = ColdCalls(preload, limits, folder)

    async def open(self) -> None:
        """Wait until calls are quick. Raises ``InfrastructureError`` where they cannot be made."""
        await self._backend.warm()

    @property
    def layers(self) -> dict[Layer, State]:
        """What isolates the processes of calls; there once it is open."""
        return self._backend.layers

    async def call(self, value: Any) -> Any:
        """The function's answer. Raises ``TimeoutError`` (either limit on time), ``CallRaised``, ``CallDied``, and
        ``InfrastructureError`` where no process is to be had. Cancelled, it leaves nothing behind."""
        request = json.dumps(value).encode()
        async with self._places:
            child = await self._backend.start()
            try:
                async with asyncio.timeout(self.timeout_s):
                    answer, status = await child.answer(request)
            finally:
                await child.end()
        if status is not None:
            if -status in (signal.SIGPROF, signal.SIGXCPU):
                raise TimeoutError
            raise CallDied(describe_exit(status))
        reply = json.loads(answer)
        if "failed" in reply:
            raise InfrastructureError(f"the process of a call could not be confined: {reply['failed']}")
        if "raised" in reply:
            raise CallRaised(reply["raised"])
        return reply["value"]

    async def close(self) -> None:
        await self._backend.close()


class Child(ABC):
    """The process of one call."""

    @abstractmethod
    async def answer(self, request: bytes) -> tuple[bytes, int | None]:
        """The line that the child writes, or nothing and its exit code."""

    @abstractmethod
    async def end(self) -> None:
        """Whatever became of it, it ends now."""


class Backend(ABC):
    """Where the processes of calls come from."""

    async def warm(self) -> None:  # noqa: B027 - only where there is something to warm
        """Wait until processes can start quickly, or raise ``InfrastructureError``."""

    @property
    def layers(self) -> dict[Layer, State]:
        """What isolates the processes; there once it is warm."""
        return {}

    @abstractmethod
    async def start(self) -> Child:
        """A process for one call."""

    async def close(self) -> None:  # noqa: B027 - only where there is something to close
        """End what ``warm`` began."""


# --- forked -----------------------------------------------------------------------------------------------------
class ForkedCalls(Backend):
    """Forks of a template that all tools with the same preloads share. A few wait, confined and with nothing read yet, so
    that a call finds its process ready; each still serves one call."""

    def __init__(
        self, preload: tuple[str, ...], limits: dict[str, Any], policy: Policy, spares: int, rehearsal: Any
    ) -> None:
        self._lease = Lease(preload, kernels=False, policy=policy)
        self._limits = limits
        self._waiting = {} if rehearsal is None else {"rehearsal": json.dumps(rehearsal)}
        self._count = spares
        self._spares: list[ForkedChild] = []
        self._closed = False

    @property
    def layers(self) -> dict[Layer, State]:
        return self._lease.template.layers

    async def warm(self) -> None:
        await asyncio.shield(asyncio.wrap_future(self._lease.template.warm))
        self._fill()

    async def start(self) -> Child:
        await asyncio.shield(asyncio.wrap_future(self._lease.template.warm))
        self._drop_dead()
        child = self._spares.pop(0) if self._spares else self._fork()
        asyncio.get_running_loop().call_soon(self._fill)  # once the call is on its way
        return child

    def _fork(self, **options: Any) -> ForkedChild:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                return ForkedChild(ours, self._lease.template.call(theirs, **self._limits, **options))
        except BaseException:
            ours.close()
            raise

    def _fill(self) -> None:
        """Have as many spares as there should be."""
        self._drop_dead()
        with suppress(InfrastructureError):  # the next call will meet it, too
            while len(self._spares) < self._count and not self._closed:
                self._spares.append(self._fork(**self._waiting))

    def _drop_dead(self) -> None:
        for child in [child for child in self._spares if not child.alive]:
            self._spares.remove(child)
            child.close()

    async def close(self) -> None:
        self._closed = True
        while self._spares:
            self._spares.pop().close()
        await asyncio.to_thread(self._lease.close)


class ForkedChild(Child):
    def __init__(self, channel: socket.socket, forked: ForkedKernel) -> None:
        channel.setblocking(False)
        self.channel = channel
        self.forked = forked

    async def answer(self, request: bytes) -> tuple[bytes, int | None]:
        loop = asyncio.get_running_loop()
        answer = bytearray()
        with suppress(ConnectionError):  # a child that died is found out at its missing answer
            await loop.sock_sendall(self.channel, request)
            self.channel.shutdown(socket.SHUT_WR)
            while not answer.endswith(b"\n") and len(answer) <= MAX_ANSWER:
                if not (part := await loop.sock_recv(self.channel, 1 << 18)):
                    break
                answer += part
        if answer.endswith(b"\n"):
            return bytes(answer), None
        self.forked.send_signal(signal.SIGKILL)
        return b"", await asyncio.shield(asyncio.wrap_future(self.forked.exited))

    @property
    def alive(self) -> bool:
        return not self.forked.exited.done()

    async def end(self) -> None:
        self.close()

    def close(self) -> None:
        self.channel.close()
        self.forked.send_signal(signal.SIGKILL)


# --- cold -------------------------------------------------------------------------------------------------------
class ColdCalls(Backend):
    """A new Python for each call: some thirty times slower, but it runs anywhere."""

    def __init__(self, preload: tuple[str, ...], limits: dict[str, Any], folder: Path) -> None:
        self._options = {"preload": preload, **limits}
        self._folder = folder

    async def start(self) -> Child:
        options = {**self._options, "parent": os.getpid()}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "cort_python.callee", json.dumps(options)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=clean_environment(self._folder),
            cwd=self._folder,
            limit=MAX_ANSWER,
        )
        child = ColdChild(process)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                assert process.stdout is not None
                greeting = await process.stdout.readline()
            if greeting != b"ready\n":
                why = greeting.decode(errors="replace").strip() or "its process ended at once"
                raise InfrastructureError(f"calls of {options['target']} cannot be made: {why}")
        except BaseException:
            await child.end()
            raise
        return child


class ColdChild(Child):
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def answer(self, request: bytes) -> tuple[bytes, int | None]:
        answer, _ = await self.process.communicate(request)
        return (answer, None) if answer.endswith(b"\n") else (b"", await self.process.wait())

    async def end(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        await asyncio.shield(self.process.wait())
