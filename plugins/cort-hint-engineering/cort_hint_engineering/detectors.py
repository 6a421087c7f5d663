"""The two faults, as rules over a trajectory's text (paper: delayed code computation, code result distrust).

Only prose by the model, inside its thinking, can be at fault. Written-out arithmetic is gathered into passages and weighed
in digit operations (see ``arithmetic``); how much makes a fault depends on how it is announced. The rules hold for text that
is still growing: they speak once the evidence is complete, and more text does not take it back.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Literal

from cort_framework import Outcome, Trajectory
from cort_framework.behaviour import numbers, prose
from cort_hint_engineering.arithmetic import Chain, chains, listings

ANNOUNCED = 1
"""Digit operations that make a fault after "by hand" or "step by step"."""
INTENDED = 3
"""After "let me compute" and its like, or after a doubt about an output."""
UNANNOUNCED = 7
"""After nothing of the kind."""
REACH = 300
"""Characters over which an announcement carries to the arithmetic that follows."""
PAUSE = 160
"""Characters between two equalities of one passage at most."""


@dataclass(frozen=True)
class Span:
    """A fault: character positions in ``Trajectory.response``, the text there, and why it is one. ``start`` is where the
    sentence begins that leads into it: the place for a hint."""

    start: int
    end: int
    evidence: str
    reason: str


def delayed_computation(trajectory: Trajectory) -> list[Span]:
    """Where the model works out by hand what a program could: before code, without code, or for a new number after it."""
    return [span for kind, span in _faults(trajectory) if kind == "delayed"]


def result_distrust(trajectory: Trajectory) -> list[Span]:
    """Where the model derives by hand a number that the interpreter has returned. Looking at the code's logic, or running
    other code, is none."""
    return [span for kind, span in _faults(trajectory) if kind == "distrust"]


# --- what the sentences say ---------------------------------------------------------------------------------------
_COMPUTE = (
    r"(?:compute|calculate|calculating|computing|multiply|multiplying|add|adding|subtract|divide|dividing|evaluate|expand|square|sum"
    r"|work(?:ing)?|do|doing|go|going|count|counting|enumerate|list|factor|redo|carry|figure|find|simplify|try)"
)
_BY_HAND = re.compile(
    r"\b(?:by hand|manual(?:ly)?|in my head|mental(?:ly)?|on paper|with(?:out| no) (?:any )?(?:code|a program|a calculator|python)"
    r"|long(?:hand)? (?:multiplication|division))\b|手算|手动|手工|笔算|心算",
    re.IGNORECASE,
)
_STEPWISE = re.compile(
    rf"\b{_COMPUTE}\b.{{0,60}}\b(?:step[- ]by[- ]step|one by one|one at a time|digit by digit|term by term|piece by piece|carefully)"
    r"|一步一步|逐步|逐个|逐项",
    re.IGNORECASE,
)
_CALCULATE = (
    r"(?:compute|calculate|multiply|add|subtract|divide|evaluate|expand|simplify|enumerate|list|count|factor|work (?:it|this|that|them|out)"
    r"|(?:do|figure out|go through|carry out) (?:it|this|that|the))"
)
_INTENT = re.compile(
    r"\b(?:let me|let's|let us|i'll|i will|(?:i|we) (?:can|could|should|need to|have to))"
    rf"\b(?:\W+\w+){{0,2}}\W+{_CALCULATE}\b|\b(?:now|next|then),? (?:i |we )?{_CALCULATE}\b"
    r"|\b(?:computing|calculating|multiplying|adding|expanding)\b|让我.{0,8}算|我们?来?.{0,4}计算|算一下",
    re.IGNORECASE,
)
_DOUBT = re.compile(
    r"\b(?:double[- ]?check|re-?check|check|verify|re-?verify|confirm|make sure|be sure|re-?compute|re-?calculate|re-?do|re-?derive"
    r"|sanity|trust|doubt|suspicious|is (?:that|this|it|\S{1,24}) (?:really |actually )?(?:right|correct|true)"
    r"|(?:not|isn't|aren't) (?:so |entirely |quite |really |completely )?(?:sure|certain|convinced)"
    r"|(?:seems?|looks?) (?:off|wrong|odd|strange|too))\b|验证|检查|核对|核实|确认|对吗|再算",
    re.IGNORECASE,
)
_LEAD = re.compile(
    r"^\W*(?:wait|hmm+|hold on|but|actually|really|alternatively|let me see|等等|等一下|嗯)\b", re.IGNORECASE
)
_CODE = re.compile(r"\b(?:python|code|program|script|sympy|interpreter|run|tool)\b|代码|程序", re.IGNORECASE)
_LOGIC = re.compile(
    r"\b(?:logic|loops?|conditions?|ranges?|off[- ]by[- ]one|edge cases?|bugs?|indent\w*|(?:read|understood|interpret)\w*"
    r"|the (?:question|problem|code|program|function|formula|definition|wording))\b|逻辑|题目|题意",
    re.IGNORECASE,
)
_DECLINED = re.compile(
    r"\b(?:instead of|rather than|tedious|avoid|don't|do not|not (?:going|worth|want|practical|feasible|easy)|no need|needn't|too (?:long|many|slow|big|large|much)|would (?:take|be)"
    r"|error[- ]prone|hard|painful|messy|impractical)\b(?:(?!\bbut\b).){0,60}\b(?:by hand|manually)|(?:不用|不必|避免|而不是).{0,20}(?:手算|手动|手工)",
    re.IGNORECASE,
)
_ESTIMATE = re.compile(
    r"≈|\\approx|~|\b(?:roughly|approximately|approx|estimate\w*|ballpark|order of magnitude|about \d|around \d|close to)|大约|大概|估计",
    re.IGNORECASE,
)
_WITH_CODE = re.compile(r"\b(?:with|using|by) (?:\w+ )?(?:python|code|programs?|script)\b", re.IGNORECASE)
_SENTENCE = re.compile(r"[.!?][\"')\]]*\s+|[。！？]\s*|\n\s*")


@dataclass(frozen=True)
class _Sentence:
    start: int
    end: int
    text: str

    @cached_property
    def manual(self) -> bool:
        """Announces work by hand."""
        if _DECLINED.search(self.text):
            return False
        return bool(_BY_HAND.search(self.text) or (_STEPWISE.search(self.text) and not self.names_code))

    @cached_property
    def intent(self) -> bool:
        """Announces a calculation, without code."""
        return bool(_INTENT.search(self.text)) and not self.names_code and not _DECLINED.search(self.text)

    @cached_property
    def doubt(self) -> bool:
        """Questions a result. What questions the logic, or turns to other code, does not."""
        if not _DOUBT.search(self.text) or _DECLINED.search(self.text):
            return False
        return bool(_BY_HAND.search(self.text)) or not (
            _LOGIC.search(self.text) or _WITH_CODE.search(self.text)
        )

    @cached_property
    def names_code(self) -> bool:
        return bool(_CODE.search(self.text))

    @cached_property
    def estimates(self) -> bool:
        return bool(_ESTIMATE.search(self.text))

    @cached_property
    def leads(self) -> bool:
        """Belongs to what comes next: "Wait." or "Is that right?"."""
        return len(self.text) < 80 and (self.doubt or bool(_LEAD.search(self.text)))


def _sentences(text: str) -> list[_Sentence]:
    ends = [match.end() for match in _SENTENCE.finditer(text)]
    bounds = zip([0, *ends], [*ends, len(text)], strict=True)
    return [_Sentence(a, b, text[a:b]) for a, b in bounds if text[a:b].strip()]


def _place(position: int, sentences: list[_Sentence]) -> int:
    """Index of the sentence that holds the position."""
    return max(bisect_right(sentences, position, key=lambda s: s.start) - 1, 0)


# --- from arithmetic to faults --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Context:
    """What was known when a stretch of prose began."""

    given: frozenset[Fraction]
    """Numbers of the problem."""
    returned: frozenset[Fraction]
    """Numbers that programs had printed."""
    programmed: frozenset[Fraction]
    """Numbers in the programs that had run."""


Kind = Literal["delayed", "distrust"]


def _faults(trajectory: Trajectory) -> Iterator[tuple[Kind, Span]]:
    response = trajectory.response
    end_of_thinking = response.rfind("</think>")
    limit = len(response) if end_of_thinking < 0 else end_of_thinking
    given = _values(trajectory.task.prompt)
    for start, end in prose(trajectory):
        if start >= limit:
            return
        text = response[start : min(end, limit)].replace("<think>", " " * len("<think>"))
        returned: set[Fraction] = set()
        programmed: set[Fraction] = set()
        for turn, _, turn_end in trajectory.segments():
            if turn_end <= start and turn.result is not None and turn.result.outcome == Outcome.OK:
                returned |= _values(turn.result.text)
                programmed |= _values((turn.call.code if turn.call else None) or "")
        context = _Context(given, frozenset(returned), frozenset(programmed))
        for kind, a, b, reason in _in_stretch(text, context):
            yield kind, Span(start + a, start + b, response[start + a : start + b], reason)


def _values(text: str) -> frozenset[Fraction]:
    return frozenset(abs(value) for _, value in numbers(text))


@lru_cache(maxsize=256)  # while a trajectory grows, all its stretches but the last stay as they are
def _in_stretch(text: str, context: _Context) -> tuple[tuple[Kind, int, int, str], ...]:
    return tuple(_look_through(text, context))


def _look_through(text: str, context: _Context) -> Iterator[tuple[Kind, int, int, str]]:
    sentences = _sentences(text)
    steps = [c for c in chains(text) if not sentences[_place(c.start, sentences)].estimates]
    known = context.given | context.returned
    steps += [c for c in listings(text, known) if not sentences[_place(c.start, sentences)].names_code]
    previous_end = 0
    for passage in _passages(sorted(steps, key=lambda c: c.start)):
        first, last = passage[0].start, passage[-1].end
        here = _place(first, sentences)
        before = sentences[max(0, here - REACH) : here + 1]  # a sentence has at least one character
        lead = [s for s in before if s.start >= previous_end and first - s.end <= REACH]
        previous_end = last
        manual = next((s for s in lead if s.manual), None)
        doubt = next((s for s in lead if s.doubt), None)
        intent = next((s for s in lead[-2:] if s.intent), None)
        distrusts = bool(context.returned) and (
            doubt is not None or _derives_again(passage, text[sentences[here].start : last], context)
        )
        weight = sum(step.weight for step in passage if manual or not _reads_off(step, context))

        if manual:
            needed, why = ANNOUNCED, "announced as work by hand"
        elif intent or (doubt and distrusts):
            needed, why = INTENDED, "a calculation announced without code"
        else:
            needed, why = UNANNOUNCED, "a calculation written out"
        if weight < needed:
            continue
        cues = [s.start for s in (manual or intent, doubt if distrusts else None) if s is not None]
        begin = _place(min(cues, default=first), sentences)
        while begin > 0 and sentences[begin - 1].leads:
            begin -= 1
        if distrusts:
            why = "derives a returned number again"
        kind: Kind = "distrust" if distrusts else "delayed"
        yield kind, sentences[begin].start, last, f"{why}: {weight} digit operations"


def _reads_off(step: Chain, context: _Context) -> bool:
    """``So 37*48 = 1776.`` after the program with these numbers has returned 1776 is no work."""
    stated = context.given | context.programmed | context.returned
    return step.sides == 2 and step.result in context.returned and step.operands <= stated


def _derives_again(passage: list[Chain], text: str, context: _Context) -> bool:
    """Whether a passage that nothing announces goes back to what a program has computed: it comes to a returned number,
    or begins with the program's own numbers. One that goes on from a returned number is new work. ``text`` is the passage
    from the start of its first sentence."""
    returned = {value for value in context.returned if value >= 10} - context.given
    if passage[0].operands & returned:
        return False
    begin = text[: len(text) - (passage[-1].end - passage[0].end)]
    return bool(_values(text) & returned) or any(v >= 10 for v in _values(begin) & context.programmed)


def _passages(steps: Iterable[Chain]) -> Iterator[list[Chain]]:
    passage: list[Chain] = []
    for step in steps:
        if passage and step.start - passage[-1].end > PAUSE:
            yield passage
            passage = []
        passage.append(step)
    if passage:
        yield passage
