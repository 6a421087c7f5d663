"""Rewards and filters that ask to be isolated, each in processes of its own.

What a model writes may send computer algebra into a computation without end, or without bound in memory, out of reach of
any Python exception. Here that costs one answer: its process is killed, named, and replaced by the next call.

This is no sandbox: the process may do whatever this one may. It limits time and memory, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import inspect
import math
import os
import pickle
import resource
import signal
import struct
import sys
from typing import Any, BinaryIO, TypeVar

from cort_framework.errors import CortError, InfrastructureError, RequestError
from cort_framework.guards.calls import blame, deadline
from cort_framework.interfaces import Filter, OpenContext, Plugin, RewardFunction
from cort_framework.types import Group, Trajectory

P = TypeVar("P", bound=Plugin)

MOST = 4
"""Processes of one plugin, at most; they start as they are needed."""
START_S = 300
"""For a process to import and open its plugin, on however busy a machine."""
_LENGTH = struct.Struct("!Q")


def isolated(plugin: P) -> P:
    """The plugin itself, or what stands for it here where it asks to be isolated."""
    kind: Any = None
    if isinstance(plugin, RewardFunction) and plugin.isolated:
        kind = IsolatedReward
    elif isinstance(plugin, Filter) and plugin.isolated:
        together = type(plugin).judge_group is not Filter.judge_group
        kind = IsolatedGroupFilter if together else IsolatedFilter
    return plugin if kind is None else kind(plugin)


# --- this side --------------------------------------------------------------------------------------------------
class Workers:
    """The processes of one plugin. Each makes one call at a time; a call waits for its turn before its time begins."""

    def __init__(self, what: str, plugin: Any) -> None:
        self.culprit = f"{what} '{plugin.name}' (from {plugin.distribution})"
        self._what, self._plugin = what, plugin
        self._places = asyncio.Semaphore(min(MOST, os.cpu_count() or 1))
        self._idle: list[asyncio.subprocess.Process] = []

    async def open(self, context: OpenContext) -> None:
        """Start the first. Raises ``RequestError`` where the plugin cannot be had in another process, and what opening it
        there raises."""
        cls = type(self._plugin)
        if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
            raise RequestError(
                f"{self.culprit} is to be isolated, but another process cannot import {cls.__qualname__}",
                "put the class at the top level of a module of its own, or set its `isolated` to False",
            )
        self._welcome = pickle.dumps(
            (self._what, cls, self._plugin.config, self._plugin.distribution, context, cls.memory_mb)
        )
        self._idle.append(await self._start())

    async def call(self, method: str, argument: Any) -> Any:
        """Raises what the plugin raised as ``PluginFault``, ``DeadlineExceeded`` where its process was killed for its time,
        ``InfrastructureError`` where it died."""
        request = pickle.dumps((method, argument))
        async with self._places:
            process = self._idle.pop() if self._idle else await self._start()
            try:
                async with deadline(self._plugin.timeout_s, self.culprit):
                    answer = await self._ask(process, request)
            except BaseException:
                await _kill(process)
                raise
            self._idle.append(process)
        if isinstance(answer, CortError):
            raise answer
        return answer

    async def close(self) -> None:
        while self._idle:
            await _kill(self._idle.pop())

    async def _start(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from cort_framework.guards.workers import serve; serve()"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # what it starts is killed with it; and Ctrl-C is for this process
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        try:
            async with deadline(START_S, f"{self.culprit}, opening in a process of its own,"):
                error = await self._ask(process, self._welcome)
            if error is not None:
                raise error
        except BaseException:
            await _kill(process)
            raise
        return process

    async def _ask(self, process: asyncio.subprocess.Process, request: bytes) -> Any:
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(_LENGTH.pack(len(request)) + request)
            await process.stdin.drain()
            (length,) = _LENGTH.unpack(await process.stdout.readexactly(_LENGTH.size))
            return pickle.loads(await process.stdout.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            code = await process.wait()
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise InfrastructureError(f"{self.culprit} ended its process ({how})") from None


async def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await asyncio.shield(process.wait())


class IsolatedReward(RewardFunction):
    """Stands for a reward that works elsewhere."""

    def __init__(self, plugin: RewardFunction) -> None:
        super().__init__(plugin.config)
        self.name, self.distribution = plugin.name, plugin.distribution  # type: ignore[misc]
        self.timeout_s = math.inf  # each call has its own limit there, once it is its turn
        self._workers = Workers("reward", plugin)

    async def open(self, context: OpenContext) -> None:
        await self._workers.open(context)

    async def close(self) -> None:
        await self._workers.close()

    async def score(self, trajectory: Trajectory) -> float | None:
        return await self._workers.call("score", trajectory)  # type: ignore[no-any-return]


class IsolatedFilter(Filter):
    """Stands for a filter that works elsewhere."""

    def __init__(self, plugin: Filter) -> None:
        super().__init__(plugin.config)
        self.name, self.distribution = plugin.name, plugin.distribution  # type: ignore[misc]
        self.timeout_s = math.inf
        self._workers = Workers("filter", plugin)

    async def open(self, context: OpenContext) -> None:
        await self._workers.open(context)

    async def close(self) -> None:
        await self._workers.close()

    async def judge(self, trajectory: Trajectory) -> Any:
        return await self._workers.call("judge", trajectory)


class IsolatedGroupFilter(IsolatedFilter):
    """… and looks at a task's trajectories together."""

    async def judge_group(self, group: Group) -> Any:
        return await self._workers.call("judge_group", group)


# --- the process's side -----------------------------------------------------------------------------------------
def serve() -> None:
    """Open the plugin that comes first, then answer one call after another until nobody asks any more."""
    _end_with_parent()
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what the plugin prints is no answer
    asyncio.run(_serve(questions, answers))


async def _serve(questions: BinaryIO, answers: BinaryIO) -> None:
    try:
        what, cls, config, distribution, context, memory_mb = _read(questions)
        plugin = cls(config)
        plugin.distribution = distribution
        with blame("opening", plugin):
            await plugin.open(context)
    except CortError as error:
        return _write(answers, error)
    except Exception as error:
        return _write(answers, InfrastructureError(f"{type(error).__name__}: {error}"))
    _limit_memory(memory_mb << 20)
    _write(answers, None)
    while (question := _read(questions)) is not None:
        method, argument = question
        try:
            with blame(what, plugin):
                answer = getattr(plugin, method)(argument)
                if isinstance(answer, list):
                    answer = [await a if inspect.isawaitable(a) else a for a in answer]
                answer = pickle.dumps(await answer if inspect.isawaitable(answer) else answer)
        except CortError as error:
            answer = pickle.dumps(error)
        _send(answers, answer)


def _read(questions: BinaryIO) -> Any:
    """``None`` at the end."""
    head = questions.read(_LENGTH.size)
    return pickle.loads(questions.read(*_LENGTH.unpack(head))) if head else None


def _write(answers: BinaryIO, answer: Any) -> None:
    _send(answers, pickle.dumps(answer))


def _send(answers: BinaryIO, answer: bytes) -> None:
    answers.write(_LENGTH.pack(len(answer)) + answer)
    answers.flush()


def _limit_memory(more: int) -> None:
    """To as many bytes of address space beyond what there is now."""
    with contextlib.suppress(OSError, ValueError):  # not on every system, or a lower limit is in force
        with open("/proc/self/statm", encoding="ascii") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + more, now + more))


def _end_with_parent() -> None:
    """However that ends, also while the plugin holds on to the interpreter; elsewhere than on Linux, at the next question."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
