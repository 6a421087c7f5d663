"""The two faults, as rules over a trajectory's text (paper: delayed code computation, code result distrust).

Only prose by the model, inside its thinking, can be at fault. Written-out arithmetic is gathered into passages and weighed
in digit operations (see ``arithmetic``); how much makes a fault depends on how it is announced. The rules hold for text that
is still growing: they speak once the evidence is complete, and more text hardly ever takes it back (where the end of a
sentence turns its meaning).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

from cort_framework import Outcome, Trajectory
from cort_framework.evaluation.behaviour import numbers, prose
from cort_hint_engineering.arithmetic import Chain
from cort_hint_engineering.handwork import Known, dense_runs, steps
from cort_hint_engineering.sentences import Sentence, place, sentences

ANNOUNCED = 1
"""Digit operations that make a fault after "by hand" or "step by step"."""
DOUBTED = 3
"""After a doubt about an output, or where the work comes to a number that was returned."""
INTENDED = 4
"""After "let me compute" and its like."""
UNANNOUNCED = 7
"""After nothing of the kind."""
REACH = 300
"""Characters over which an announcement carries to the arithmetic that follows."""
LIGHT = 3
"""Digit operations that are not yet the beginning of a passage."""
FRESH = 4
"""Sentences after an output within which work by hand is taken to be about it."""
PAUSE = 100
"""Characters between two equalities of one passage at most."""
PROSE = 2
"""Sentences for which a doubt has to go on in prose."""


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
    text: str
    """The problem and the outputs, without spaces."""
    follows: bool
    """The stretch comes right after the output of a program that did not fail."""


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
        texts = [trajectory.task.prompt]
        returned: set[Fraction] = set()
        programmed: set[Fraction] = set()
        follows = False
        for turn, _, turn_end in trajectory.segments():
            if turn_end > start or turn.result is None:
                continue
            follows = turn.result.outcome == Outcome.OK
            if follows:
                texts.append(turn.result.text)
                returned |= _values(turn.result.text)
                programmed |= _values((turn.call.code if turn.call else None) or "")
        seen = re.sub(r"\s", "", "\n".join(texts))
        context = _Context(given, frozenset(returned), frozenset(programmed), seen, follows)
        for kind, a, b, reason in _in_stretch(text, context):
            yield kind, Span(start + a, start + b, response[start + a : start + b], reason)


def _values(text: str) -> frozenset[Fraction]:
    return frozenset(abs(value) for _, value in numbers(text))


@lru_cache(maxsize=256)  # while a trajectory grows, all its stretches but the last stay as they are
def _in_stretch(text: str, context: _Context) -> tuple[tuple[Kind, int, int, str], ...]:
    among = sentences(text)
    known = Known(context.given | context.returned, context.text)
    found = list(_worked_out(text, among, steps(text, known), context))
    for fault in _worked_out(text, among, dense_runs(text, known), context):
        if not any(a < fault[2] and b > fault[1] for _, a, b, _ in found):
            found.append(fault)
    if context.returned:
        found += _doubted(among, found)
    return tuple(sorted(found, key=lambda fault: fault[1]))


Found = tuple[Kind, int, int, str]


def _worked_out(text: str, among: list[Sentence], work: list[Chain], context: _Context) -> Iterator[Found]:
    """Passages of work by hand that weigh enough."""
    previous_end = 0
    for passage in _passages(step for step in work if _counts(step, among[place(step.start, among)])):
        for part in _announced_parts(passage, among):
            fault = _judged(part, previous_end, text, among, context)
            previous_end = max(step.end for step in part)
            if fault is not None:
                rest = max(step.end for step in passage)
                yield fault[0], fault[1], rest, fault[3]
                previous_end = rest
                break


def _judged(
    passage: list[Chain], previous_end: int, text: str, among: list[Sentence], context: _Context
) -> Found | None:
    """Whether a passage is a fault, of which kind, and where what leads into it begins."""
    first, last = passage[0].start, max(step.end for step in passage)
    here = place(first, among)
    before = range(max(0, here - REACH), here + 1)  # a sentence has at least one character
    lead = [n for n in before if among[n].start >= previous_end and first - among[n].end <= REACH]
    manual = [n for n in lead if among[n].manual]
    intent = [n for n in lead[-3:] if among[n].intent]
    doubt = [n for n in lead if among[n].doubt]
    returns = bool(context.returned) and _comes_back(passage, context)
    distrusts = bool(context.returned) and (
        bool(doubt)
        or returns
        or _begins_again(passage, text[among[here].start : last], [among[n] for n in lead], context)
        or (here < FRESH and _goes_back(passage, text[first:last], [among[n] for n in lead], context))
    )
    if manual:
        needed, why = ANNOUNCED, "announced as work by hand"
    elif (doubt and distrusts) or returns:
        needed, why = DOUBTED, "derives a returned number again"
    elif intent:
        needed, why = INTENDED, "a calculation announced without code"
    else:
        needed, why = UNANNOUNCED, "a calculation written out"
    work = [step for step in passage if manual or not _reads_off(step, context)]
    weight = _weight(work, needed)
    if weight < needed:
        return None
    begin = _first_of_row(here, manual, among, 5) if manual else _first_of_row(here, intent, among, 1)
    if distrusts:
        begin = min(begin, _first_of_row(here, doubt, among, 3))
        why = "derives a returned number again"
    first_lead = 0 if distrusts else begin - 1
    while begin > max(0, first_lead) and among[begin - 1].leads:
        begin -= 1
    kind: Kind = "distrust" if distrusts else "delayed"
    return kind, among[begin].start, last, f"{why}: {weight} digit operations"


def _weight(work: list[Chain], needed: int) -> int:
    """Of a passage. Where nothing announces them, a few sums that anyone does in the head weigh nothing."""
    light = [step for step in work if step.weight <= 1 and step.sides == 2]
    weight = sum(step.weight for step in work)
    return weight - len(light) if needed == UNANNOUNCED and len(light) < 5 else weight


def _first_of_row(here: int, cues: list[int], among: list[Sentence], apart: int) -> int:
    """Where the announcements begin that lead up to the sentence ``here``; ``here``, where none does. Between two of them
    stand at most ``apart`` sentences, which are short or about numbers."""
    begin = here
    for n in reversed(cues):
        between = among[n + 1 : begin]
        if len(between) > apart or not all(s.short or s.numeric for s in between):
            break
        begin = n
    return begin


def _doubted(among: list[Sentence], found: list[Found]) -> Iterator[Found]:
    """Doubts about a result that go on in prose. A doubt that turns to code, to a program's logic or to the wording of the
    problem within the next sentences is a check as it should be, and so is one that the text ends with."""
    end = 0
    for n, doubt in enumerate(among[:-PROSE]):
        after = among[n + 1 : n + 1 + PROSE]
        if (
            doubt.start < end
            or not doubt.questions
            or any(s.with_code or s.of_logic or s.declines for s in after)
        ):
            continue
        end = after[-1].end
        if any(a < end and b > doubt.start for _, a, b, _ in found):
            continue
        begin = n
        while begin > 0 and among[begin - 1].leads:
            begin -= 1
        yield "distrust", among[begin].start, end, "doubts a returned number"


def _counts(step: Chain, sentence: Sentence) -> bool:
    """An estimate is no work, nor is what everybody knows, or what a program is to go through."""
    if sentence.estimates or sentence.recalls:
        return False
    return step.sides > 1 or not sentence.names_code


def _reads_off(step: Chain, context: _Context) -> bool:
    """``So 37*48 = 1776.`` after the program with these numbers has returned 1776 is no work."""
    stated = context.given | context.programmed | context.returned
    return step.sides == 2 and step.result in context.returned and step.operands <= stated


def _comes_back(passage: list[Chain], context: _Context) -> bool:
    """Whether a passage that nothing announces comes to a number that a program has returned. One that goes on from a
    returned number is new work."""
    returned = {value for value in context.returned if value >= 10} - context.given
    results = {value for step in passage if not _reads_off(step, context) for value in step.results}
    return bool(results & returned) and not passage[0].operands & returned


def _begins_again(passage: list[Chain], text: str, lead: list[Sentence], context: _Context) -> bool:
    """Whether it begins with the program's own numbers. ``text`` is the passage from the start of its first sentence."""
    used = passage[0].operands & context.returned - context.given
    if used or any(sentence.proceeds for sentence in lead):
        return False
    begin = text[: len(text) - (max(s.end for s in passage) - passage[0].end)]
    return any(value >= 10 for value in _values(begin) & context.programmed)


def _goes_back(passage: list[Chain], text: str, lead: list[Sentence], context: _Context) -> bool:
    """Whether what is worked out right after an output is about it: unless it starts from the output, is said to be
    something else, or has nothing to do with the numbers that were returned."""
    used = passage[0].operands & context.returned - context.given
    if not context.follows or used or any(sentence.proceeds for sentence in lead):
        return False
    telling = {value for value in context.returned if value >= 10} - context.given
    return not telling or bool(telling & _values(text))


def _passages(steps: Iterable[Chain]) -> Iterator[list[Chain]]:
    passage: list[Chain] = []
    for step in steps:
        if passage and step.start - passage[-1].end > PAUSE:
            yield passage
            passage = []
        passage.append(step)
    if passage:
        yield passage


def _announced_parts(passage: list[Chain], among: list[Sentence]) -> Iterator[list[Chain]]:
    """The passage; in parts, where a sentence in it announces a calculation or a check, or where little is worked out before
    a sentence of words alone: a small sum on the way there is no part of the work."""
    part: list[Chain] = []
    for step in passage:
        if part:
            between = among[place(part[-1].end, among) + 1 : place(step.start, among) + 1]
            announced = any(sentence.manual or sentence.intent or sentence.doubt for sentence in between)
            light = sum(before.weight for before in part) <= LIGHT
            if announced or (light and any(not sentence.short for sentence in between[:-1])):
                yield part
                part = []
        part.append(step)
    yield part
