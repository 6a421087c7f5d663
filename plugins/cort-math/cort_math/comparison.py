"""Math-Verify's comparison of answers. For processes of calls alone: it may run away in time or memory on an
innocent-looking input, out of reach of any Python exception, and it evaluates what it reads.

Importing this takes a good part of a second, after which comparisons are quick.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from math_verify import (  # type: ignore[import-untyped]
    ExprExtractionConfig,
    LatexExtractionConfig,
    parse,
    verify,
)

TARGETS = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())


def correct(gold: str, answer: str) -> bool:
    """Whether ``answer``, the content of a ``\\boxed{}``, means the same as ``gold``. An inequality means its interval."""
    if {_enclosure(gold), _enclosure(answer)} == {"set", "ordered"}:
        return False  # Math-Verify takes (1, 2) for {1, 2}
    expected = parse(f"${gold}$", TARGETS, parsing_timeout=None)
    given = parse(f"\\boxed{{{answer}}}", TARGETS, parsing_timeout=None)
    same = expected and given and verify(expected, given, allow_set_relation_comp=True, timeout_seconds=None)
    return bool(same)


_SET = re.compile(r"\\\{[^()\[\]]*\\\}")
_ORDERED = re.compile(r"[(\[][^()\[\]]*,[^()\[\]]*[)\]]")


def _enclosure(text: str) -> str | None:
    """``set`` for {1, 2}; ``ordered`` for a pair, a point or an interval; ``None`` for anything else."""
    text = re.sub(r"\\left|\\right|[$\s]", "", text)
    return "set" if _SET.fullmatch(text) else "ordered" if _ORDERED.fullmatch(text) else None


def readable(gold: str) -> bool:
    """Whether ``gold`` can be read as mathematics at all."""
    return bool(parse(f"${gold}$", TARGETS, "no_fallback", parsing_timeout=None))


def answer(request: dict[str, Any]) -> bool:
    """What the grader asks: ``{"gold": …, "answer": …}``, or ``{"gold": …}`` alone."""
    logging.disable()
    if "answer" in request:
        return correct(request["gold"], request["answer"])
    return readable(request["gold"])


# A first comparison loads the parsers' tables: let the process do it that others are forked from.
assert correct("\\frac{\\sqrt{2}}{2} + x^{2}", "x^2 + \\frac{1}{\\sqrt{2}}")
assert not correct("(1, 2]", "\\{1, 2\\}")
