"""How the code of plugins is called: its faults attributed, its time limited, the loop kept free."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
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
        off = not inspect.iscoroutinefunction(method)
        answer = await _off_loop(method, *arguments) if off else method(*arguments)
        return await answer if inspect.isawaitable(answer) else answer


async def _off_loop(function: Callable[..., Any], *arguments: Any) -> Any:
    """``asyncio.to_thread`` in a daemon thread: a plugin that hangs must not keep the process from ending."""
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def work() -> None:
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)

    future.set_running_or_notify_cancel()
    threading.Thread(target=work, name="cort-plugin", daemon=True).start()
    return await asyncio.wrap_future(future)


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
