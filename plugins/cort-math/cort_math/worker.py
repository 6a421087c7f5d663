"""The grading process: reads requests as JSON lines, compares answers with Math-Verify, writes JSON lines.

Computer algebra can run away in time or memory on an innocent-looking input, out of reach of any Python exception. So it
happens here, under a timer on processor time (a busy machine must not change a score) whose expiry kills the process, even
while one long integer operation holds the interpreter, and under a limit on memory.

Started as ``python -m cort_math.worker SECONDS``; ends when its input does.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import signal
import sys
from typing import Any

MEMORY = 2 << 30
"""Bytes of address space."""


class Comparison:
    """Math-Verify with its own timers off; importing it takes a good part of a second."""

    def __init__(self) -> None:
        from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

        self._targets = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())
        self._parse, self._verify = parse, verify

    def correct(self, gold: str, answer: str) -> bool:
        """Whether ``answer``, the content of a ``\\boxed{}``, means the same as ``gold``."""
        expected = self._parse(f"${gold}$", self._targets, parsing_timeout=None)
        given = self._parse(f"\\boxed{{{answer}}}", self._targets, parsing_timeout=None)
        return bool(expected and given and self._verify(expected, given, timeout_seconds=None))

    def readable(self, gold: str) -> bool:
        """Whether ``gold`` can be read as mathematics at all."""
        return bool(self._parse(f"${gold}$", self._targets, "no_fallback", parsing_timeout=None))

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if "answer" in request:
            return {"value": self.correct(request["gold"], request["answer"])}
        return {"value": self.readable(request["gold"])}


def main(seconds: float) -> None:
    # The replies keep the real standard output to themselves; whatever a library prints goes nowhere.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    logging.disable()
    with contextlib.suppress(ValueError, OSError):  # the limit is already lower, or the system has none
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    def reply(**values: Any) -> None:
        replies.write(json.dumps(values) + "\n")
        replies.flush()

    try:
        comparison = Comparison()
    except Exception as error:
        return reply(error=f"Math-Verify cannot be loaded: {type(error).__name__}: {error}")
    reply(ready=True)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            values = comparison.answer(json.loads(line))
        except Exception as error:
            values = {"error": f"{type(error).__name__}: {error}"}
        signal.setitimer(signal.ITIMER_PROF, 0)
        reply(**values)


if __name__ == "__main__":
    main(float(sys.argv[1]))
