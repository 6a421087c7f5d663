"""A loop on which waiting takes no time and a busy machine changes nothing."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class SkippingLoop(asyncio.SelectorEventLoop):
    """Its clock shows this process's processor time and, in full, every wait for a timer; but where nothing is left to do
    except to wait, it jumps. So minutes of waiting pass at once, what is computed counts as long as it takes, and what
    other processes do counts nothing: the time that the work would take on a machine of its own.

    ``at_work``: whether other threads of this process are computing, so that it must not jump.
    """

    def __init__(self, at_work: Callable[[], bool] = lambda: False) -> None:
        self._shown, self._asked, self._looked = 0.0, time.process_time(), time.perf_counter()
        super().__init__(_Skipping(self, at_work))

    def time(self) -> float:
        return self._shown + time.perf_counter() - self._looked

    def set_right(self) -> None:
        """To ask for the processor time is a system call, so another clock serves for a fifth of a millisecond."""
        if time.perf_counter() - self._looked > 0.0002:
            asked = time.process_time()
            self._shown += asked - self._asked
            self._asked, self._looked = asked, time.perf_counter()

    def skip(self, seconds: float) -> None:
        self._shown += seconds


class _Skipping(selectors.SelectSelector):
    def __init__(self, loop: SkippingLoop, at_work: Callable[[], bool]) -> None:
        super().__init__()
        self._loop, self._at_work = loop, at_work

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            events = super().select(timeout)
        else:
            # while another thread computes, this clock goes at most as fast as the day's: what is missing is waited for again
            events = super().select(timeout if self._at_work() else 0)
            if not events and not self._at_work():
                self._loop.skip(timeout)
        self._loop.set_right()
        return events


def run(work: Coroutine[Any, Any, T], wall: bool, at_work: Callable[[], bool] = lambda: False) -> T:
    """Run it on such a loop, or (``wall``) on an ordinary one."""
    factory: Callable[[], asyncio.AbstractEventLoop] = (
        asyncio.SelectorEventLoop if wall else lambda: SkippingLoop(at_work)
    )
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)
