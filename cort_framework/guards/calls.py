"""How the code of plugins is called: its faults attributed, its time limited, the loop kept free."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import queue
import reprlib
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from types import TracebackType
from typing import Any, Self, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from cort_framework.errors import CortError, DeadlineExceeded, PluginFault
from cort_framework.interfaces import Plugin

T = TypeVar("T")


class blame(contextlib.AbstractContextManager[None]):
    """What a plugin's code raises in here is attributed to its distribution."""

    __slots__ = ("_plugin", "_what")

    def __init__(self, what: str, plugin: Plugin) -> None:
        self._what, self._plugin = what, plugin

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, (Exception, SystemExit)) and not isinstance(error, CortError):
            raise PluginFault(
                f"{self._what} '{self._plugin.name}'", self._plugin.distribution, error
            ) from error


def checked(value: Any, kind: type[T]) -> T:
    """What a plugin gave, where it is an instance of this dataclass with fields of the right types; they go to disk as JSON.
    Raises ``TypeError``."""
    if not isinstance(value, kind):
        raise TypeError(f"it has to give a {kind.__name__}, not {reprlib.repr(value)}")
    try:
        _fields(kind).model_validate(vars(value))  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where, problem = ".".join(map(str, first["loc"])), first["msg"]
        raise TypeError(
            f"the {kind.__name__} that it gave has {reprlib.repr(first['input'])} as {where}: {problem}"
        ) from None
    return value


@cache
def _fields(kind: type[Any]) -> type[BaseModel]:
    fields: dict[str, Any] = {name: (hint, ...) for name, hint in get_type_hints(kind).items()}
    return create_model(kind.__name__, __config__=ConfigDict(strict=True), **fields)


async def run_plugin(what: str, plugin: Plugin, method: Callable[..., Any], *arguments: Any) -> Any:
    """Call a plugin's method, plain (then off the loop) or async."""
    with blame(what, plugin):
        if inspect.iscoroutinefunction(method):
            return await method(*arguments)
        answer = await asyncio.wrap_future(_helpers.submit(partial(method, *arguments)))
        return await answer if inspect.isawaitable(answer) else answer


async def run_plugin_on_each(
    what: str, plugin: Plugin, method: Callable[[Any], Any], arguments: Sequence[Any], seconds: float
) -> list[Any]:
    """What the method answers to each argument, in order; where it fails, the ``CortError``. ``seconds`` is the limit of one
    call. A plain method goes through them in one thread: to change threads for each takes longer than a quick answer."""
    culprit = f"{what} '{plugin.name}' (from {plugin.distribution})"
    answers: list[Any] = []
    while len(answers) < len(arguments):
        if inspect.iscoroutinefunction(method):
            try:
                async with deadline(seconds, culprit):
                    answers.append(await run_plugin(what, plugin, method, arguments[len(answers)]))
            except CortError as error:
                answers.append(error)
            continue
        walk = _Walk(what, plugin, method, arguments[len(answers) :])
        if not await walk.finished(seconds):
            walk.answers.append(DeadlineExceeded(f"{culprit} did not end within {seconds:g} s"))
        answers += walk.answers
    return answers


class _Walk:
    """One plain method, called with one argument after another in a thread of its own."""

    def __init__(
        self, what: str, plugin: Plugin, method: Callable[[Any], Any], arguments: Sequence[Any]
    ) -> None:
        self.answers: list[Any] = []
        self._what, self._plugin, self._method, self._arguments = what, plugin, method, arguments
        self._began = time.monotonic()
        self._given_up = False

    def __call__(self) -> None:
        for argument in self._arguments:
            self._began = time.monotonic()
            answer: Any
            try:
                with blame(self._what, self._plugin):
                    answer = self._method(argument)
            except CortError as error:
                answer = error
            if self._given_up:
                return
            self.answers.append(answer)

    async def finished(self, seconds: float) -> bool:
        """Start it and wait. Not so, as soon as one call takes longer; then it stops after that call, whenever that ends."""
        future = asyncio.wrap_future(_helpers.submit(self))
        try:
            while not future.done():
                left = self._began + seconds - time.monotonic()
                if left <= 0:
                    self.answers = list(self.answers)  # the thread may still add to the old one
                    return False
                await asyncio.wait([future], timeout=left)
            future.result()
            return True
        finally:
            self._given_up = True


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


class deadline(contextlib.AbstractAsyncContextManager[None]):
    """A limit that names its culprit when it fires; deadlines nest, and an outer one is not mistaken for an inner.
    ``began``: counted from then, by the loop's clock, and not from now."""

    __slots__ = ("_began", "_scope", "_seconds", "_what")

    def __init__(self, seconds: float, what: Callable[[], str] | str, began: float | None = None) -> None:
        self._seconds, self._what, self._began = seconds, what, began

    async def __aenter__(self) -> None:
        began = asyncio.get_running_loop().time() if self._began is None else self._began
        self._scope = asyncio.timeout_at(began + self._seconds)
        await self._scope.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._scope.__aexit__(kind, error, trace)
            if not (isinstance(error, TimeoutError) and self._scope.expired()):
                return
        except TimeoutError:
            pass
        what = self._what if isinstance(self._what, str) else self._what()
        raise DeadlineExceeded(f"{what} did not end within {self._seconds:g} s") from None


class Patience:
    """The same deadline for one thing after another, at the cost of one timer: when it rings for a thing that is done, it is
    set for the one that is under way. (A loop keeps its timers in a heap that is ordered in Python: at thousands of stretches
    a second, a timer for each took a third of all the time.)

    ``with`` is its life, ``async with`` the thing that is limited; as ``deadline``, it raises ``DeadlineExceeded``.
    """

    def __init__(self, seconds: float, what: Callable[[], str]) -> None:
        self._seconds, self._what = seconds, what
        self._timer: asyncio.TimerHandle | None = None
        self._until: float | None = None
        self._rung = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def __aenter__(self) -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        self._task, self._cancelling, self._rung = task, task.cancelling(), False
        self._until = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(self._until, self._ring)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._until = None
        if not self._rung:
            return
        mine = self._task.uncancel() <= self._cancelling  # else somebody else cancels the task, too
        if isinstance(error, TimeoutError) or (mine and isinstance(error, asyncio.CancelledError)):
            raise DeadlineExceeded(f"{self._what()} did not end within {self._seconds:g} s") from None

    def _ring(self) -> None:
        self._timer = None
        if self._until is None:
            return  # nothing is under way; what comes next sets it anew
        loop = asyncio.get_running_loop()
        if loop.time() < self._until:
            self._timer = loop.call_at(self._until, self._ring)
        else:
            self._rung = True
            self._task.cancel()
