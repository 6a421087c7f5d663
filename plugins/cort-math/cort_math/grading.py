"""Comparing answers: at once where both are plain, else in a process of its own that can be killed."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from cort_math.notation import comparable, plain_number
from cort_python.calls import CallDied, Caller, CallRaised

T = TypeVar("T")


class GradingError(Exception):
    """An answer could not be compared: the comparison ran away, or its process broke."""


_SHORT = 1000


def quick(gold: str, answer: str) -> bool | None:
    """Whether the answers agree, where that shows at once; ``None`` where it takes computer algebra."""
    if max(len(gold), len(answer)) > _SHORT:
        return None  # patterns too may take long, and nothing ends them in this process
    pair = comparable(gold, answer)
    if pair is None:
        return False
    if pair[0] == pair[1] != "":
        return True
    expected, given = plain_number(pair[0]), plain_number(pair[1])
    return None if expected is None or given is None else expected == given


# --- comparisons ------------------------------------------------------------------------------------------------
class Grader:
    """Compares in processes of calls, ``concurrency`` at a time, each limited to ``timeout_s`` seconds of processor time:
    a busy machine must not change a score. Nothing is started before it is needed."""

    def __init__(self, concurrency: int = 1, timeout_s: float = 5.0) -> None:
        self._concurrency = concurrency
        self._timeout = timeout_s
        self._caller: Caller | None = None

    async def correct(self, gold: str, answer: str) -> bool:
        """Whether the two mean the same. Raises ``GradingError``."""
        known = quick(gold, answer)
        return await self._ask({"gold": gold, "answer": answer}) if known is None else known

    def readable(self, gold: str) -> bool:
        """Whether ``gold`` can be compared with anything. Blocks; raises ``GradingError``."""
        return plain_number(gold) is not None or blocking(self._ask({"gold": gold}))

    async def _ask(self, request: dict[str, Any]) -> bool:
        if self._caller is None:
            self._caller = Caller(
                "cort_math.comparison:answer",
                folder=Path(tempfile.gettempdir()),
                timeout_s=10 * self._timeout + 30,  # for what hangs without working
                cpu_s=self._timeout,
                memory_mb=2048,
                concurrency=self._concurrency,
            )
        try:
            return bool(await self._caller.call(request))
        except TimeoutError:
            raise GradingError(
                f"the comparison did not end within {self._timeout:g} s and was killed"
            ) from None
        except CallDied as death:
            raise GradingError(f"the grading process ended unexpectedly ({death})") from None
        except CallRaised as error:
            raise GradingError(str(error)) from None

    def close(self) -> None:
        """Blocks."""
        if self._caller is not None:
            blocking(self._caller.close())
            self._caller = None


def blocking(work: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result, for a caller that cannot await, whatever loop runs in its thread."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
