"""What ends a run that no deadline can: where a plugin's code holds the thread that a deadline would have to run in.

A ``watched`` block is looked at from a thread of its own. Where it gets nowhere any more, the plugin is named and the
block is left with an error, as by Ctrl-C; all that was made is on disk, and the same command goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self, TypeGuard

from cort_framework.errors import StageFailed
from cort_framework.interfaces import Plugin
from cort_framework.machine.device import memory
from cort_framework.registry import default_registry

Check = Callable[[], str | None]
"""Asked every ``TICK_S``; answers what is wrong. It counts the times that it was asked instead of looking at a clock: a
process that was stopped for the night has not been silent."""

TICK_S = 1.0
LOOP_S = 60.0
"""How long code of a plugin may hold up the event loop, and with it all trajectories, before it is interrupted."""
MEMORY_S = 5.0
"""How long a plugin that was interrupted for its memory has to give it back."""
GRACE_S = 45.0
"""How long a block that was interrupted has to be left, twice; then the process is ended."""
FROZEN_S = 900.0
"""How long code may hold on to the interpreter itself, so that not even this can look. Then Python prints where all
threads are, and the process ends."""

HINT = (
    "what was made so far is kept, and the same command goes on from there. A reward or filter that may hang or grow can be"
    " `isolated`: it then works in a process that can be killed"
)
_log = logging.getLogger(__name__)


class watched(contextlib.AbstractContextManager["watched"]):
    """The main thread's block. As soon as a check complains, ``KeyboardInterrupt`` is raised in it, which leaves it as
    ``StageFailed``. In another thread, which cannot be interrupted, the complaint is only logged.

    SIGINT is heeded inside, also by what a script started in the background, for which shells have it ignored."""

    def __init__(self, *checks: Check) -> None:
        self._checks = checks
        self._error: StageFailed | None = None
        self._left = threading.Event()

    def __enter__(self) -> Self:
        self._of_main = threading.current_thread() is threading.main_thread()
        self._ignored = self._of_main and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        if self._ignored:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Thread(target=self._watch, name="cort-watchdog", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        if self._ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if self._error is not None and isinstance(error, KeyboardInterrupt):
            raise self._error from None

    def _watch(self) -> None:
        while not self._left_within(TICK_S):
            complaint = next((text for check in self._checks if (text := check())), None)
            if complaint is not None:
                self._error = StageFailed(complaint, HINT)
                self._end(self._error)
                break
        faulthandler.cancel_dump_traceback_later()

    def _end(self, error: StageFailed) -> None:
        if not self._of_main:
            return _log.critical("%s", error)
        for _ in range(2):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            if self._left_within(GRACE_S):
                return
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr, flush=True)
        os._exit(error.exit_code)

    def _left_within(self, seconds: float) -> bool:
        for _ in range(math.ceil(seconds / TICK_S)):
            with contextlib.suppress(Exception):  # there may be no stderr to print to
                faulthandler.dump_traceback_later(FROZEN_S, exit=True, file=sys.__stderr__ or 2)
            if self._left.wait(TICK_S):
                return True
        return False


# --- checks -----------------------------------------------------------------------------------------------------
class Silence:
    """Complains of the main thread where ``sign`` has been the same for so many seconds."""

    def __init__(self, what: str, seconds: float, sign: Callable[[], object] = lambda: None) -> None:
        self._what, self._seconds, self._sign = what, seconds, sign
        self._last: object = None
        self._waited = 0.0

    def __call__(self) -> str | None:
        now = self._sign()
        self._waited = self._waited + TICK_S if now == self._last else 0.0
        self._last = now
        if self._waited < self._seconds:
            return None
        at = culprit(threading.main_thread())
        return f"{self._what} has shown no sign of life for {self._seconds:g} s" + (f": {at}" if at else "")


def changes(*paths: Path) -> object:
    """A sign of life: something has been written to one of these files or folders."""
    found = []
    for path in paths:
        for file in (path, *path.rglob("*")):
            with contextlib.suppress(OSError):
                state = file.stat()
                found.append((str(file), state.st_size, state.st_mtime_ns))
    return frozenset(found)


class OutOfMemory:
    """Complains where this process is about to be ended for its memory, which would be without a word. Rewards, filters and
    hint injectors that are at work then are interrupted first; where that gives the memory back, it costs those calls."""

    def __init__(self) -> None:
        self._waited = 0.0

    def __call__(self) -> str | None:
        total, mine = memory().bytes, _field("/proc/self/status", "RssAnon") or 0
        free = _field("/proc/meminfo", "MemAvailable") or total
        if mine < 0.95 * total and (mine < 0.5 * total or free > 0.02 * total):
            self._waited = 0.0
            return None
        at_work = [
            (thread, at) for thread in sorted(threading.enumerate(), key=_rank) if (at := culprit(thread))
        ]
        if not self._waited and at_work and (likely := _rank(at_work[0][0])) < 2:
            # whose memory it is cannot be told: one may just hang, and another hoard
            for thread, _ in at_work:
                if _rank(thread) == likely:
                    _raise_in(thread, MemoryUsedUp)
        self._waited += TICK_S
        if self._waited < MEMORY_S:
            return None
        at = f": {at_work[0][1]}" if at_work else ""
        return f"memory has run out, of which this process holds {mine >> 20} of {total >> 20} MiB{at}"


def _rank(thread: threading.Thread) -> int:
    """Of whom to suspect: calls first, the main thread last. It is in a trainer or in a stage all the time."""
    if thread is threading.main_thread():
        return 3
    return {"cort-plugin": 0, "cort-runtime": 1}.get(thread.name, 2)


def _raise_in(thread: threading.Thread, error: type[Exception]) -> None:
    """As soon as it gets to its next line of Python."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(error))


class MemoryUsedUp(MemoryError):
    """Raised inside the plugin's code."""

    def __init__(self) -> None:
        super().__init__("it was at work when the memory ran out")


def _field(path: str, name: str) -> int | None:
    """Bytes."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(path, encoding="ascii") as file:
        return next((int(line.split()[1]) << 10 for line in file if line.startswith(f"{name}:")), None)
    return None


class HeldUp(Exception):
    """Raised inside the plugin's code."""

    def __init__(self) -> None:
        super().__init__(f"it held up all others for {LOOP_S:g} s; async code must not compute for long")


class Heart:
    """Complains where an event loop does not come round to what it is asked. The plugin's code is interrupted first, which
    costs one call and not the run; this helps where it is Python and not C that goes on for ever."""

    def __init__(self, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
        self._loop, self._thread = loop, thread
        self._beat = threading.Event()
        self._beat.set()
        self._waited = 0.0
        self._interrupted: FrameType | None = None
        self._patience = LOOP_S

    @contextlib.contextmanager
    def patient(self, seconds: float) -> Iterator[None]:
        """For what may block while nothing else goes on: an engine that loads."""
        before, self._patience = self._patience, max(seconds, self._patience)
        try:
            yield
        finally:
            self._patience, self._waited = before, 0.0

    def __call__(self) -> str | None:
        if self._beat.is_set():
            self._beat.clear()
            self._waited, self._interrupted = 0.0, None
            with contextlib.suppress(RuntimeError):  # it is closed
                self._loop.call_soon_threadsafe(self._beat.set)
            return None
        self._waited += TICK_S
        if self._waited < self._patience:
            return None
        found = _plugin_frame(self._thread)
        if found is not None and found[0] is not self._interrupted:  # one call after another may hold it up
            self._interrupted, self._waited = found[0], 0.0
            _raise_in(self._thread, HeldUp)
            return None
        if found is None and self._waited < 2 * self._patience:
            return None
        at = culprit(self._thread)
        return f"the event loop has been held up for {2 * self._patience:g} s" + (f": {at}" if at else "")


def culprit(thread: threading.Thread) -> str | None:
    """Which plugin's code a thread is in, and where."""
    found = _plugin_frame(thread)
    if found is None:
        return None
    frame, owner = found
    file = Path(frame.f_code.co_filename).name
    return f"{owner} is at work in {frame.f_code.co_name} ({file}, line {frame.f_lineno})"


def _plugin_frame(thread: threading.Thread) -> tuple[FrameType, str] | None:
    """The innermost frame of a plugin, and its distribution."""
    owners = {p.package: p.distribution for p in default_registry().plugins}
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        module, plugin = str(frame.f_globals.get("__name__", "")), frame.f_locals.get("self")
        package = module.partition(".")[0]
        if package != "cort_framework":
            if isinstance(plugin, Plugin):
                return frame, plugin.distribution
            if package in owners:
                return frame, owners[package]
            if any(_is_plugin(value) and value.__module__ == module for value in frame.f_globals.values()):
                return frame, module  # a script's, which is called by its module everywhere
        frame = frame.f_back
    return None


def _is_plugin(value: object) -> TypeGuard[type[Plugin]]:
    return isinstance(value, type) and issubclass(value, Plugin)
