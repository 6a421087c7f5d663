"""Comparing answers: at once where both are plain, else in a process of its own that can be killed."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from cort_python.calls import CallDied, Caller, CallRaised

T = TypeVar("T")


class GradingError(Exception):
    """An answer could not be compared: the comparison ran away, or its process broke."""


# --- plain answers ----------------------------------------------------------------------------------------------
_WRAPPER = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\{([^{}]*)\}")
_THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\}|\\,|\\!|,\\!)(?=\d{3}(?:\D|$))")
_PLAIN = re.compile(r"[-+]?\d{1,400}(?:\.\d{1,400})?")


def _stripped(text: str) -> str:
    text = text.strip().strip("$").strip()
    text = _WRAPPER.sub(r"\1", text) if "\\" in text else text
    return text.removesuffix(".").strip()


def plain_number(text: str) -> Fraction | None:
    """The value of an integer or a decimal, thousands separators allowed; ``None`` for anything else."""
    text = _THOUSANDS.sub("", _stripped(text))
    return Fraction(text) if _PLAIN.fullmatch(text) else None


def quick(gold: str, answer: str) -> bool | None:
    """Whether the answers agree, where that shows at once; ``None`` where it takes computer algebra."""
    if _stripped(gold) == _stripped(answer) != "":
        return True
    expected, given = plain_number(gold), plain_number(answer)
    if expected is None or given is None:
        return None
    if expected == given:
        return True
    # Decimals may still agree to the precision that they are given with.
    return False if expected.denominator == given.denominator == 1 else None


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
