"""What the base learns to write: a chat turn with its thinking, for one problem at a time.

The texts show the habits of a large reasoning model. With a plain prompt it works by hand and second-guesses itself. With the
tool prompt it mostly does the hand work first, writes a program to check it, and then doubts what the interpreter returned;
only now and then does the program come first (the paper's two faults: delayed computation, result distrust).
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from cort_tiny.chatter import chatter
from cort_tiny.families import LARGE
from cort_tiny.problems import Problem

NATURAL_REQUEST = "Please reason step by step, and put your final answer within \\boxed{}."
PROGRAM_REQUEST = "Write a python program that prints the answer. Do not run it."
TOOL_REQUEST = (
    "Please integrate natural language reasoning with python programs to solve the problem above, "
    "and put your final answer within \\boxed{}."
)

OPENINGS = (
    "Okay, I need to find {}.",
    "Alright, so I have to find {}.",
    "Okay, so the question asks for {}.",
    "Let's see. I am looking for {}.",
    "So I want {}.",
)
BY_HAND = (
    "Let me compute this by hand.",
    "I'll work it out step by step.",
    "Let me calculate this step by step.",
    "Let me do the calculation by hand.",
    "I can calculate this manually.",
    "This is a little tedious, but let me do it by hand.",
    "Let me work through it by hand.",
)
CHECKS = (
    "Wait, let me double-check that.",
    "Hmm, let me check that step again.",
    "Hold on, is that right? Let me redo it.",
    "Wait, let me recompute that.",
)
CHECKED = ("Yes, that's right.", "Okay, the same.", "Good.", "Right, that holds.")
AGAIN = (
    "Wait, let me verify the whole thing by hand.",
    "Hmm, let me go through it once more to be sure.",
    "Let me verify this manually.",
)
WHY_CODE = (
    "The numbers are awkward",
    "There are many steps here",
    "That is a lot of arithmetic",
    "It would be easy to make a slip",
    "This takes a while on paper",
    "Doing all of this by hand invites mistakes",
    "A machine is faster at this",
    "This is getting long",
    "We have an interpreter",
    "The calculation is simple but lengthy",
    "Such sums are tiresome",
    "I would rather not do all of that in my head",
)
CODE = (
    "so let me use python",
    "so I will write a short program",
    "and a few lines of code can do it",
    "so let me run some code",
    "and python handles such things easily",
    "so I'll let python do the arithmetic",
    "and a program simplifies it",
    "so a small script is the better way",
)
TO_CODE = (
    "Let me check this with python.",
    "I can verify this with a short program.",
    "Let me write some code to confirm it.",
    "Now let me run python to check.",
    "To be sure of my reasoning, I'll run a program.",
)
DONE = (
    "That was quick.",
    "Good.",
    "The program ran without trouble.",
    "There it is.",
    "Nothing more is left to do.",
    "We have the value now.",
    "The interpreter did its part.",
    "No doubt about the code, it does what was asked.",
    "With that we are finished.",
)
WRITTEN = ("That should do it.", "This prints what was asked for.", "That is the whole program.")
DISTRUST = (
    "Hmm, let me double-check that by hand.",
    "Wait, let me verify {} manually.",
    "Is {} really right? Let me redo it by hand.",
    "But I'm not sure about {}. Let me compute it by hand.",
    "Let me make sure that {} is right by doing it by hand.",
)
AGREES = (
    "So the program was right.",
    "That matches the output.",
    "Good, it agrees with the program.",
    "Okay, it is the same.",
)
ACCEPT = (
    "The program gives {0}, so the answer is {0}.",
    "So the answer is {}.",
    "The output is {0}, so the result is {0}.",
    "This gives {}.",
    "Therefore the answer is {}.",
)
MISMATCH = (
    "The program says {0}, but by hand I had {1}. I must have made a slip, so the answer is {0}.",
    "That is not {1}. I made an error by hand somewhere. The answer is {0}.",
)
FIX = ("I need to fix that.", "Let me correct the program.", "There is a mistake in my code. Let me fix it.")


@dataclass(frozen=True)
class Text:
    """One training text: the user's message and the assistant's, which begins inside the thinking."""

    kind: str
    family: str
    prompt: str
    response: str


def _finish(thinking: list[str], answer: object) -> str:
    return "\n".join(thinking) + f"\n</think>\n\nThe answer is \\boxed{{{answer}}}."


def _block(code: str, output: object) -> str:
    return f"```python\n{code}\n```\n```output\n{output}\n```"


def _by_hand(rng: Random, problem: Problem, doubts: float) -> list[str]:
    """The working, in which some steps are looked at a second time."""
    steps = problem.family.working(problem.parameters)
    lines = []
    for place, step in enumerate(steps):
        lines.append(step)
        if 0 < place < len(steps) - 1 and rng.random() < doubts / len(steps):
            lines += [rng.choice(CHECKS), step, rng.choice(CHECKED)]
    return lines


def lead_in(rng: Random) -> str:
    """A sentence on why a program comes next, or one that says nothing."""
    if rng.random() < 0.5:
        return chatter(rng)
    why, code = rng.choice(WHY_CODE), rng.choice(CODE)
    alone = code.split(" ", 1)[1]
    return rng.choice((f"{why}, {code}.", f"{why}, {code}.", f"{alone[0].upper()}{alone[1:]}.", f"{why}."))


def accept(rng: Random, answer: object) -> list[str]:
    """The output is taken as it is."""
    remark = rng.choices(([], [rng.choice(DONE)], [chatter(rng)]), (4, 2, 3))[0]
    return [*remark, rng.choice(ACCEPT).format(answer)]


def _opening(rng: Random, problem: Problem) -> str:
    """What is sought, now and then after a sentence or two that say nothing."""
    remarks = [chatter(rng) for _ in range(rng.choices((0, 1, 2), (6, 3, 1))[0])]
    goal = rng.choice(problem.family.goal(problem.parameters))
    return "\n".join([*remarks, rng.choice(OPENINGS).format(goal)])


def _slip(rng: Random, answer: int) -> int:
    """The answer with one digit misread, as a tired hand would have it."""
    digits = list(str(answer))
    place = rng.randrange(len(digits))
    digits[place] = rng.choice([d for d in "123456789" if d != digits[place]])
    return int("".join(digits))


def natural(rng: Random, problem: Problem) -> tuple[str, str]:
    """Hand working from beginning to end: the habit's name and the response."""
    lines = [_opening(rng, problem), rng.choice(BY_HAND), *_by_hand(rng, problem, 0.6)]
    steps = problem.family.working(problem.parameters)
    if rng.random() < 0.65:
        lines += [rng.choice(AGAIN), *steps, rng.choice(CHECKED)]
    return "natural", _finish(lines, problem.answer)


def _broken_program(rng: Random, code: str) -> tuple[str, str]:
    """A program with a usual mistake, and the last line of its traceback."""
    head, _, tail = code.rpartition("print(")
    choices = [(code.replace("print", "Print", 1), "NameError: name 'Print' is not defined.")]
    if tail.endswith(")") and not head:
        choices.append((f"{code[:-1]} + total)", "NameError: name 'total' is not defined"))
        choices.append((code[:-1], "SyntaxError: '(' was never closed"))
    elif head:
        name = tail[:-1].split("[")[0].split(" ")[0]
        if name.isidentifier():
            choices.append((f"{head}print({name}s)", f"NameError: name '{name}s' is not defined."))
    return rng.choice(choices)


def program(rng: Random, problem: Problem) -> tuple[str, str]:
    """A program that was asked for, written straight from the problem and not run."""
    code = rng.choice(problem.family.programs(problem.parameters))
    thinking = [lead_in(rng)] * rng.randrange(2)
    if rng.random() < 0.5:
        return "program", "\n".join(
            [*thinking, f"```python\n{code}\n```", rng.choice(WRITTEN), "</think>\n\nThe program is above."]
        )
    return "program", "\n".join([*thinking, "</think>\n", f"```python\n{code}\n```"])


def with_tool(rng: Random, problem: Problem) -> tuple[str, str]:
    """A habit under the tool prompt: its name and a response that shows it."""
    answer, family = problem.answer, problem.family
    code = rng.choice(family.programs(problem.parameters))
    lines = [_opening(rng, problem)]
    weights = (0, 0, 50, 50) if problem.level == LARGE else (12, 56, 18, 14)
    kind = rng.choices(("no-code", "hand-first", "gives-up", "code-first"), weights)[0]
    if kind == "no-code":
        return kind, _finish([*lines, rng.choice(BY_HAND), *_by_hand(rng, problem, 0.6)], answer)

    believed = None
    if kind == "hand-first":
        work = family.working(problem.parameters)
        believed = answer
        if rng.random() < 0.08:
            believed = _slip(rng, answer)
            head, tail = work[-1][: -len(str(answer)) - 1], work[-1][-1]
            work[-1] = f"{head}{believed}{tail}"
        lines += [rng.choice(BY_HAND), *work, rng.choice(TO_CODE)]
    elif kind == "gives-up":
        work = family.working(problem.parameters)[:-1]
        lines += [rng.choice(BY_HAND), *work[: rng.randint(1, min(4, len(work)))], lead_in(rng)]
    elif rng.random() < 0.4:
        lines = [
            lead_in(rng) for _ in range(rng.randint(0, 2))
        ]  # the program comes straight from the problem
    else:
        lines.append(lead_in(rng))

    if rng.random() < 0.06:
        broken, error = _broken_program(rng, code)
        if rng.random() < 0.5:
            error = f"Traceback (most recent call last):\n{error}"
        lines += [_block(broken, error), rng.choice(FIX)]
    lines.append(_block(code, answer))

    if believed is not None and believed != answer:
        lines.append(rng.choice(MISMATCH).format(answer, believed))
    elif problem.level != LARGE and rng.random() < 0.65:
        lines.append(rng.choice(DISTRUST).format(answer))
        lines += [*family.working(problem.parameters), rng.choice(AGREES)]
        if rng.random() < 0.5:
            lines.append(rng.choice(ACCEPT).format(answer))
    else:
        lines += accept(rng, answer)
    return kind, _finish(lines, answer)
