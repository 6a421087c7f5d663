"""What is said of a boundary, and the words for a difference."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal, get_args

Boundary = Literal["prompt", "thinking", "fence", "output", "hint", "end"]
BOUNDARIES: tuple[Boundary, ...] = get_args(Boundary)

PROBLEM = "What is 12*34, where \\(a_1 = x^2\\) and {b} are as usual?\nAnswer in `digits`."
ANSWER = "The answer is \\boxed{408}."


@dataclass(frozen=True)
class Finding:
    """What was found at one boundary. ``note``: worth knowing, breaks nothing. ``fault``: something would go wrong."""

    boundary: Boundary
    level: Literal["ok", "note", "fault"]
    text: str
    fix: str = ""


def quoted(text: str) -> str:
    return json.dumps(text if len(text) < 50 else f"{text[:24]} … {text[-24:]}", ensure_ascii=False)


def difference(wanted: str, found: str) -> str:
    """The first one, in words."""
    at = same(wanted, found)
    left = quoted(wanted[at:][:16]) if wanted[at:] else "nothing more"
    return f"{_after(wanted[:at])}{left} comes back as {quoted(found[at:][:16])}"


def lost_part(wanted: str, text: str) -> str:
    """Where ``text``, which ought to hold ``wanted``, stops doing so."""
    length = max(n for n in range(len(wanted) + 1) if wanted[:n] in text)
    if length < 4:
        return f"it is not in {quoted(text)}"
    at = text.find(wanted[:length]) + length
    return f"{_after(wanted[:length])}{quoted(wanted[length:][:16])} comes back as {quoted(text[at:][:16])}"


def same(one: str, other: str) -> int:
    """How many characters the two begin with together."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _after(text: str) -> str:
    return f"after {quoted(text[-16:])}, " if text else ""
