"""The one event loop, in one thread for the whole run, that owns engine, tools and graders.

A kernel template's parent-death signal follows the thread that started it, and asyncio's primitives belong to one loop;
so whatever is opened here lives, and dies, with this thread. Synchronous callers submit with a deadline.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import queue
import threading
from collections.abc import AsyncIterator, Coroutine, Hashable, Iterator
from types import TracebackType
from typing import Any, TypeVar

from cort_framework.errors import DeadlineExceeded
from cort_framework.guards.calls import blame
from cort_framework.guards.watchdog import Heart
from cort_framework.guards.workers import isolated
from cort_framework.interfaces import Engine, OpenContext, Plugin
from cort_framework.machine.scratch import new_scratch, remove_scratch
from cort_framework.registry import Resolved
from cort_framework.types import Weights

T = TypeVar("T")
P = TypeVar("P", bound=Plugin)

LOADING_S = 3600
"""For an engine to load weights, to sleep and to wake."""
OPENING_S = 600
"""For a plugin to open."""
ANSWER_S = 10
"""For the loop to say that it is still there."""

_log = logging.getLogger(__name__)


class Runtime:
    """Owns the loop and every plugin opened on it; a context manager."""

    def __init__(self, seed: int = 0, deterministic: bool = False, preload: tuple[str, ...] = ()) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="cort-runtime", daemon=True)
        self.heart = Heart(self._loop, self._thread)
        """To be watched by whoever waits for what is done here."""
        self._opened: list[Plugin] = []
        self._plugins: dict[Hashable, Plugin] = {}
        self._weights: dict[Hashable, Weights] = {}
        self._asleep: set[Hashable] = set()
        self._streams: dict[concurrent.futures.Future[None], tuple[queue.Queue[Any], threading.Event]] = {}
        self.scratch = new_scratch()
        self.context = OpenContext(self.scratch, seed, deterministic, preload)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    def call(
        self, work: Coroutine[Any, Any, T], timeout: float | None = None, what: str = "the runtime"
    ) -> T:
        """Run a coroutine on the loop and wait for it, from any other thread."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError(
                "Runtime.call from its own thread would wait for itself; await the coroutine instead"
            )
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            if future.done():
                raise
            future.cancel()
            raise DeadlineExceeded(f"{what} did not end within {timeout:g} s") from None
        except BaseException:
            future.cancel()
            raise

    def stream(self, items: AsyncIterator[T], timeout: float, what: str) -> Iterator[T]:
        """The items of an async iterator, as they come, under one deadline for all of them. Closing the iterator, or an
        exception in the caller, cancels what is under way."""
        box: queue.Queue[tuple[str, Any]] = queue.Queue()
        ended = threading.Event()

        async def pump() -> None:
            try:
                async for item in items:
                    box.put(("item", item))
                box.put(("end", None))
            except BaseException as error:
                box.put(("error", error))
                if isinstance(error, asyncio.CancelledError):
                    raise
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(pump(), self._loop)
        self._streams[future] = box, ended
        clock = self._loop.time
        limit = clock() + timeout
        try:
            while True:
                try:
                    kind, value = box.get(timeout=max(0.0, limit - clock()))
                except queue.Empty:
                    raise DeadlineExceeded(f"{what} did not end within {timeout:g} s") from None
                if kind == "end":
                    return
                if kind == "error":
                    raise value
                yield value
        finally:
            future.cancel()
            ended.wait(30)
            del self._streams[future]

    def interrupt(self) -> None:
        """Cancel every stream that is under way, whichever thread reads it (there ``asyncio.CancelledError`` is raised), and
        wait until what it had begun is wound up."""
        streams = dict(self._streams)
        for future, (box, _) in streams.items():
            future.cancel()
            box.put(("error", asyncio.CancelledError()))
        for _, ended in streams.values():
            ended.wait(30)

    def plugin(self, resolved: Resolved, kind: type[P]) -> P:
        """The open plugin for a resolved one: opened at its first use, then the same each time."""
        key = _identity(resolved)
        if key not in self._plugins:
            self._plugins[key] = self.open(isolated(resolved.build()))
        plugin = self._plugins[key]
        assert isinstance(plugin, kind)
        return plugin

    def engine(self, resolved: Resolved, weights: Weights) -> Engine:
        """The engine, awake and sampling from these weights; loaded only if it has others."""
        engine = self.plugin(resolved, Engine)
        key = _identity(resolved)
        if key in self._asleep:
            self._asleep.discard(key)
            self._manage("waking", engine, engine.wake())

        if self._weights.get(key) != weights:
            self._weights.pop(key, None)
            self._manage("loading weights into", engine, engine.load_weights(weights))
            self._weights[key] = weights
        return engine

    def rest(self) -> None:
        """Have every engine give its device's memory back, until it is asked for again."""
        for key, engine in self._engines():
            if key not in self._asleep:
                self._manage("putting to sleep", engine, engine.sleep())
                self._asleep.add(key)

    def release(self) -> None:
        """Close every engine, so that its memory and its processes are gone; the next use opens it anew."""
        for key, engine in self._engines():
            self._close(engine)
            self._opened.remove(engine)
            del self._plugins[key]
            self._weights.pop(key, None)
            self._asleep.discard(key)

    def _engines(self) -> list[tuple[Hashable, Engine]]:
        return [(key, plugin) for key, plugin in self._plugins.items() if isinstance(plugin, Engine)]

    def _manage(self, what: str, engine: Engine, work: Coroutine[Any, Any, None]) -> None:
        async def blamed() -> None:
            with blame(f"{what} engine", engine):
                await work

        with self.heart.patient(LOADING_S):
            self.call(blamed(), LOADING_S, f"{what} engine '{engine.name}' (from {engine.distribution})")

    def open(self, plugin: P) -> P:
        """Open a plugin on the loop; it is closed with the runtime, the last one first."""

        async def opening() -> None:
            with blame("opening", plugin):
                await plugin.open(self.context)

        self._opened.append(plugin)
        with self.heart.patient(OPENING_S):
            self.call(opening(), OPENING_S, f"opening '{plugin.name}' (from {plugin.distribution})")
        return plugin

    def close(self) -> None:
        """Close all plugins, end the loop and its thread, and remove the scratch folder. Where code of a plugin holds the
        loop, nothing on it can be closed: it ends with this process."""
        there = threading.Event()
        self._loop.call_soon_threadsafe(there.set)
        if not there.wait(ANSWER_S):
            _log.warning("the event loop is held up; what is open on it ends with this process")
            self._opened.clear()
            self._loop.call_soon_threadsafe(self._loop.stop)  # should it ever come back
            return remove_scratch(self.scratch)
        while self._opened:
            self._close(self._opened.pop())
        with contextlib.suppress(Exception):
            self.call(_wind_up(), 10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        remove_scratch(self.scratch)

    def _close(self, plugin: Plugin) -> None:
        try:
            self.call(plugin.close(), 30, f"closing '{plugin.name}'")
        except Exception as error:  # the others have to be closed all the same
            _log.warning("closing '%s' (from %s) failed: %s", plugin.name, plugin.distribution, error)

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _wind_up() -> None:
    """End what is still at work on the loop."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    loop = asyncio.get_running_loop()
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()


def _identity(resolved: Resolved) -> Hashable:
    """Two recipe entries with the same class and config share one open plugin."""
    return resolved.cls, resolved.config.model_dump_json()
