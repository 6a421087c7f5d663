"""Sentences that say nothing in particular: what a reasoner also writes between the things that matter.

A model that has met only a few phrases before a program takes an unknown one for a change of subject. These sentences are built
from random words, so that the model learns to read past them.
"""

from __future__ import annotations

from random import Random


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ADJECTIVES = _words(
    "awkward big boring careful clear common complicated curious difficult direct double easy exact familiar fine "
    "general good hard honest large lengthy little long messy multiple natural neat nice obvious odd ordinary plain "
    "precise quick rough safe several short simple slow small strange sure tedious tricky unusual useful usual"
)
NOUNS = _words(
    "accuracy approach argument arithmetic attempt calculation call case check code computation detail doubt error "
    "example fact figure formula guess idea interpreter line list machine mistake method number paper part pattern "
    "piece plan point problem program python question reason reasoning result rule script sequence sign sort square "
    "step story structure task term thing thought tool total trick value way word work"
)
VERBS = _words(
    "accept add answer ask avoid begin believe build call carry change check choose collect compare consider copy count "
    "describe doubt expect explain find finish follow forget handle help hold keep know learn leave look make mark need "
    "order plan prefer prove read remember repeat replace save see separate simplify solve sort spend split start state "
    "stop suggest test think trust try turn use wait write"
)
PATTERNS = (
    "The {n} is {a}, and a {n} can {v} the {n}.",
    "We {v} the {n} and {v} {a} {n}s.",
    "Here we {v} some {a} {n}s to {v} the {n}.",
    "A {a} {n}, or so they {v}.",
    "Nobody has to {v} the {n} of {a} {n}s.",
    "They {v} {a}, so we could {v} {n} to {v} a {n}.",
    "Okay, {v} the {n} {n} by {n} with {a} {n} {n}s.",
    "Why not {v} it with a {n} and {v} the {n}s?",
    "That looks {a} and {a}, but the {n} of a {n} does not {v}.",
    "Many {n}s {v} {n}s {n} by {n}.",
    "I {v} that we {v} the {a} {n} of {n} {n}s.",
    "It does {v} the {n}, which is {a}.",
    "This {n} seems {a}, and {n}s {v} with {n} {n} for the {n}.",
    "One does not {v} or {v} {n} {n}s.",
)


def chatter(rng: Random) -> str:
    """One sentence of random words."""
    words = {"a": ADJECTIVES, "n": NOUNS, "v": VERBS}
    text = rng.choice(PATTERNS)
    for kind, choices in words.items():
        while f"{{{kind}}}" in text:
            text = text.replace(f"{{{kind}}}", rng.choice(choices), 1)
    return text[:-1] if rng.random() < 0.3 else text  # not every line ends like a sentence
