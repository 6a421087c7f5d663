"""Comparing answers: at once where both are plain, else in a worker process that can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import select
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

STARTUP_SECONDS = 120.0
"""For a worker to import its libraries, on however busy a machine."""


class GradingError(Exception):
    """An answer could not be compared: the comparison ran away, or its worker broke."""


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


# --- workers ----------------------------------------------------------------------------------------------------
class _Worker:
    """One child process, used by one thread at a time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._process = subprocess.Popen(
            # -P: a file of the working directory must not shadow a library
            [sys.executable, "-P", "-m", "cort_math.worker", str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # an interrupt from the terminal is the parent's affair
        )
        self._receive(STARTUP_SECONDS)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: dict[str, Any]) -> Any:
        """The reply's value. Raises ``GradingError``, after which the worker may be dead."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a dead worker is found out at its missing reply
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        # The worker ends itself at its limit, which is on processor time; this one is for a worker that hangs.
        return self._receive(10 * self._seconds + 30).get("value")

    def _receive(self, seconds: float) -> dict[str, Any]:
        stdout = self._process.stdout
        assert stdout is not None
        poll = select.poll()
        poll.register(stdout, select.POLLIN)
        answered = poll.poll(seconds * 1000)
        line = stdout.readline() if answered else b""
        if not line:
            code = self.close()
            if not answered or code == -signal.SIGPROF:
                raise GradingError(f"the comparison did not end within {self._seconds:g} s and was killed")
            raise GradingError(f"the grading process ended unexpectedly (exit code {code})")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise GradingError(str(reply["error"]))
        return reply

    def close(self) -> int:
        """Kill it, and its exit code; it holds nothing worth saving."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        return self._process.wait()


class Grader:
    """A pool of workers, each started when it is first needed and again after it was killed."""

    def __init__(self, workers: int = 1, timeout_s: float = 5.0) -> None:
        self._timeout = timeout_s
        self._idle: list[_Worker] = []
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="cort-math")

    async def correct(self, gold: str, answer: str) -> bool:
        """Whether the two mean the same. Raises ``GradingError``."""
        known = quick(gold, answer)
        if known is not None:
            return known
        return bool(
            await asyncio.wrap_future(self._threads.submit(self._ask, {"gold": gold, "answer": answer}))
        )

    def readable(self, gold: str) -> bool:
        """Whether ``gold`` can be compared with anything. Blocks; raises ``GradingError``."""
        return plain_number(gold) is not None or bool(
            self._threads.submit(self._ask, {"gold": gold}).result()
        )

    def _ask(self, request: dict[str, Any]) -> Any:
        """Runs in one of the threads, of which there are as many as there may be workers."""
        try:
            worker = self._idle.pop()
        except IndexError:
            worker = _Worker(self._timeout)
        if not worker.alive:
            worker.close()
            worker = _Worker(self._timeout)
        try:
            return worker.ask(request)
        finally:
            if worker.alive:
                self._idle.append(worker)

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        while self._idle:
            self._idle.pop().close()
