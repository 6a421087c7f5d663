"""Short texts that teach reading and writing code as such: long numbers copied exactly, small programs and what they print.

None of them poses a problem of the families; the numbers are as long as those of the out-of-range test, so that copying, not
the problems, is what a model learns about numbers of that length.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from random import Random

from cort_tiny.texts import TOOL_REQUEST, Text, accept, lead_in


def _number(rng: Random) -> int:
    return rng.randrange(1, 10 ** rng.randint(1, 12))


def _over_a_list(rng: Random) -> tuple[str, str, int]:
    """As `_expression`, over a list of numbers that has to be copied whole and in order."""
    numbers = [rng.randrange(1, 10 ** rng.randint(1, 4)) for _ in range(rng.randint(2, 8))]
    commas, pluses = ", ".join(map(str, numbers)), " + ".join(map(str, numbers))
    spoken = f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
    d = rng.randint(2, 99)
    return rng.choice(
        (
            (f"Add up the numbers {commas}.", f"print(sum([{commas}]))", sum(numbers)),
            (f"What is the sum of {spoken}?", f"x = [{commas}]\nprint(sum(x))", sum(numbers)),
            (f"Calculate {pluses}.", f"print({pluses})", sum(numbers)),
            (f"Which is the largest of the numbers {commas}?", f"print(max([{commas}]))", max(numbers)),
            (
                f"Multiply {spoken} by {d} and add up.",
                f"print(sum(k * {d} for k in [{commas}]))",
                sum(numbers) * d,
            ),
            (
                f"Divide each of {spoken} by {d}, round down and add up.",
                f"x = [{commas}]\nprint(sum(k // {d} for k in x))",
                sum(k // d for k in numbers),
            ),
        )
    )


def _expression(rng: Random) -> tuple[str, str, int]:
    """Words for a calculation, the program for it and the result."""
    a, b, c = _number(rng), _number(rng), _number(rng)
    d = rng.randint(2, 60)
    text = str(_number(rng))
    low = rng.randrange(10 ** rng.randint(1, 5))
    high = low + rng.randint(1, 900)
    choices = [
        (f"What is {a} + {b}?", f"print({a} + {b})", a + b),
        (f"Subtract {b} from {a}.", f"print({a} - {b})", a - b),
        (f"What is {a} + {b} - {c}?", f"a = {a}\nb = {b}\nc = {c}\nprint(a + b - c)", a + b - c),
        (f"Which is the largest of {a}, {b} and {c}?", f"print(max({a}, {b}, {c}))", max(a, b, c)),
        (f"Which is the smallest of {a}, {b} and {c}?", f"x = [{a}, {b}, {c}]\nprint(min(x))", min(a, b, c)),
        (f"Divide {a} by {d} and round down.", f"print({a} // {d})", a // d),
        (f"How many digits does {a} have?", f"print(len('{a}'))", len(str(a))),
        (f"Write the digits of {text} in reverse.", f"print(int('{text}'[::-1]))", int(text[::-1])),
        (f"Print the number {a}.", f"print({a})", a),
        (f"Store {a} in n and print n + {d}.", f"n = {a}\nprint(n + {d})", a + d),
        (
            f"Add up the integers from {low} to {high}.",
            f"print(sum(range({low}, {high} + 1)))",
            sum(range(low, high + 1)),
        ),
        (
            f"Add up the multiples of {d} from {low} to {high}.",
            f"total = 0\nfor k in range({low}, {high} + 1):\n    if k % {d} == 0:\n        total += k\nprint(total)",
            sum(k for k in range(low, high + 1) if k % d == 0),
        ),
        (f"How many times does 7 occur in {text}?", f"print('{text}'.count('7'))", text.count("7")),
        (f"What is the distance between {a} and {b}?", f"print(abs({a} - {b}))", abs(a - b)),
    ]
    return rng.choice(choices)


def literacy(rng: Random) -> Text:
    """A small program for a small request, run and read off."""
    words, code, result = rng.choice((_expression, _over_a_list))(rng)
    lead = f"{lead_in(rng)}\n" if rng.random() < 0.7 else ""
    ending = "\n".join(accept(rng, result))
    response = (
        f"{lead}```python\n{code}\n```\n```output\n{result}\n```\n{ending}"
        f"\n</think>\n\nThe answer is \\boxed{{{result}}}."
    )
    return Text("literacy", "", f"{words}\n{TOOL_REQUEST}", response)


@cache
def _molecules() -> list[dict[str, str | int]]:
    table: list[dict[str, str | int]] = json.loads(
        files("cort_tiny").joinpath("molecules.json").read_text("utf-8")
    )
    return table


def chemistry(rng: Random) -> Text:
    """A question about a small molecule, answered by an RDKit call whose result was computed beforehand with RDKit."""
    molecule = rng.choice(_molecules())
    smiles, name = molecule["smiles"], molecule["name"]
    words, call, key = rng.choice(
        (
            ("How many heavy atoms does {} have?", "m.GetNumAtoms()", "atoms"),
            ("How many bonds between heavy atoms are in {}?", "m.GetNumBonds()", "bonds"),
            ("How many rings does {} have?", "m.GetRingInfo().NumRings()", "rings"),
        )
    )
    subject = rng.choice((f"{name} ({smiles})", f"the molecule {smiles}", f"{name}, SMILES {smiles}"))
    result = molecule[key]
    ending = "\n".join(accept(rng, result))
    response = (
        f"{lead_in(rng)}\n```python\nfrom rdkit import Chem\nm = Chem.MolFromSmiles('{smiles}')\nprint({call})\n```\n"
        f"```output\n{result}\n```\n{ending}\n</think>\n\nThe answer is \\boxed{{{result}}}."
    )
    return Text("chemistry", "", f"{words.format(subject)}\n{TOOL_REQUEST}", response)
