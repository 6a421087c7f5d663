r"""How answers are written: what two of them must agree on besides their mathematics, and that mathematics in one
notation. Text alone, so that most wrong answers cost no computer algebra.

>>> comparable(r"15\mbox{ cm}^2", "15 cm^2")
('15', '15')
>>> comparable(r"15\mbox{ cm}^2", r"15\text{ m}^2") is None
True
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce


def comparable(gold: str, answer: str) -> tuple[str, str] | None:
    """What to compare as mathematics; ``None`` where the two cannot mean the same, whatever their mathematics.

    A unit, a base or a percent sign may be left out on either side, but two of them must be equal. A percentage is its
    number, except beside a number between 0 and 1, where it is its hundredth. A pair, point or interval is neither a set
    nor a list. Letters keep their case.
    """
    if choice := _CHOICE.fullmatch(_tidy(gold)):
        chosen = _CHOSEN.fullmatch(_tidy(answer)) or _CHOICE_AHEAD.match(_tidy(answer))
        return (choice[1], chosen[1].upper()) if chosen else None
    expected, given = _read(gold), _read(answer)
    if given.remark and given.remark != expected.remark:
        return None
    if any(one != other for one, other in zip(expected.unit, given.unit, strict=False)):
        return None  # but dollars may be dollars per hour
    if expected.base and given.base and expected.base != given.base:
        return None
    ordered = [reading.form == "ordered" for reading in (expected, given)]
    if ordered[0] != ordered[1] and expected.form and given.form:
        return None
    letters = [_letters(reading.text) for reading in (expected, given)]
    if letters[0] != letters[1] and {*map(str.lower, letters[0])} == {*map(str.lower, letters[1])}:
        return None
    left, right = expected.text, given.text
    if expected.percent and not given.percent and _is_share(right):
        left = f"\\frac{{{left}}}{{100}}"
    if given.percent and not expected.percent and _is_share(left):
        right = f"\\frac{{{right}}}{{100}}"
    return left, right


def plain_number(text: str) -> Fraction | None:
    """The value of an integer or a decimal, thousands separators allowed; ``None`` for anything else."""
    text = _THOUSANDS.sub("", _tidy(text))
    return Fraction(text) if _PLAIN.fullmatch(text) else None


@dataclass(frozen=True)
class _Reading:
    text: str
    """The mathematics."""
    unit: tuple[str, ...]
    """The known units, each with its power: those in a name that are not known contradict nothing."""
    remark: str
    """What is said after the mathematics that is no unit."""
    base: str
    percent: bool
    form: str
    """``ordered``, ``set``, ``list`` or empty."""


def _read(text: str) -> _Reading:
    text = _CHOICE_AHEAD.sub("", _tidy(text))
    text, unit, remark = _without_unit(text)
    if not _RELATION.search(text):
        text = re.sub(r"(?:,\s*)?\b(?:and|or)\b", ",", text)  # joined inequalities differ by the word
    text, signs = _PERCENT.subn("", text)
    based = _BASED.fullmatch(text)
    text = _united(_THOUSANDS.sub("", based[1] if based else text))
    if _GROUPED.fullmatch(text):
        text = text.replace(" ", "")
    return _Reading(
        text, unit, remark, _BASES.get(based[2], based[2]) if based else "", signs > 0, _form(text)
    )


# --- one notation -----------------------------------------------------------------------------------------------
_FONT = r"\\(?:text|mbox|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|operatorname)\s*"
_NOTATIONS = [
    (r"\\(?:displaystyle|left|right)(?![A-Za-z])|\\!\s*|(?<!\\)\$", ""),
    (r"(?<!\\)\\[,;:> ]|~|\\q?quad(?![a-z])", " "),
    (_FONT + r"\{\s*(and|or)\s*\}", r" \1 "),
    (_FONT + r"\{([ie]|\\?\$?\s*[-+]?[\d.,]+\s*)\}", r"\1"),  # numbers and constants in another font
    (r"(?<=\d)\s+i(?![A-Za-z])", "i"),
    (_FONT + r"\{(\d[\d.,]*)\s+([A-Za-z ]+)\}", r"\1 \\text{\2}"),
    (r"\\ang\{([^{}]*)\}", r"\1°"),
    (r"°|\^\{?(?:\\circ|\\degree|o)(?![A-Za-z])\}?|\\degree(?![A-Za-z])", r"\\text{ degrees}"),
    (r"¢|\\cent(?![A-Za-z])", r"\\text{ cents}"),
    (r"(?<=\\\\)\[[^\[\]]*(?:pt|em|ex)\]", ""),
    (r"\{:\}", ":"),
    (r"²", "^2"),
    (r"³", "^3"),
    (r"\\langle(.*?)\\rangle", r"(\1)"),
    (r"\\[lr]?vert(?![A-Za-z])|\\mid(?![A-Za-z])", "|"),
    (r"(?:^|(?<=\{))an?\s+(?=[a-z]{3})", ""),  # "an ellipse"
    (r"\\(?:lor|vee)(?![A-Za-z])", " or "),
    (r"[\s.,;]+$|^\s+", ""),
]
_NOTATION = [(re.compile(pattern), to) for pattern, to in _NOTATIONS]
_COLUMN = re.compile(r"\\begin\{[pb]matrix\}([^&]*?\\\\[^&]*?)\\end\{[pb]matrix\}")


def _tidy(text: str) -> str:
    text = reduce(lambda t, step: step[0].sub(step[1], t), _NOTATION, text.strip())
    return _COLUMN.sub(
        lambda column: f"({', '.join(column[1].strip().removesuffix(_ROW).split(_ROW))})", text
    )


_ROW = "\\\\"
_THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\}| )(?=\d{3}(?:\D|$))")
_PLAIN = re.compile(r"[-+]?(?:\d{1,400}\.?|\d{0,400}\.\d{1,400})")
_GROUPED = re.compile(r"\d{1,3}(?: \d{3})+")
_CHOICE = re.compile(rf"(?:{_FONT})?\{{?\(?([A-Z])\)\}}?")
_CHOSEN = re.compile(rf"(?:{_FONT})?\{{?\(?([A-Za-z])\)?\}}?")
_CHOICE_AHEAD = re.compile(rf"^(?:{_FONT})?\{{?\(([A-Z])\)\s*\}}?\s*(?=[^\s}}])")
_PERCENT = re.compile(r"\s*(?:\\?%|\\text\{\s*(?:percent|%|\\%)\s*\}|percent$)")
_BASED = re.compile(r"([\dA-F]+)_\{?\s*(?:\\text\{)?(\d+|[a-z]+)\}*")
_NUMERALS = ("two", "three", "four", "five", "six", "seven", "eight", "nine")
_BASES = {word: str(base) for base, word in enumerate(_NUMERALS, 2)}


def _is_share(text: str) -> bool:
    parts = re.fullmatch(r"\\[dt]?frac\s*\{?(\d+?)\}?\{?(\d+)\}?|(\d+)/(\d+)", text)
    if parts:
        top, bottom = (int(part) for part in parts.groups() if part)
        return 0 < top < bottom
    number = plain_number(text)
    return number is not None and 0 < number < 1


def _letters(text: str) -> set[str]:
    text = re.sub(r"^\s*[A-Za-z]\s*=", "", text)  # the answer's name may be any
    return set(re.sub(rf"{_FONT}\{{[^{{}}]*\}}|\\[A-Za-z]+|[A-Za-z]{{3,}}|[^A-Za-z]", "", text))


# --- units ------------------------------------------------------------------------------------------------------
_NAMES = """
in inch inche | foot ft feet | yard yd | mile mi | mm millimeter | cm centimeter | m meter | km kilometer
g gram | kg kilogram | pound lb | ounce oz | s sec second | minute min | hour h hr | day | week | month | year yr
dollar usd | cent | euro | degree deg | radian rad | liter l | ml milliliter | am | pm
"""
_UNITS = {name: unit.split()[0] for unit in re.split(r"[|\n]", _NAMES) for name in unit.split()}
_POWERS = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}
_UNIT = re.compile(
    rf"(?P<text>.*?)\s*(?:{_FONT}\{{(?P<unit>[^{{}}]*)\}}|(?<=[\d}}) ])(?P<word>[A-Za-z]{{2,}}(?: [A-Za-z]+)*))"
    r"\s*(?:\^\{?(?P<power>\d)\}?)?"
)
_CLAIM = re.compile(r"\b(?:is|are|was|not|no|or|and|maybe|wrong|incorrect|false|approximately|about)\b")


def _without_unit(text: str) -> tuple[str, tuple[str, ...], str]:
    """The text without its unit, the unit, and what stood there instead of a unit."""
    dollars = ["dollar 1"] if text.startswith("\\$") else []
    text = text.removeprefix("\\$").lstrip()
    found = _UNIT.fullmatch(text)
    if found is None or not re.search(r"\d|\\pi|\\sqrt|[a-z]", found["text"]):
        return text, (*dollars,), ""
    name = found["unit"] or found["word"] or ""
    if found["word"] and not any(len(word) > 3 or word in _UNITS for word in name.lower().split()):
        return text, (*dollars,), ""  # a product of variables
    if _CLAIM.search(name):
        return text, (), name.strip()
    words = [
        w if len(w) < 3 else w.removesuffix("s") for w in re.findall(r"[a-z]+", name.lower().replace(".", ""))
    ]
    words = [re.sub(r"(?<=met|lit)re$", "er", word) for word in words]
    power = found["power"] or next((_POWERS[word] for word in words if word in _POWERS), "1")
    return found["text"], (*dollars, *(f"{_UNITS[word]} {power}" for word in words if word in _UNITS)), ""


# --- lists, pairs and unions --------------------------------------------------------------------------------------
_INTERVAL = re.compile(r"[(\[][^()\[\]]*,[^()\[\]]*[)\]]")
_SET = re.compile(r"\\\{[^()\[\]]*\\\}")
_BUILDER = re.compile(r"\\\{\s*[a-z](?:\s*\\in\s*\\mathbb\{?R\}?)?\s*[:|]\s*(.*)\\\}")
_MEMBER = re.compile(r"^\s*[a-z]\s*\\in(?![a-z])\s*")
_RELATION = re.compile(r"[<>≤≥]|\\[lg]eq?(?![a-z])")
_BETWEEN = re.compile(r"(?:([^<≤=]+)([<≤]))?\s*[a-z]\s*(?:([<≤])([^<≤=]+))?")
_SIGNS = re.compile(r"([<>≤≥])")


def _form(text: str) -> str:
    text = re.sub(r"\s", "", _MEMBER.sub("", text))
    if _SET.fullmatch(text):
        return "set"
    if _INTERVAL.fullmatch(text) or "\\cup" in text:
        return "ordered"
    items = [item.split("=")[0] if "=" in item else "" for item in _items(text)]
    if len(items) > 1 and all(items) and len({*items}) == len(items):
        return ""  # x = 1, y = 2 is a point
    return "list" if len(items) > 1 or re.match(r"[^()<>=]*\\pm", text) else ""


def _items(text: str) -> list[str]:
    """Split at the commas outside of any bracket."""
    items, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            items.append("")
        else:
            items[-1] += character
    return items


def _united(text: str) -> str:
    """A set-builder or inequalities or intervals joined by commas or "or", as a union of intervals."""
    if builder := _BUILDER.fullmatch(text):
        text = builder[1].strip()
    parts = [part for piece in re.split(r"\bor\b", text) for part in _items(piece) if part.strip()]
    intervals = [_interval(part) for part in parts]
    return "\\cup".join(filter(None, intervals)) if len(parts) > 1 and all(intervals) else text


def _interval(text: str) -> str | None:
    text = _MEMBER.sub("", text).strip()
    if _INTERVAL.fullmatch(text):
        return text
    text = re.sub(r"\\leq?(?![a-z])", "≤", re.sub(r"\\geq?(?![a-z])", "≥", text))
    if re.search("[>≥]", text):
        text = "".join(reversed(_SIGNS.split(text))).translate({ord(">"): "<", ord("≥"): "≤"})
    between = _BETWEEN.fullmatch(text)
    if between is None or not any(between.groups()):
        return None
    low, opening, closing, high = between.groups()
    left, right = "[" if opening == "≤" else "(", "]" if closing == "≤" else ")"
    return left + (low or "-\\infty") + "," + (high or "\\infty") + right
