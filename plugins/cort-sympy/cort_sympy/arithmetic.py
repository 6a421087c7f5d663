"""Whole numbers: primes, divisors, congruences, digits."""

from __future__ import annotations

from typing import Any

from cort_python.operations import Lazy, Operations
from cort_sympy.expressions import Expression, Integer, Items, Symbol

sympy: Any = Lazy("sympy")
ntheory: Any = Lazy("sympy.ntheory")
modular: Any = Lazy("sympy.ntheory.modular")
residue: Any = Lazy("sympy.ntheory.residue_ntheory")
fractions: Any = Lazy("sympy.ntheory.continued_fraction")
squares: Any = Lazy("sympy.solvers.diophantine.diophantine")
arithmetic = Operations()

MAX_LISTED = 10_000
"""Numbers in a list at most."""

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


# --- primes and divisors ----------------------------------------------------------------------------------------
@arithmetic.add("isprime(2**61 - 1)", "is_prime")
def isprime(n: Integer) -> Any:
    """Whether n is prime."""
    return sympy.isprime(n)


@arithmetic.add("factorint(2**32 + 1)", "prime_factors", "factorization")
def factorint(n: Integer) -> Any:
    """The prime factors and their powers."""
    return sympy.factorint(n)


@arithmetic.add("nextprime(1000)", "next_prime")
def nextprime(n: Integer) -> Any:
    """The smallest prime above n."""
    return sympy.nextprime(n)


@arithmetic.add("prevprime(1000)", "previous_prime")
def prevprime(n: Integer) -> Any:
    """The largest prime below n."""
    return sympy.prevprime(n)


@arithmetic.add("prime(1000)", "nth_prime")
def prime(n: Integer) -> Any:
    """The n-th prime; the first is 2."""
    return sympy.prime(n)


@arithmetic.add("primepi(1000)", "count_primes")
def primepi(n: Integer) -> Any:
    """How many primes there are up to n."""
    return sympy.primepi(n)


@arithmetic.add("primes(100, 130)", "primerange")
def primes(lower: Integer, upper: Integer) -> Any:
    """The primes from lower to upper, both included."""
    return bounded(sympy.primerange(int(lower), int(upper) + 1))


@arithmetic.add("divisors(360)")
def divisors(n: Integer) -> Any:
    """All divisors, in order."""
    return sympy.divisors(n)


@arithmetic.add("divisor_count(720720)", "tau")
def divisor_count(n: Integer) -> Any:
    """How many divisors there are."""
    return sympy.divisor_count(n)


@arithmetic.add("divisor_sigma(360)", "sigma", "divisor_sum")
def divisor_sigma(n: Integer, power: Integer = 1) -> Any:
    """The sum of the divisors, or of that power of them."""
    return sympy.divisor_sigma(n, power)


@arithmetic.add("totient(360)", "phi")
def totient(n: Integer) -> Any:
    """How many of 1 … n share no divisor with n."""
    return sympy.totient(n)


@arithmetic.add("mobius(30)")
def mobius(n: Integer) -> Any:
    """The Möbius function."""
    return sympy.mobius(n)


@arithmetic.add("valuation(factorial(100), 5)", "multiplicity")
def valuation(n: Integer, p: Integer) -> Any:
    """The highest power of p that divides n."""
    return ntheory.multiplicity(int(p), int(n))


@arithmetic.add("gcd(1071, 462)")
def gcd(*numbers: Expression) -> Any:
    """The greatest common divisor of numbers or polynomials."""
    return sympy.gcd_list(list(numbers))


@arithmetic.add("lcm(12, 18, 20)")
def lcm(*numbers: Expression) -> Any:
    """The least common multiple of numbers or polynomials."""
    return sympy.lcm_list(list(numbers))


@arithmetic.add("bezout(240, 46)", "gcdex")
def bezout(a: Integer, b: Integer) -> Any:
    """x, y and g with a*x + b*y = g, the greatest common divisor."""
    return tuple(map(int, sympy.gcdex(a, b)))


# --- congruences ------------------------------------------------------------------------------------------------
@arithmetic.add("mod_power(7, 222, 1000)", "powmod", "pow")
def mod_power(base: Integer, exponent: Integer, modulus: Integer) -> Any:
    """base**exponent modulo modulus; the exponent may be negative where base has an inverse."""
    return pow(int(base), int(exponent), int(modulus))


@arithmetic.add("mod_inverse(17, 3120)")
def mod_inverse(n: Integer, modulus: Integer) -> Any:
    """The number that n times is 1 modulo modulus."""
    return pow(int(n), -1, int(modulus))


@arithmetic.add("crt([3, 5, 7], [2, 3, 2])")
def crt(moduli: Items, residues: Items) -> Any:
    """The smallest number with these residues, and the modulus that it is unique to (Chinese remainders)."""

    # SymPy's own crt gives the product of the moduli, also where they share a divisor
    answer = modular.solve_congruence(*zip(map(int, residues), map(int, moduli), strict=True))
    return "no solution" if answer is None else tuple(map(int, answer))


@arithmetic.add("multiplicative_order(10, 97)", "n_order")
def multiplicative_order(a: Integer, modulus: Integer) -> Any:
    """The smallest k > 0 with a**k = 1 modulo modulus."""
    return ntheory.n_order(int(a), int(modulus))


@arithmetic.add("discrete_log(41, 15, 7)")
def discrete_log(modulus: Integer, value: Integer, base: Integer) -> Any:
    """The smallest k with base**k = value modulo modulus."""
    return ntheory.discrete_log(int(modulus), int(value), int(base))


@arithmetic.add("primitive_root(41)")
def primitive_root(modulus: Integer) -> Any:
    """The smallest primitive root, or None where there is none."""
    return ntheory.primitive_root(int(modulus))


@arithmetic.add("sqrt_mod(2, 17)", "modular_square_roots")
def sqrt_mod(a: Integer, modulus: Integer) -> Any:
    """All x with x**2 = a modulo modulus."""
    return ntheory.sqrt_mod(int(a), int(modulus), all_roots=True)


@arithmetic.add("jacobi(5, 21)", "legendre")
def jacobi(a: Integer, n: Integer) -> Any:
    """The Jacobi symbol, which is Legendre's where n is prime."""
    return int(sympy.functions.combinatorial.numbers.jacobi_symbol(int(a), int(n)))


@arithmetic.add("polynomial_congruence(x**3 - 2*x + 1, 35)")
def polynomial_congruence(polynomial: Expression, modulus: Integer) -> Any:
    """All x from 0 to modulus - 1 at which the polynomial is 0 modulo modulus."""
    return sorted(residue.polynomial_congruence(polynomial, int(modulus)))


@arithmetic.add("diophantine(3*x + 5*y == 7)")
def diophantine(equation: Expression, parameter: Symbol = None) -> Any:
    """The whole solutions of a polynomial equation, in the order of its variables' names."""
    side = equation.lhs - equation.rhs if isinstance(equation, sympy.Equality) else equation
    return sorted(sympy.diophantine(side, parameter or sympy.Symbol("t")), key=sympy.default_sort_key)


# --- digits, powers and sums ------------------------------------------------------------------------------------
@arithmetic.add("convert_base(ff, 2, 16)", "to_base")
def convert_base(number: str, base: int, from_base: int = 10) -> Any:
    """A whole number written in another base, from 2 to 36."""
    if not 2 <= base <= 36:
        raise ValueError(f"a base from 2 to 36 is expected, not {base}")
    value = int(number.strip().replace(" ", ""), from_base)
    written = "".join(DIGITS[d] for d in ntheory.digits(abs(value), base)[1:])
    return f"-{written}" if value < 0 else written


@arithmetic.add("digits(2**20)")
def digits(n: Integer, base: Integer = 10) -> Any:
    """The digits, the highest first."""
    return ntheory.digits(abs(int(n)), int(base))[1:]


@arithmetic.add("digit_sum(2**100)")
def digit_sum(n: Integer, base: Integer = 10) -> Any:
    """The sum of the digits."""
    return sum(ntheory.digits(abs(int(n)), int(base))[1:])


@arithmetic.add("integer_root(10**20, 3)", "integer_nthroot")
def integer_root(n: Integer, k: Integer = 2) -> Any:
    """The largest whole number whose k-th power is at most n, and whether it is exactly n."""
    return sympy.integer_nthroot(int(n), int(k))


@arithmetic.add("perfect_power(3**12)", "is_perfect_power")
def perfect_power(n: Integer) -> Any:
    """The smallest base and its exponent where n is a power with an exponent above 1, else False."""
    return sympy.perfect_power(int(n))


@arithmetic.add("sums_of_squares(50, 2)")
def sums_of_squares(n: Integer, count: Integer = 2) -> Any:
    """All ways to write n as that many squares of whole numbers, 0 allowed, each in rising order."""
    return bounded(sorted(map(tuple, map(sorted, squares.sum_of_squares(int(n), int(count), zeros=True)))))


@arithmetic.add("continued_fraction(sqrt(7))")
def continued_fraction(number: Expression) -> Any:
    """The terms of the continued fraction; of a quadratic irrational the period is the list at the end."""
    return fractions.continued_fraction(
        sympy.nsimplify(number, rational=True) if number.has(sympy.Float) else number
    )


@arithmetic.add("repeating_decimal(5/12)")
def repeating_decimal(fraction: Expression) -> Any:
    """A fraction as a decimal with its period in brackets."""
    if not fraction.is_Rational:
        raise ValueError(f"a fraction is expected, not {fraction}")
    sign = "-" if fraction < 0 else ""
    whole, rest = divmod(abs(int(fraction.p)), int(fraction.q))
    seen: dict[int, int] = {}
    places = ""
    while rest and rest not in seen and len(places) < MAX_LISTED:
        seen[rest] = len(places)
        digit, rest = divmod(10 * rest, int(fraction.q))
        places += str(digit)
    if rest in seen:
        places = f"{places[: seen[rest]]}({places[seen[rest] :]})"
    return f"{sign}{whole}.{places}" if places else f"{sign}{whole}"


def bounded(items: Any) -> list[Any]:
    """The items as a list, where they are not too many."""
    listed = []
    for item in items:
        listed.append(item)
        if len(listed) > MAX_LISTED:
            raise ValueError(f"there are more than {MAX_LISTED:,}: ask for fewer")
    return listed
