"""Whole numbers against counting them out in plain Python."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy_answers import answer, value

SMALL = range(1, 90)


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def is_prime(n: int) -> bool:
    return divisors(n) == [1, n] and n > 1


def test_primes_and_divisors_are_those_that_trial_division_finds() -> None:
    primes = [n for n in range(600) if is_prime(n)]
    for n in SMALL:
        assert value("isprime", n) is is_prime(n)
        assert value("divisors", n) == divisors(n)
        assert value("divisor_count", n) == len(divisors(n))
        assert value("divisor_sigma", n) == sum(divisors(n))
        assert value("divisor_sigma", n, 2) == sum(d * d for d in divisors(n))
        assert value("totient", n) == sum(math.gcd(k, n) == 1 for k in range(1, n + 1))
        assert value("primepi", n) == sum(p <= n for p in primes)
        assert value("prime", n) == primes[n - 1]
        assert value("nextprime", n) == next(p for p in primes if p > n)
        factors = value("factorint", n)
        assert math.prod(p**k for p, k in factors.items()) == n and all(map(is_prime, factors))
        square_free = all(k == 1 for k in factors.values())
        assert value("mobius", n) == (-1) ** len(factors) * square_free
    assert value("prevprime", 600) == primes[-1]
    assert value("primes", 100, 131) == [p for p in primes if 100 <= p <= 131]


def test_congruences_are_those_that_trying_all_numbers_finds() -> None:
    for m in range(3, 40):
        units = [a for a in range(1, m) if math.gcd(a, m) == 1]
        for a in units[:6]:
            powers = [pow(a, k, m) for k in range(1, m + 1)]
            order = powers.index(1) + 1
            assert value("multiplicative_order", a, m) == order
            assert value("mod_inverse", a, m) * a % m == 1
            assert pow(a, value("discrete_log", m, powers[order // 2], a), m) == powers[order // 2]
        for a in range(min(m, 8)):
            assert sorted(value("sqrt_mod", a, m)) == [x for x in range(m) if (x * x - a) % m == 0]
        assert value("polynomial_congruence", "x**3 - 2*x + 1", m) == [
            x for x in range(m) if (x**3 - 2 * x + 1) % m == 0
        ]
        root = value("primitive_root", m)
        generators = [g for g in units if len({pow(g, k, m) for k in range(len(units))}) == len(units)]
        assert root == (generators[0] if generators else None)
        if is_prime(m):
            for a in range(1, m):
                euler = pow(a, (m - 1) // 2, m)
                assert value("jacobi", a, m) == (euler if euler < 2 else -1)


@given(st.integers(2, 60), st.integers(2, 60), st.integers(0, 3599))
@settings(max_examples=40, deadline=None)
def test_chinese_remainders_are_the_smallest_number_or_there_is_none(m: int, n: int, secret: int) -> None:
    smallest, modulus = value("crt", [m, n], [secret % m, secret % n])
    assert modulus == math.lcm(m, n) and smallest == secret % modulus


def test_remainders_that_contradict_each_other_have_no_solution() -> None:
    assert answer("crt([4, 6], [1, 2])") == ("no solution", None)


@given(st.integers(-(10**40), 10**40), st.integers(2, 36))
@settings(max_examples=60, deadline=None)
def test_a_number_in_another_base_is_the_number(n: int, base: int) -> None:
    text, _ = answer(f"convert_base({n}, {base})")
    assert int(text, base) == n
    if n >= 0:
        assert value("digit_sum", n, base) == sum(value("digits", n, base))
        assert value("digits", n) == list(map(int, str(n)))


@given(st.integers(-999, 999), st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_a_repeating_decimal_is_the_fraction(p: int, q: int) -> None:
    text, _ = answer(f"repeating_decimal({p}/{q})")
    whole, _, places = text.removeprefix("-").partition(".")
    fixed, _, period = places.removesuffix(")").partition("(")
    total = Fraction(int(whole)) + (Fraction(int(fixed or 0), 10 ** len(fixed)))
    if period:
        total += Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(fixed))
    assert total * (-1 if text.startswith("-") else 1) == Fraction(p, q)


@given(st.integers(2, 10**6), st.integers(2, 10**6))
@settings(max_examples=40, deadline=None)
def test_common_divisors_and_multiples_are_pythons(a: int, b: int) -> None:
    assert value("gcd", a, b) == math.gcd(a, b)
    assert value("lcm", a, b) == math.lcm(a, b)
    x, y, g = value("bezout", a, b)
    assert x * a + y * b == g == math.gcd(a, b)
    root, exact = value("integer_root", a, 3)
    assert root**3 <= a < (root + 1) ** 3 and exact is (root**3 == a)
    assert value("mod_power", a, b, 997) == pow(a, b, 997)


def test_powers_valuations_and_sums_of_squares_are_right() -> None:
    assert value("perfect_power", 3**12) == (3, 12)
    assert value("perfect_power", 18) is False
    assert value("valuation", "factorial(100)", 7) == 100 // 7 + 100 // 49
    for n in (25, 50, 65, 325):
        pairs = [(a, b) for a in range(n) for b in range(a, n) if a * a + b * b == n]
        assert value("sums_of_squares", n, 2) == pairs
    assert value("sums_of_squares", 7, 3) == []


def test_the_terms_of_a_continued_fraction_give_the_number_back() -> None:
    def collapse(terms: list[int]) -> Fraction:
        total = Fraction(terms[-1])
        for term in reversed(terms[:-1]):
            total = term + 1 / total
        return total

    assert collapse(value("continued_fraction", "415/93")) == Fraction(415, 93)
    *start, period = value("continued_fraction", "sqrt(19)")
    assert abs(float(collapse(start + period * 4)) - math.sqrt(19)) < 1e-12


def test_solutions_of_diophantine_equations_solve_them() -> None:
    text, _ = answer("diophantine(3*x + 5*y == 7)")
    for t in range(-5, 6):
        ((x, y),) = eval(text, {}, {"t_0": t})
        assert 3 * x + 5 * y == 7
    found = set(value("diophantine", "x**2 + y**2 == 25"))
    assert found == {(x, y) for x in range(-5, 6) for y in range(-5, 6) if x * x + y * y == 25}


# --- counting ---------------------------------------------------------------------------------------------------
def test_partitions_are_those_of_the_recurrence_over_parts() -> None:
    ways = [1] + [0] * 60
    for part in range(1, 61):
        for n in range(part, 61):
            ways[n] += ways[n - part]
    assert [value("partitions", n) for n in range(61)] == ways


def test_derangements_stirling_and_multinomial_numbers_are_those_of_enumeration() -> None:
    for n in range(1, 7):
        permutations = list(itertools.permutations(range(n)))
        assert value("derangements", n) == sum(all(p[i] != i for i in range(n)) for p in permutations)
        for k in range(1, n + 1):
            assignments = itertools.product(range(k), repeat=n)
            onto = sum(len(set(a)) == k for a in assignments)
            assert value("stirling", n, k) == onto // math.factorial(k)
            assert value("stirling", n, k, 1) == sum(cycles(p) == k for p in permutations)
    words = len(set(itertools.permutations("aabbbc")))
    assert value("multinomial", [2, 3, 1]) == words


def cycles(permutation: tuple[int, ...]) -> int:
    seen: set[int] = set()
    count = 0
    for start in permutation:
        count += start not in seen
        while start not in seen:
            seen.add(start)
            start = permutation[start]
    return count


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.integers(-5, 5)), min_size=1, max_size=4), st.integers(0, 40)
)
@settings(max_examples=40, deadline=None)
def test_a_recurrence_s_term_is_the_one_that_stepping_gives(pairs: list[tuple[int, int]], n: int) -> None:
    coefficients, terms = [c for c, _ in pairs], [t for _, t in pairs]
    initial = list(terms)
    while len(terms) <= n:
        terms.append(sum(c * t for c, t in zip(coefficients, reversed(terms), strict=False)))
    assert value("recurrence_term", coefficients, initial, n) == terms[n]
    assert value("recurrence_term", coefficients, initial, n, 97) == terms[n] % 97


def test_a_recurrence_s_formula_gives_its_terms() -> None:
    import sympy

    text, error = answer("recurrence_formula([5, -6], [1, 1])")
    assert error is None
    terms = [1, 1]
    for _ in range(10):
        terms.append(5 * terms[-1] - 6 * terms[-2])
    assert [sympy.sympify(text).subs("n", k) for k in range(12)] == terms


def test_values_are_interpolated_by_their_polynomial() -> None:
    assert answer("interpolate([0, 1, 2, 3], [1, 2, 5, 10])") == ("x**2 + 1", None)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("convert_base(12, 40)", "ValueError: a base from 2 to 36 is expected, not 40"),
        ("repeating_decimal(sqrt(2))", "ValueError: a fraction is expected, not sqrt(2)"),
        ("primes(1, 10**9)", "ValueError: there are more than 10,000: ask for fewer"),
        (
            "recurrence_term([1, 1], [1], 5)",
            "ValueError: as many initial values as coefficients are expected",
        ),
        ("mod_inverse(2, 4)", "ValueError: base is not invertible for the given modulus"),
    ],
)
def test_what_has_no_answer_says_why(code: str, error: str) -> None:
    assert answer(code)[1] == error
