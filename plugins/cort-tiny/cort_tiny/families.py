"""The families of problems: each is long to work out by hand and one to four lines of Python.

A family draws parameters at a level: 1 (easy) to 4 for what fits a page by hand, `LARGE` for what one starts by hand and gives
up, and `OUT_OF_RANGE` for sizes that no problem of the family has in the corpus or among the training tasks. Every draw comes
from the ``random.Random`` that is passed in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import gcd, isqrt
from random import Random

from cort_tiny.arithmetic import addition, division, multiplication

LEVELS = (1, 2, 3, 4)
LARGE = 5
OUT_OF_RANGE = 6

Parameters = tuple[int, ...]


def _ordinal(n: int) -> str:
    suffix = "th" if 10 <= n % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{suffix}"


def _with_digits(rng: Random, count: int) -> int:
    return rng.randrange(10 ** (count - 1), 10**count)


def _below(rng: Random, low: int, high: int) -> int:
    """A number from `low` to `high` of any length, long ones more often."""
    lengths = range(len(str(low)), len(str(high)) + 1)
    digits = max(rng.choice(lengths), rng.choice(lengths))
    return rng.randint(max(low, 10 ** (digits - 1)), min(high, 10**digits - 1))


class Family(ABC):
    """One kind of problem: its parameters, its wordings, its answer, its working by hand and its programs."""

    name: str

    @abstractmethod
    def sample(self, rng: Random, level: int) -> Parameters:
        """Draw the parameters of one problem at `level`."""

    @abstractmethod
    def wordings(self, p: Parameters) -> list[str]:
        """The same problem in several wordings."""

    @abstractmethod
    def goal(self, p: Parameters) -> list[str]:
        """What is sought, as noun phrases for a first sentence: ``the product of 37 and 48``."""

    @abstractmethod
    def answer(self, p: Parameters) -> int:
        """The exact answer."""

    @abstractmethod
    def working(self, p: Parameters) -> list[str]:
        """The calculation by hand, one line a step; the last line ends in the answer."""

    @abstractmethod
    def programs(self, p: Parameters) -> list[str]:
        """Programs that print the answer, in several styles; their only numbers are the problem's own and small constants."""

    def identity(self, p: Parameters) -> Parameters:
        """What two problems share when one gives the other away; splits are made on it."""
        return p


class Product(Family):
    name = "product"

    def sample(self, rng: Random, level: int) -> Parameters:
        if level == OUT_OF_RANGE:
            return rng.randint(60_000, 99_999), rng.randint(6_000, 9_999)
        if level == LARGE:
            return _below(rng, 1_000, 59_999), _below(rng, 100, 5_999)
        sizes = {1: (2, 1), 2: (2, 2), 3: (3, 2), 4: (3, 3)}[level]
        return _with_digits(rng, sizes[0]), max(2, _with_digits(rng, sizes[1]))

    def wordings(self, p: Parameters) -> list[str]:
        a, b = p
        return [
            f"What is {a} times {b}?",
            f"Find the product of {a} and {b}.",
            f"Multiply {a} by {b}.",
            f"A hall has {a} rows with {b} seats each. How many seats are there?",
            f"A box holds {a} pens. How many pens are in {b} boxes?",
        ]

    def goal(self, p: Parameters) -> list[str]:
        a, b = p
        return [f"the product of {a} and {b}", f"{a} times {b}"]

    def answer(self, p: Parameters) -> int:
        return p[0] * p[1]

    def working(self, p: Parameters) -> list[str]:
        a, b = p
        lines, total = [], 0
        for place, digit in enumerate(int(d) for d in reversed(str(b))):
            part = a * digit * 10**place
            shift = f", so {a}*{digit * 10**place}={part}" if place else ""
            lines.append(f"{multiplication(a, digit)}{shift}.")
            if place:
                lines.append(f"{addition(total, part)}.")
            total += part
        return [*lines, f"So {a}*{b}={total}."]

    def programs(self, p: Parameters) -> list[str]:
        a, b = p
        return [f"print({a} * {b})", f"a = {a}\nb = {b}\nprint(a * b)"]


class ModularPower(Family):
    name = "modular-power"

    def sample(self, rng: Random, level: int) -> Parameters:
        if level == OUT_OF_RANGE:
            return rng.randint(600, 999), rng.randint(600, 999), rng.randint(6_000, 9_999)
        if level == LARGE:
            return _below(rng, 5, 599), _below(rng, 11, 599), _below(rng, 31, 5_999)
        base, exponent, modulus = {
            1: ((2, 5), (3, 4), (5, 9)),
            2: ((2, 7), (4, 6), (6, 11)),
            3: ((2, 9), (5, 8), (7, 15)),
            4: ((3, 9), (7, 10), (11, 30)),
        }[level]
        while True:
            a, m = rng.randint(*base), rng.randint(*modulus)
            if a % m > 1:
                return a, rng.randint(*exponent), m

    def wordings(self, p: Parameters) -> list[str]:
        a, e, m = p
        return [
            f"What is the remainder when {a}^{e} is divided by {m}?",
            f"Find {a}^{e} mod {m}.",
            f"Divide {a} to the power {e} by {m}. What is the remainder?",
            f"Calculate {a}^{e} modulo {m}.",
        ]

    def goal(self, p: Parameters) -> list[str]:
        a, e, m = p
        return [f"{a}^{e} mod {m}", f"the remainder of {a}^{e} divided by {m}"]

    def answer(self, p: Parameters) -> int:
        return pow(*p)

    def working(self, p: Parameters) -> list[str]:
        a, e, m = p
        value = a % m
        lines = [f"Power 1: {a} mod {m} is {value}."]
        for power in range(2, e + 1):
            product = value * a
            quotient, value = divmod(product, m)
            rest = (
                f"{m}*{quotient}={m * quotient} and {product}-{m * quotient}={value}"
                if quotient
                else f"below {m}"
            )
            lines.append(f"Power {power}: {(product // a)}*{a}={product}, {rest}, so {value}.")
        return [*lines, f"So {a}^{e} mod {m} is {value}."]

    def programs(self, p: Parameters) -> list[str]:
        a, e, m = p
        return [f"print(pow({a}, {e}, {m}))", f"print({a} ** {e} % {m})"]


class Multiples(Family):
    name = "multiples"

    def sample(self, rng: Random, level: int) -> Parameters:
        while True:
            if level == OUT_OF_RANGE:
                n, a, b = rng.randint(60_000, 99_999), rng.randint(60, 99), rng.randint(60, 99)
                good = a != b
            elif level == LARGE:
                n, a, b = _below(rng, 301, 59_999), rng.randint(5, 59), rng.randint(5, 59)
                good = a % b != 0 and b % a != 0
            else:
                n = rng.randint(*{1: (20, 40), 2: (30, 70), 3: (50, 120), 4: (100, 300)}[level])
                a, b = rng.randint(2, 9), rng.randint(2, 9)
                good = a % b != 0 and b % a != 0 and 1 <= n * gcd(a, b) // (a * b) <= 8
            if good:
                return n, min(a, b), max(a, b)

    def wordings(self, p: Parameters) -> list[str]:
        n, a, b = p
        return [
            f"How many integers from 1 to {n} are divisible by {a} or by {b}?",
            f"Count the numbers between 1 and {n} inclusive that are multiples of {a} or {b}.",
            f"How many positive integers up to {n} are divisible by at least one of {a} and {b}?",
            f"Lamps are numbered 1 to {n}. Each lamp whose number is a multiple of {a} or of {b} is on. How many are on?",
        ]

    def goal(self, p: Parameters) -> list[str]:
        n, a, b = p
        return [
            f"how many numbers from 1 to {n} are multiples of {a} or {b}",
            f"the count of numbers up to {n} divisible by {a} or {b}",
        ]

    def answer(self, p: Parameters) -> int:
        n, a, b = p
        return n // a + n // b - n * gcd(a, b) // (a * b)

    def working(self, p: Parameters) -> list[str]:
        n, a, b = p
        both = a * b // gcd(a, b)
        multiples = [k * both for k in range(1, n // both + 2)]
        listed = ", ".join(f"{k}*{both}={m}" for k, m in enumerate(multiples, 1))
        some, more, common = n // a, n // b, n // both
        return [
            f"Multiples of {a}: {division(n, a)}.",
            f"Multiples of {b}: {division(n, b)}.",
            f"Multiples of both are multiples of {both}: {listed} is over {n}, giving {common}.",
            f"{addition(some, more)}.",
            f"Take away {common}: {some + more}-{common}={some + more - common}.",
            f"So the count is {some + more - common}.",
        ]

    def programs(self, p: Parameters) -> list[str]:
        n, a, b = p
        return [
            f"print(sum(1 for k in range(1, {n} + 1) if k % {a} == 0 or k % {b} == 0))",
            f"count = 0\nfor k in range(1, {n} + 1):\n    if k % {a} == 0 or k % {b} == 0:\n        count += 1\nprint(count)",
        ]


class Divisors(Family):
    name = "divisors"

    def sample(self, rng: Random, level: int) -> Parameters:
        if level == OUT_OF_RANGE:
            return rng.randint(6_000, 9_999), rng.randrange(2)
        span = {1: (10, 30), 2: (24, 80), 3: (50, 150), 4: (120, 240), LARGE: (241, 5_999)}[level]
        return rng.randint(*span), rng.randrange(2)

    def identity(self, p: Parameters) -> Parameters:
        return p[:1]

    def wordings(self, p: Parameters) -> list[str]:
        n, proper = p
        if proper:
            return [
                f"What is the sum of the divisors of {n} that are smaller than {n}?",
                f"Add up all divisors of {n} except {n} itself.",
                f"Find the sum of the proper divisors of {n}.",
            ]
        return [
            f"What is the sum of all positive divisors of {n}?",
            f"Add up all divisors of {n}, with 1 and {n} included.",
            f"Find the sum of the divisors of {n}.",
        ]

    def goal(self, p: Parameters) -> list[str]:
        n, proper = p
        kind = "proper divisors" if proper else "divisors"
        return [f"the sum of the {kind} of {n}", f"all {kind} of {n} added up"]

    def answer(self, p: Parameters) -> int:
        n, proper = p
        return sum(d for d in range(1, n + 1) if n % d == 0) - (n if proper else 0)

    def working(self, p: Parameters) -> list[str]:
        n, proper = p
        total = 1 if proper else n + 1
        lines = [f"1*{n}={n}, {f'without {n} this is 1' if proper else f'this is 1+{n}={total}'}."]
        for d in range(2, isqrt(n) + 1):
            quotient, rest = divmod(n, d)
            if rest:
                lines.append(f"{d}*{quotient}={d * quotient}, rest {rest}, no.")
                continue
            both = d if quotient == d else d + quotient
            pair = f"{d} once" if quotient == d else f"{d}+{quotient}={both}"
            lines.append(f"{d}*{quotient}={n}, yes, {pair}. {addition(total, both)}.")
            total += both
        return [*lines, f"So the sum is {total}."]

    def programs(self, p: Parameters) -> list[str]:
        n, proper = p
        end = f"{n}" if proper else f"{n} + 1"
        return [
            f"print(sum(d for d in range(1, {end}) if {n} % d == 0))",
            f"n = {n}\nprint(sum(d for d in range(1, {'n' if proper else 'n + 1'}) if n % d == 0))",
        ]


class Recurrence(Family):
    name = "recurrence"

    def sample(self, rng: Random, level: int) -> Parameters:
        if level == OUT_OF_RANGE:
            return rng.randint(600, 999), rng.randint(600, 999), rng.randint(26, 40)
        if level == LARGE:
            return _below(rng, 11, 599), _below(rng, 11, 599), rng.randint(12, 25)
        size, terms = {
            1: (6, (4, 6)),
            2: (9, (6, 8)),
            3: (20, (7, 9)),
            4: (60, (8, 11)),
        }[level]
        return rng.randint(1, size), rng.randint(1, size), rng.randint(*terms)

    def wordings(self, p: Parameters) -> list[str]:
        a, b, n = p
        return [
            f"A sequence starts with {a}, {b}, and every later term is the sum of the two before it. What is term {n}?",
            f"Let x(1) = {a}, x(2) = {b} and x(k) = x(k-1) + x(k-2). Find x({n}).",
            f"The first two terms are {a} and {b}; each next term adds the last two. Find the {_ordinal(n)} term.",
            f"Each number in a list is the sum of the two numbers before it. It begins {a}, {b}. What is number {n} in the list?",
        ]

    def goal(self, p: Parameters) -> list[str]:
        a, b, n = p
        return [
            f"term {n} of the sequence that starts {a}, {b}",
            f"the {_ordinal(n)} term after starting with {a} and {b}",
        ]

    def answer(self, p: Parameters) -> int:
        a, b, n = p
        for _ in range(n - 1):
            a, b = b, a + b
        return a

    def working(self, p: Parameters) -> list[str]:
        a, b, n = p
        lines = [f"Term 1 is {a}, term 2 is {b}."]
        for term in range(3, n + 1):
            lines.append(f"Term {term}: {addition(a, b)}.")
            a, b = b, a + b
        return [*lines, f"So term {n} is {b}."]

    def programs(self, p: Parameters) -> list[str]:
        a, b, n = p
        return [
            f"x = [{a}, {b}]\nwhile len(x) < {n}:\n    x.append(x[-1] + x[-2])\nprint(x[-1])",
            f"a, b = {a}, {b}\nfor _ in range({n} - 1):\n    a, b = b, a + b\nprint(a)",
        ]


class BaseConversion(Family):
    name = "base-conversion"

    def sample(self, rng: Random, level: int) -> Parameters:
        base = rng.randint(4 if level == OUT_OF_RANGE else 3, 9)
        length = {1: 2, 2: 3, 3: 4, 4: 5, LARGE: rng.randint(6, 9), OUT_OF_RANGE: 9}[level]
        end = min(base, 3) if length == 9 else base  # of nine digits, those from 3 on are out of range
        first = rng.randrange(1, end)
        if level == OUT_OF_RANGE:
            first = rng.randrange(3, base)
        digits = [first, *(rng.randrange(base) for _ in range(length - 1))]
        return int("".join(map(str, digits))), base

    def wordings(self, p: Parameters) -> list[str]:
        n, b = p
        return [
            f"Convert {n} from base {b} to decimal.",
            f"The number {n} is written in base {b}. What is it in base ten?",
            f"What is the decimal value of {n} in base {b}?",
            f"Write the base {b} number {n} in base ten.",
        ]

    def goal(self, p: Parameters) -> list[str]:
        n, b = p
        return [f"the decimal value of {n} in base {b}", f"{n} from base {b} in decimal"]

    def answer(self, p: Parameters) -> int:
        n, b = p
        return int(str(n), b)

    def working(self, p: Parameters) -> list[str]:
        n, b = p
        digits = [int(d) for d in str(n)]
        value = digits[0]
        lines = [f"The digits are {', '.join(map(str, digits))}. Start with {value}."]
        for digit in digits[1:]:
            scaled = value * b
            lines.append(f"Next digit {digit}. {multiplication(value, b)}. {addition(scaled, digit)}.")
            value = scaled + digit
        return [*lines, f"So {n} in base {b} is {value}."]

    def programs(self, p: Parameters) -> list[str]:
        n, b = p
        return [
            f"print(int('{n}', {b}))",
            f"value = 0\nfor d in '{n}':\n    value = value * {b} + int(d)\nprint(value)",
        ]


class PowerSum(Family):
    name = "power-sum"

    def sample(self, rng: Random, level: int) -> Parameters:
        exponent = rng.choice((2, 2, 3))
        highest = 12 if exponent == 2 else 7
        span, count = {
            1: ((2, highest), 2),
            2: ((2, highest), rng.randint(3, 4)),
            3: ((2, highest), rng.randint(5, 6)),
            4: ((2, highest + 3), rng.randint(6, 8)),
            LARGE: (rng.choice(((13, 99), (13, 599), (100, 599))), rng.randint(3, 7)),
            OUT_OF_RANGE: ((600, 999), rng.randint(3, 7)),
        }[level]
        return exponent, *rng.sample(range(span[0], span[1] + 1), count)

    def identity(self, p: Parameters) -> Parameters:
        return tuple(sorted(p[1:]))

    @staticmethod
    def _listed(numbers: Parameters) -> str:
        return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"

    def wordings(self, p: Parameters) -> list[str]:
        kind = {2: "squares", 3: "cubes"}[p[0]]
        return [
            f"What is the sum of the {kind} of {self._listed(p[1:])}?",
            f"Find the sum of the {kind} of the numbers {', '.join(map(str, p[1:]))}.",
            f"Add up the {kind} of {self._listed(p[1:])}.",
            f"Calculate {' + '.join(f'{k}^{p[0]}' for k in p[1:])}.",
        ]

    def goal(self, p: Parameters) -> list[str]:
        kind = {2: "squares", 3: "cubes"}[p[0]]
        return [f"the sum of the {kind} of {self._listed(p[1:])}", f"the sum of {len(p) - 1} {kind}"]

    def answer(self, p: Parameters) -> int:
        return sum(k ** p[0] for k in p[1:])

    def working(self, p: Parameters) -> list[str]:
        exponent, first, *others = p
        total = first**exponent
        lines = [f"{self._power(first, exponent)}. The total is {total}."]
        for k in others:
            lines.append(f"{self._power(k, exponent)}. {addition(total, k**exponent)}.")
            total += k**exponent
        return [*lines, f"So the sum is {total}."]

    @staticmethod
    def _power(k: int, e: int) -> str:
        return f"{k}*{k}={k * k}" if e == 2 else f"{k}*{k}={k * k}, {k * k}*{k}={k**3}"

    def programs(self, p: Parameters) -> list[str]:
        numbers = ", ".join(map(str, p[1:]))
        return [
            f"print(sum(k ** {p[0]} for k in [{numbers}]))",
            f"print({' + '.join(f'{k} ** {p[0]}' for k in p[1:])})",
            f"x = [{numbers}]\nprint(sum(k ** {p[0]} for k in x))",
        ]


class DigitSum(Family):
    name = "digit-sum"

    def sample(self, rng: Random, level: int) -> Parameters:
        if level == OUT_OF_RANGE:
            first = rng.randint(60_000, 99_000)
            return first, first + rng.randint(100, 300)
        if level == LARGE:
            first = _below(rng, 200, 59_000)
            return first, first + rng.randint(10, 90)
        start, terms = {
            1: ((8, 40), (3, 4)),
            2: ((10, 80), (4, 6)),
            3: ((20, 190), (5, 8)),
            4: ((90, 700), (7, 10)),
        }[level]
        first = rng.randint(*start)
        return first, first + rng.randint(*terms) - 1

    def wordings(self, p: Parameters) -> list[str]:
        a, b = p
        return [
            f"All integers from {a} to {b} are written down. What is the sum of all the digits written?",
            f"Find the sum of the digits of all the numbers from {a} to {b}.",
            f"Add up every digit that occurs in the numbers {a} to {b}.",
            f"What is the total of the digit sums of the integers from {a} up to {b}?",
        ]

    def goal(self, p: Parameters) -> list[str]:
        a, b = p
        return [f"the sum of all digits in the numbers from {a} to {b}", f"the digits of {a} to {b} added up"]

    def answer(self, p: Parameters) -> int:
        return sum(int(d) for k in range(p[0], p[1] + 1) for d in str(k))

    def working(self, p: Parameters) -> list[str]:
        a, b = p
        total = 0
        lines = []
        for k in range(a, b + 1):
            part = sum(int(d) for d in str(k))
            sums = f"{'+'.join(str(k))}={part}"
            lines.append(
                f"{k}: {sums}. " + (f"{addition(total, part)}." if total else f"The total is {part}.")
            )
            total += part
        return [*lines, f"So the sum is {total}."]

    def programs(self, p: Parameters) -> list[str]:
        a, b = p
        return [
            f"print(sum(int(d) for k in range({a}, {b} + 1) for d in str(k)))",
            f"total = 0\nfor k in range({a}, {b} + 1):\n    total += sum(int(d) for d in str(k))\nprint(total)",
        ]


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Product(),
        ModularPower(),
        Multiples(),
        Divisors(),
        Recurrence(),
        BaseConversion(),
        PowerSum(),
        DigitSum(),
    )
}
