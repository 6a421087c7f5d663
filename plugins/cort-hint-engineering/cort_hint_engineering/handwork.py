"""Traces of work by hand other than written-out equalities: lists, cases, tables, sequences, columns, expansions.

Each idea is a pattern and what one instance weighs, in the same digit operations as ``arithmetic``. What merely repeats the
problem or an output weighs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from cort_hint_engineering.arithmetic import NUMBER, Chain, chains, plain, value_of


@dataclass(frozen=True)
class Known:
    """What need not be worked out, since the problem or an output says it."""

    values: frozenset[Fraction]
    text: str
    """The texts themselves, without spaces."""

    def holds(self, text: str) -> bool:
        return re.sub(r"\s", "", text) in self.text


BLOCK = 2000
"""Characters after which what was found stays as it is, while the text grows on."""


def steps(text: str, known: Known) -> list[Chain]:
    """All that is worked out in a stretch of prose, by where it begins. Linear in the length of the text, and for a text that
    grows, in what is new."""
    return _in_blocks(_steps, text, known)


def dense_runs(text: str, known: Known) -> list[Chain]:
    """Many new numbers close to one another, whatever the words between them: what most work by hand looks like."""
    return _in_blocks(_dense_runs, text, known)


def _in_blocks(find: Callable[[str, Known], Sequence[Chain]], text: str, known: Known) -> list[Chain]:
    """Blocks end with a line; where they do depends on nothing that follows."""
    found: list[Chain] = []
    begin = 0
    while begin < len(text):
        end = text.find("\n", begin + BLOCK) + 1 or len(text)
        for step in find(text[begin:end], known):
            found.append(replace(step, start=step.start + begin, end=step.end + begin))
        begin = end
    return found


@lru_cache(maxsize=256)
def _steps(text: str, known: Known) -> Sequence[Chain]:
    found = chains(text)
    for idea in (_lists, _arrangements, _cases, _sequences, _columns, _tables, _expansions):
        found += idea(text, known)
    return sorted((step for step in found if step.weight), key=lambda step: step.start)


_NUMBERS = re.compile(NUMBER)
_THEN = r" {0,4}(?:[,;，、；]|→|->|\\to|\\rightarrow) {0,4}(?:and |then )?|,? and {1,4}|,? then {1,4}"
_LIST = re.compile(rf"{NUMBER}(?:(?:{_THEN}){NUMBER}){{7,}}")
_TRAIL = re.compile(rf"{NUMBER}(?:\s{{0,2}}(?:→|->|⇒|=>|\\to|\\rightarrow)\s{{0,2}}{NUMBER}){{4,}}")
_AND_THEN = re.compile(rf"{NUMBER}(?:[,，;]? (?:and )?then {NUMBER}|[,，]?(?:然后|再)是?{NUMBER}){{4,}}")
_ROW_OF_NUMBERS = re.compile(rf"{NUMBER}(?: {NUMBER}){{2,}}")


def _lists(text: str, known: Known) -> Iterator[Chain]:
    """Values one after the other: at least eight, most of them new and of two digits; or the trail of a process."""
    for match in _LIST.finditer(plain(text)):
        values = _values(match[0])
        new = sum(value >= 10 and value not in known.values for value in values)
        if 2 * new > len(values):
            yield _step(match, new, values)
    for pattern in (_TRAIL, _AND_THEN):
        for match in pattern.finditer(text):
            if not known.holds(match[0]):
                yield _step(match, 1 + len(_values(match[0])), _values(match[0]))
    for match in _ROW_OF_NUMBERS.finditer(text):
        if not known.holds(match[0]):
            yield _step(match, len(_values(match[0])) - 1)


_TUPLE = re.compile(r"(?<![\w}])\\?[({]\s?-?\d{1,4}(?:\s?[,，]\s?-?\d{1,4}){1,9}\s?\\?[)}]")
_WORD = r"\b(?:[A-Z]{2,8}|[01]{3,8}|[a-e]{3,6})\b"
_WORDS = re.compile(rf"{_WORD}(?:[,，、;]? {{0,2}}{_WORD}){{4,}}")
_PARTS = re.compile(r"(?<![\d+])\d{1,3}(?:\s?\+\s?\d{1,3}){1,15}(?=\s?(?:[;,，；、.。]|$))", re.MULTILINE)


def _arrangements(text: str, known: Known) -> Iterator[Chain]:
    """Objects written out: pairs and triples, words over a few letters, sums of parts."""
    yield from _runs([m for m in _TUPLE.finditer(text) if not known.holds(m[0])], at_least=5, within=30)
    for run in _runs(list(_PARTS.finditer(text)), at_least=5, within=30):
        yield replace(run, weight=text.count("+", run.start, run.end))
    for match in _WORDS.finditer(text):
        if not known.holds(match[0]):
            yield _step(match, len(re.findall(r"\w+", match[0])))


_CASE = re.compile(
    r"(?<![\w=+*/^(])\$?(?:"
    r"(?:(?:if|for|when|with|try|check|take|case|第|当|若|取|设)\s?\$?)?[a-zA-Z]{1,3}(?:_\d)?\s?=\s?(?:±|\\pm\s?)?-?\d{1,6}\$?时?\s?(?:[:：,，]|is\b|gives?\b|it's\b|→|有)"
    r"|(?:case|step|row|after(?: step)?|day|year|round|iteration|with|for|number)\s\$?\d{1,5}\$?\s?(?:[:：,，]|is\b|gives?\b|it's\b|→)"
    r"|[a-z]{3,12} \d{1,5}:"
    r"|(?:第\s?\d{1,4}\s?[步次天年轮项行个]|\d{1,5})\s?[:：]"
    r")",
    re.IGNORECASE,
)
_AFTER_CASE = re.compile(rf"[^\n]{{0,30}}?(?P<number>{NUMBER})")


def _cases(text: str, known: Known) -> Iterator[Chain]:
    """One case after the other, each with the number that it comes to: ``n = 4: 17, no``."""
    cases = []
    for case in _CASE.finditer(text):
        after = _AFTER_CASE.match(text, case.end())
        if after is not None and value_of(after["number"]) not in known.values:
            cases.append(case)
    yield from _runs(cases, at_least=3, within=90)


_ASSIGNED = re.compile(
    r"(?<![A-Za-z\\])[A-Za-z]{1,3}(?:_?\{?\d{1,4}\}?|\(-?\d{1,4}(?:\.\d{1,4})?(?:,\s?\d{1,4})?\))"
    rf"\s?(?:=|＝|≈|\\approx|is\b|equals)\s?-?(?P<value>{NUMBER})(?!\s?[-+*/^×·÷\\])"
)


def _sequences(text: str, known: Known) -> Iterator[Chain]:
    """Values of a function or a sequence, written down without their making: ``a_9 = 1393``."""
    for match in _ASSIGNED.finditer(text):
        value = value_of(match["value"])
        if value not in known.values and (value >= 3 or value.denominator > 1):
            yield _step(match, min(3, len(match["value"].replace(",", ""))), [value])


_COLUMN = re.compile(
    r"\b(?:remainders?|leaving|leaves|carry(?:ing)?|borrow(?:ing)?|bring(?:ing)? down|write|put(?:ting)? down|goes into|go into)"
    r"(?: is| of| a| the| next)?:? \$?\d|\d (?:doesn't|does not) (?:go|divide)\b|\bnot divisible\b|\d\)?,? (?:no|yes)\b"
    r"|余\s?数?(?:是|为)?\s?\d|[进借写商]\s?[一二\d]|不行|不整除|不能整除",
    re.IGNORECASE,
)


def _columns(text: str, known: Known) -> Iterator[Chain]:
    """The words of column arithmetic and of trial: remainder, carry, bring down; yes and no."""
    yield from _runs(list(_COLUMN.finditer(text)), at_least=3, within=90)


_TABLE_ROW = re.compile(r"^[^|\n]{0,40}\|[^\n]{1,160}$|^[^&\n]{1,40}(?:&[^&\n]{1,40}){1,9}\\\\", re.MULTILINE)


def _tables(text: str, known: Known) -> Iterator[Chain]:
    """Rows of numbers between bars or ampersands."""
    rows = []
    for match in _TABLE_ROW.finditer(text):
        values = _values(match[0])
        if len(values) >= 2 and any(v not in known.values for v in values) and not known.holds(match[0]):
            rows.append(match)
    for run in _runs(rows, at_least=3, within=30):
        yield replace(run, weight=3 * run.weight)


_POWER = r"(?:\^\{?\d{1,3}\}?|[²³⁴⁵⁶⁷⁸⁹])?"
_TERM = rf"(?:\d{{0,6}} ?[a-z]{_POWER}(?:[a-z]{_POWER}){{0,2}}|\d{{1,9}})(?![A-Za-z\d])"
_SUM_OF_TERMS = re.compile(rf"(?<![A-Za-z0-9.^{{]){_TERM}(?: ?[-+−] ?{_TERM}){{2,40}}")
_PRODUCT_OF_TERMS = re.compile(
    rf"(?<![A-Za-z0-9.])\d{{0,4}}[a-z]{_POWER} ?(?:\\cdot|\\times|\\div|[·×*÷/]) ?\(?-?\d{{0,4}}[a-z]?{_POWER}\)? ?= ?-?\d{{0,6}}[a-z]"
)


def _expansions(text: str, known: Known) -> Iterator[Chain]:
    """Polynomials and complex numbers multiplied out: sums of many terms, products of terms."""
    for match in _SUM_OF_TERMS.finditer(text):
        if re.search(r"[a-z]", match[0]) and not known.holds(match[0]):
            terms = len(re.findall(r"[-+−]", match[0]))
            large = sum(len(n) - 1 for n in re.findall(r"(?<![\^{\d])\d+", match[0]))
            yield _step(match, max(0, terms - 5) + large)
    for match in _PRODUCT_OF_TERMS.finditer(text):
        yield _step(match, 3)


_DENSE = 28
"""Characters between two numbers of a dense run at most."""
_FREE_NUMBER = re.compile(rf"(?<!\^)(?<!\^\{{){NUMBER}")


@lru_cache(maxsize=256)
def _dense_runs(text: str, known: Known) -> Sequence[Chain]:
    found: list[Chain] = []
    run: list[re.Match[str]] = []

    def finish() -> None:
        new = [number for number in run if value_of(number[0]) not in known.values]
        digits = sum(min(6, len(re.sub(r"\D", "", number))) for number in {n[0] for n in new})
        if len(new) >= 6 or (len(new) >= 4 and digits >= 20):
            weight = (digits + len(new)) // 3 - (2 if digits < 20 else 1)
            end = run[-1].end()
            found.append(Chain(new[0].start(), end, weight, 1, frozenset(), frozenset(), Fraction(0)))
        run.clear()

    for match in _FREE_NUMBER.finditer(text):
        if run and match.start() - run[-1].end() > _DENSE:
            finish()
        run.append(match)
    finish()
    return found


def _step(match: re.Match[str], weight: int, results: Iterable[Fraction] = ()) -> Chain:
    values = frozenset(results)
    return Chain(match.start(), match.end(), weight, 1, frozenset(), values, max(values, default=Fraction(0)))


def _runs(matches: Sequence[re.Match[str]], at_least: int, within: int) -> Iterator[Chain]:
    """Each row of at least so many, none further from the one before than ``within`` characters: one a match."""
    run: list[re.Match[str]] = []
    for match in [*matches, None]:
        if match is None or (run and match.start() - run[-1].end() > within):
            if len(run) >= at_least:
                yield Chain(run[0].start(), run[-1].end(), len(run), 1, frozenset(), frozenset(), Fraction(0))
            run = []
        if match is not None:
            run.append(match)


def _values(text: str) -> list[Fraction]:
    return [value_of(number) for number in _NUMBERS.findall(text)]
