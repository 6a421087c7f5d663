"""Functions in a child process that can be ended: what may hang or crash does it there.

A ``WorkerPool`` keeps a few long-lived children, each of which runs one function, over and over, on values that JSON
can hold. A call that takes too long, or is cancelled, ends its child; the next one starts another.

``python -m cort_python.worker MODULE:FUNCTION OPTIONS`` is the child's side.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import Any

from cort_framework import InfrastructureError
from cort_python.folders import clean_environment
from cort_python.limits import die_with_parent, limit_memory

MAX_MESSAGE = 2**24
"""Bytes of one request or answer."""


class WorkerDied(Exception):
    """The function ended its process; the message says how."""


class Worker:
    """One child. Started by the first call; a call after an end starts it again."""

    def __init__(self, pool: WorkerPool) -> None:
        self.pool = pool
        self.process: asyncio.subprocess.Process | None = None

    async def call(self, value: Any) -> Any:
        if self.process is None:
            await self._start()
        assert self.process is not None and self.process.stdin is not None and self.process.stdout is not None
        try:
            async with asyncio.timeout(self.pool.timeout_s):
                self.process.stdin.write(json.dumps(value).encode() + b"\n")
                with suppress(ConnectionError):
                    await self.process.stdin.drain()
                answer = await self.process.stdout.readline()
        except (
            BaseException
        ):  # too long, cancelled, or too much: this child's next answer would be the wrong one
            await self.end()
            raise
        if not answer.endswith(b"\n"):
            status = await self.process.wait()
            self.process = None
            raise WorkerDied(signal.Signals(-status).name if status < 0 else f"exit code {status}")
        return json.loads(answer)

    async def _start(self) -> None:
        options = {"memory_mb": self.pool.memory_mb, "preload": self.pool.preload, "parent": os.getpid()}
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "cort_python.worker", self.pool.target, json.dumps(options)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=clean_environment(self.pool.folder),
            cwd=self.pool.folder,
            limit=MAX_MESSAGE,
        )
        try:
            async with asyncio.timeout(self.pool.start_timeout_s):
                assert self.process.stdout is not None
                greeting = await self.process.stdout.readline()
        except TimeoutError:
            await self.end()
            limit = self.pool.start_timeout_s
            raise InfrastructureError(
                f"the worker for {self.pool.target} did not start within {limit:g} s"
            ) from None
        except BaseException:
            await self.end()
            raise
        if greeting != b"ready\n":
            await self.end()
            why = greeting.decode(errors="replace").strip() or "it ended at once"
            raise InfrastructureError(f"the worker for {self.pool.target} does not start: {why}")

    async def end(self) -> None:
        """Kill the child, if there is one, and reap it."""
        if self.process is not None:
            process, self.process = self.process, None
            with suppress(ProcessLookupError):
                process.kill()
            await asyncio.shield(process.wait())


class WorkerPool:
    """``size`` children that run ``target``, ``"module:function"`` (or ``"module:object.method"``).

    A child imports ``preload`` before its first call, so that no call pays for it. ``folder`` is where they run and what they take for their home. Use it on the loop that made it: on Linux the
    children end with that loop's thread.
    """

    def __init__(
        self,
        target: str,
        folder: Path,
        *,
        timeout_s: float,
        preload: tuple[str, ...] = (),
        size: int = 1,
        memory_mb: int | None = None,
        start_timeout_s: float = 120,
    ) -> None:
        self.target = target
        self.timeout_s = timeout_s
        self.preload = preload
        self.memory_mb = memory_mb
        self.start_timeout_s = start_timeout_s
        self.folder = folder
        self._workers = [Worker(self) for _ in range(size)]
        self._idle: asyncio.LifoQueue[Worker] = asyncio.LifoQueue()
        for worker in self._workers:
            self._idle.put_nowait(worker)

    async def call(self, value: Any) -> Any:
        """The function's answer to ``value``. Raises ``TimeoutError`` after ``timeout_s`` seconds of work, and
        ``WorkerDied`` where the function ended its process."""
        worker = await self._idle.get()
        try:
            return await worker.call(value)
        finally:
            self._idle.put_nowait(worker)

    async def close(self) -> None:
        for worker in self._workers:
            await worker.end()


# --- the child's side -------------------------------------------------------------------------------------------
def main() -> None:
    target, options = sys.argv[1], json.loads(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(signal.SIGKILL)
    if os.getppid() != options["parent"]:
        return
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the function prints must not get between the answers
    sys.set_int_max_str_digits(0)  # the time limit bounds long numbers
    try:
        module, _, path = target.partition(":")
        function = attrgetter(path)(importlib.import_module(module))
        for name in options["preload"]:
            importlib.import_module(name)
        limit_memory(options["memory_mb"])
    except Exception as error:
        answers.write(f"{type(error).__name__}: {error}\n".encode())
        return
    answers.write(b"ready\n")
    answers.flush()
    for request in requests:
        answers.write(json.dumps(function(json.loads(request))).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
