"""Reward ``chemistry``: the answers to the task source ``molecules``."""

from __future__ import annotations

import re
from collections import Counter

from cort_framework import RewardFunction, Trajectory
from cort_framework.evaluation import last_boxed

_WRAPPER = re.compile(
    r"\\(?:text|mathrm|mathbf|mathit|mathsf|textbf|textit|textrm|texttt|mbox|operatorname|ce)\s*(?=\{)"
)
_VERBATIM = re.compile(r"\\verb\*?([^\w\s])(.*)\1")
_SPACE = re.compile(r"\\[,;:! ]|~|\\q?quad\b|\s+")
_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{\s*(\d{1,30})\s*\}|(\d))\s*(?:\{\s*(\d{1,30})\s*\}|(\d))")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")

_DECIMAL = r"(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})"
_NUMBER = re.compile(
    rf"""(?P<sign>[-+−]?)\s*\(?(?P<value>{_DECIMAL})
    (?:\s*/\s*(?P<below>{_DECIMAL}))?\)?
    (?:(?:[eE]|\s*(?:\\times|\\cdot|×|·|\*)\s*10\s*(?:\^|\*\*)\s*)(?P<power>[-+−]?\d{{1,2}}))?
    (?P<percent>\s*(?:%|percent\b))?""",
    re.VERBOSE,
)
_SAID = re.compile(
    r"[A-Za-z\\](?:(?<=[A-Za-z_])\d+|[^\d=<>≈:≠])*(?:=|≈|\\approx|\\sim|:)\s*|(?:≈|\\approx|\\sim)\s*"
)
"""What may stand before a number: `N =`, `m(C9H8O4) =`, `\\approx`; no other number."""
_BEHIND = re.compile(
    r"\s*(?:g\s*(?:/|\\cdot|[·⋅])?\s*mol\s*(?:\^?-1|⁻¹)?|u"
    r"|(?P<words>(?=.*[A-Za-z]{2})[A-Za-z]+(?:[ -]+[A-Za-z]+)*))?\s*\.?"
)
"""What may stand behind it: a unit, or words such as `aromatic rings`."""
_ANOTHER = re.compile(
    r"\b(?:and|or|to|but|not|maybe|perhaps|possibly|plus|minus|more|less|fewer|than|least|most|kda|mda|"
    r"half|one|two|three|four|five|six|seven|eight|nine|ten|dozen|hundred|thousand|million|billion)\b",
    re.IGNORECASE,
)
"""Words behind a number that make it another, or one of several."""
_ELEMENT = re.compile(r"([A-Z][a-z]?)(\d{0,6})")


class ChemistryReward(RewardFunction):
    """1 where the last ``\\boxed{}`` after the thinking is the task's answer, else 0.

    The task's ``answer_kind`` says how they are compared: a ``number`` to within its ``tolerance``, with a name before it
    and a unit or words behind it where one likes, but no second number; a ``formula`` by its atoms, in whatever order; a
    ``text`` by its characters. A trajectory that did not come to its end scores 0. Does not apply to a task without an
    answer.
    """

    name = "chemistry"

    async def score(self, trajectory: Trajectory) -> float | None:
        task = trajectory.task
        if task.answer is None:
            return None
        given = last_boxed(trajectory.final_text) if trajectory.finished else None
        if not given:
            return 0.0
        kind = task.metadata.get("answer_kind", "text")
        tolerance = float(task.metadata.get("tolerance", 0.0))
        return float(same(task.answer, given, kind, tolerance))


def same(gold: str, given: str, kind: str, tolerance: float = 0.0) -> bool:
    """Whether an answer is the reference. Raises ``ValueError`` for a kind that is not known."""
    given = plain(given)
    if kind == "number":
        found = number(given)
        return found is not None and abs(found - float(gold)) <= tolerance + 1e-9
    if kind == "formula":
        written = re.sub(r"^[A-Za-z ]*[:=]", "", _SPACE.sub(" ", given)).translate(_SUBSCRIPTS)
        return atoms(gold) == atoms(re.sub(r"[\s_]|\.$", "", written)) is not None
    if kind == "text":
        return given == gold
    raise ValueError(f"a task's answer_kind is number, formula or text, not {kind!r}")


def plain(text: str) -> str:
    """Without what LaTeX, Markdown or prose needs around it: fonts, braces (no SMILES has any), dollars, quotes."""
    text = _VERBATIM.sub(r"\2", text.strip().strip("$"))
    text = _FRACTION.sub(lambda m: f"({m[1] or m[2]}/{m[3] or m[4]})", text)
    text = re.sub(r"[{}]", "", _WRAPPER.sub("", text))
    return re.sub(r"\\([#_%&$])", r"\1", text).strip().strip("`'\"“”‘’").strip()


def number(text: str) -> float | None:
    """The one number that is said: `3`, `.25`, `1/4`, `25%`, `3e2`, `N = 3`, `3 rings`, `180.042 g/mol`.

    ``None`` where there is none, or more than that: `3 or 4`, `3-4`, `3+1`, `3^2`.
    """
    text = _SPACE.sub(" ", text.replace("$", "")).strip()
    said = _SAID.match(text)
    text = text[said.end() :] if said else text
    found = _NUMBER.match(text)
    behind = found and _BEHIND.fullmatch(text, found.end())
    if not found or not behind or _ANOTHER.search(behind["words"] or ""):
        return None
    below = float(found["below"] or 1)
    if not below:
        return None
    value = float(found["value"]) / below * 10.0 ** int((found["power"] or "0").replace("−", "-"))
    return (-value if found["sign"] in ("-", "−") else value) / (100 if found["percent"] else 1)


def atoms(formula: str) -> Counter[str] | None:
    """How many of each element, an amount that is not written being one; ``None`` for what is no formula."""
    if not formula or _ELEMENT.sub("", formula):
        return None
    total: Counter[str] = Counter()
    for element, amount in _ELEMENT.findall(formula):
        total[element] += int(amount) if amount else 1
    return total
