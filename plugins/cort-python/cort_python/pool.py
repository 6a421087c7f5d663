"""Kernels to be had: a few that are ready before anybody asks, a cap on how many live, a queue for who has to wait.

A kernel serves the one trajectory that acquired it and ends with it; nobody ever gets a used one.
"""

from __future__ import annotations

import asyncio
from collections import deque

from cort_python.processes import Backend, Kernel

REST_S = 0.05
"""Seconds until a spare that was taken is made up for: its first call comes first."""


class Pool:
    """Gives kernels out, first come, first served.

    ``cap``: kernels that live at the same time, spares and those that are ending among them; ``spares``: how many are
    kept ready; ``starts``: how many start at the same time, as more would only take the processors from one another.
    """

    def __init__(self, backend: Backend, *, cap: int, spares: int, starts: int) -> None:
        self.backend = backend
        self.cap, self.spares, self.starts = cap, spares, starts
        self._live = 0
        self._ready: deque[Kernel] = deque()
        self._waiting: deque[asyncio.Future[Kernel]] = deque()
        self._begun = 0
        """How many starts there have been."""
        self._since: dict[asyncio.Future[Kernel], int] = {}
        """Of those who wait, how many there had been when they came."""
        self._starting: set[asyncio.Task[None]] = set()
        self._ending: set[asyncio.Task[None]] = set()

    async def acquire(self) -> Kernel:
        """A kernel that nobody has used. Raises ``InfrastructureError`` where it cannot be started."""
        waiter: asyncio.Future[Kernel] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._since[waiter] = self._begun
        self._supply()
        try:
            kernel = await waiter
            asyncio.get_running_loop().call_later(REST_S, self._supply, self.spares)
            return kernel
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and not waiter.exception():
                self._ready.appendleft(waiter.result())  # given and given up in the same moment
                self._supply()
            raise
        finally:
            del self._since[waiter]

    def release(self, kernel: Kernel) -> asyncio.Task[None]:
        """End the kernel, at once; the task ends when it is gone, its folder too, and its place is free."""
        kernel.kill()
        task = asyncio.ensure_future(self._end(kernel))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return task

    async def close(self) -> None:
        """End what is ready or starting, and wait for all that is ending."""
        self.cap = self.spares = 0
        for task in set(self._starting):
            task.cancel()
        if self._starting:
            await asyncio.wait(set(self._starting))
        while self._ready:
            self.release(self._ready.popleft())
        if self._ending:
            await asyncio.wait(set(self._ending))

    def _supply(self, spares: int = 0) -> None:
        """Give out what is ready, start what is missing: for those who wait, and ``spares`` more. Called whenever something
        has changed."""
        while self._ready and self._waiting:
            waiter = self._waiting.popleft()
            if waiter.done():  # it does not wait any more
                continue
            kernel = self._ready.popleft()
            if kernel.exited.done():
                self.release(kernel)
                self._waiting.appendleft(waiter)
            else:
                waiter.set_result(kernel)
        wanted = len(self._waiting) + spares - len(self._ready)
        while len(self._starting) < min(wanted, self.starts) and self._live < self.cap:
            self._live += 1
            self._begun += 1
            self._starting.add(asyncio.ensure_future(self._start(self._begun)))

    async def _start(self, number: int) -> None:
        try:
            kernel = await self.backend.start()
        except Exception as error:
            self._live -= 1
            self._over()
            self._disappoint(error, number)
        else:
            self._over()
            self._ready.append(kernel)
            self._supply()

    def _over(self) -> None:
        if (task := asyncio.current_task()) is not None:
            self._starting.discard(task)

    def _disappoint(self, error: Exception, number: int) -> None:
        """Tell the one who has waited longest, unless the start that failed is older than the wait: a template's end must
        not cost those who come after it a second failure. Where nobody waits, a spare is missing, and is tried again when
        wanted."""
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft()
        if self._waiting:
            if self._since[self._waiting[0]] < number:
                self._waiting.popleft().set_exception(error)
            self._supply()

    async def _end(self, kernel: Kernel) -> None:
        try:
            await kernel.gone()
        finally:
            self._live -= 1
            self._supply()
