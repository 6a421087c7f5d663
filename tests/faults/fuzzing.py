"""Recipes and trajectories that somebody, or something, has spoilt: in their bytes, or in the values that they hold."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable
from random import Random
from typing import Any, Literal

from cort_framework import CortError

STRANGE: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    3,
    10**30,
    0.5,
    -1e300,
    float("nan"),
    float("inf"),
    "",
    "x",
    "tiny",
    "../..",
    "a/b",
    "/dev/null",
    "\0",
    "\ud800",
    "{problem}",
    "{",
    "é\u2028" * 40,
    [],
    ["x"],
    [[]],
    [None, 1, "x"],
    {},
    {"x": 1},
    {"use": "cort-math/answer"},
    {"use": 5},
    [{"name": "x"}],
)
"""What stands where something else should."""


def spoil_bytes(data: bytes, rng: Random) -> bytes:
    """Some bytes changed, lost, doubled or put in, or the rest cut off."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        place, size = rng.randrange(len(found) + 1), rng.choice((1, 1, 3, 30))
        piece = bytes(found[place : place + size])
        match rng.randrange(6):
            case 0:
                found[place : place + size] = rng.randbytes(len(piece))
            case 1:
                del found[place : place + size]
            case 2:
                found[place:place] = piece
            case 3:
                found[place:place] = rng.choice(
                    (b'"', b"[", b"}", b"\n", b"=", b"\0", b"-", b"9" * 400, b"[" * 2000)
                )
            case 4:
                other = rng.randrange(len(found) + 1)
                found[other:other] = piece
            case 5 if rng.random() < 0.2:
                del found[place:]
    return bytes(found)


def spoil_values(data: Any, rng: Random) -> Any:
    """A copy of nested tables with some values replaced, removed, renamed, doubled or moved elsewhere."""
    data = copy.deepcopy(data)
    for _ in range(rng.choice((1, 1, 1, 1, 2, 3))):
        places = list(_places(data))
        if not places:
            return data
        holder, key = rng.choice(places)
        other, its_key = rng.choice(places)
        match rng.randrange(6):
            case 0:
                holder[key] = copy.deepcopy(rng.choice(STRANGE))
            case 1:  # of the same type: it gets further
                kind = type(holder[key])
                holder[key] = copy.deepcopy(rng.choice([s for s in STRANGE if type(s) is kind] or [None]))
            case 2:
                del holder[key]
            case 3 if isinstance(holder, dict):
                holder[rng.choice((str(key) + "s", str(key)[1:], "x", str(its_key)))] = holder.pop(key)
            case 3 | 4:
                holder[key] = copy.deepcopy(other[its_key])
            case 5 if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[key]))
            case 5:
                holder[f"new{rng.randrange(3)}"] = copy.deepcopy(rng.choice(STRANGE))
    return data


def _places(data: Any) -> Any:
    """Every holder and key in nested tables; not every one of a long list."""
    items: list[tuple[Any, Any]] = []
    if isinstance(data, dict):
        items = list(data.items())
    elif isinstance(data, list):
        items = list(enumerate(data))[:8]
    for key, value in items:
        yield data, key
        yield from _places(value)


def try_out(work: Callable[[], object]) -> tuple[Literal["survived", "refused", "lost"], str]:
    """Whether the work went well, ended by an error for people, or in a traceback; the second is that."""
    try:
        work()
    except CortError as error:
        return ("refused", error.message) if error.message.strip() else ("lost", "an error without a word")
    except Exception:
        return "lost", traceback.format_exc()
    return "survived", ""
