"""How the code of plugins is called: its faults attributed, its time limited, the loop kept free."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

from cort_framework.errors import CortError, DeadlineExceeded, PluginFault
from cort_framework.interfaces import Plugin


@contextlib.contextmanager
def blame(what: str, plugin: Plugin) -> Iterator[None]:
    """What a plugin's code raises in here is attributed to its distribution."""
    try:
        yield
    except CortError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginFault(f"{what} '{plugin.name}'", plugin.distribution, error) from error


async def run_plugin(what: str, plugin: Plugin, method: Callable[..., Any], *arguments: Any) -> Any:
    """Call a plugin's method, plain (then off the loop) or async."""
    with blame(what, plugin):
        if inspect.iscoroutinefunction(method):
            return await method(*arguments)
        answer = await asyncio.wrap_future(_helpers.submit(partial(method, *arguments)))
        return await answer if inspect.isawaitable(answer) else answer


class _Helpers:
    """Threads for plain methods. Daemons, as a plugin that hangs must not keep the process from ending; used again, as
    starting one holds up the loop."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[concurrent.futures.Future[Any], Callable[[], Any]]] = (
            queue.SimpleQueue()
        )
        self._idle = threading.Semaphore(0)

    def submit(self, job: Callable[[], Any]) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        future.set_running_or_notify_cancel()  # nobody can take a running thread's job back
        self._jobs.put((future, job))
        if not self._idle.acquire(blocking=False):
            threading.Thread(target=self._work, name="cort-plugin", daemon=True).start()
        return future

    def _work(self) -> None:
        while True:
            future, job = self._jobs.get()
            tell: Callable[[], None]
            try:
                tell = partial(future.set_result, job())
            except BaseException as error:
                tell = partial(future.set_exception, error)
            self._idle.release()
            tell()
            del future, job, tell  # an idle thread holds nothing


_helpers = _Helpers()


@contextlib.asynccontextmanager
async def deadline(seconds: float, what: Callable[[], str] | str) -> AsyncIterator[None]:
    """A limit that names its culprit when it fires; deadlines nest, and an outer one is not mistaken for an inner."""
    try:
        async with asyncio.timeout(seconds) as scope:
            yield
    except TimeoutError:
        if not scope.expired():
            raise
        raise DeadlineExceeded(
            f"{what if isinstance(what, str) else what()} did not end within {seconds:g} s"
        ) from None
