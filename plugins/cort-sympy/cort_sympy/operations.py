"""SymPy's operations, as a model calls them. Imports SymPy only when one is called."""

from __future__ import annotations

from typing import Any

from cort_python.operations import Operations
from cort_sympy.expressions import Expression, Integer, Items, Matrix, Symbol

operations = Operations()


# --- algebra ----------------------------------------------------------------------------------------------------
@operations.add()
def simplify(expression: Expression) -> Any:
    """A simpler form."""
    import sympy

    return sympy.simplify(expression)


@operations.add()
def expand(expression: Expression) -> Any:
    """Products and powers multiplied out."""
    import sympy

    return sympy.expand(expression)


@operations.add()
def factor(expression: Expression) -> Any:
    """A polynomial's factors over the rationals."""
    import sympy

    return sympy.factor(expression)


@operations.add()
def apart(expression: Expression) -> Any:
    """Partial fractions."""
    import sympy

    return sympy.apart(expression)


@operations.add("substitute")
def subs(expression: Expression, variable: Symbol, value: Expression) -> Any:
    """The expression with the value in place of the variable."""
    return expression.subs(variable, value)


@operations.add()
def solve(equations: Items, variables: Items = None) -> Any:
    """Solutions of one or several equations (an expression means: equals 0), for one or several variables."""
    import sympy

    wanted = (
        variables
        if variables is not None
        else sorted(set().union(*(e.free_symbols for e in equations)), key=str)
    )
    if not all(getattr(v, "is_Symbol", False) for v in wanted):
        raise ValueError("the variables must be names")
    if len(equations) == len(wanted) == 1:
        return sympy.solve(equations[0], wanted[0])
    return sympy.solve(equations, wanted, dict=True)


@operations.add("equals")
def is_equal(left: Expression, right: Expression) -> Any:
    """Whether two expressions are always equal; None where that cannot be told."""
    import sympy

    return sympy.simplify(left - right).equals(0)


# --- calculus ---------------------------------------------------------------------------------------------------
@operations.add("differentiate", "derivative")
def diff(expression: Expression, variable: Symbol, order: Integer = 1) -> Any:
    """The derivative of that order."""
    import sympy

    return sympy.diff(expression, variable, order)


@operations.add("integral")
def integrate(
    expression: Expression, variable: Symbol, lower: Expression = None, upper: Expression = None
) -> Any:
    """The antiderivative, or the integral from lower to upper."""
    import sympy

    if (lower is None) != (upper is None):
        raise ValueError("give both bounds or none")
    return sympy.integrate(expression, variable if lower is None else (variable, lower, upper))


@operations.add()
def limit(expression: Expression, variable: Symbol, point: Expression) -> Any:
    """The limit at the point, which may be oo or -oo."""
    import sympy

    return sympy.limit(expression, variable, point, "+-" if point.is_finite else "+")


@operations.add()
def series(expression: Expression, variable: Symbol, point: Expression = 0, order: Integer = 6) -> Any:
    """The series around the point, up to that order."""
    import sympy

    return sympy.series(expression, variable, point, int(order))


@operations.add("sum")
def summation(expression: Expression, variable: Symbol, lower: Expression, upper: Expression) -> Any:
    """The sum over whole numbers from lower to upper, which may be oo."""
    import sympy

    return sympy.summation(expression, (variable, lower, upper))


@operations.add()
def product(expression: Expression, variable: Symbol, lower: Expression, upper: Expression) -> Any:
    """The product over whole numbers from lower to upper."""
    import sympy

    return sympy.product(expression, (variable, lower, upper))


# --- numbers ----------------------------------------------------------------------------------------------------
@operations.add("exact")
def evaluate(expression: Expression) -> Any:
    """The exact value."""
    import sympy

    return (
        sympy.nsimplify(expression.doit(), rational=True)
        if expression.has(sympy.Float)
        else expression.doit()
    )


@operations.add("decimal")
def N(expression: Expression, digits: Integer = 15) -> Any:
    """The decimal value, to that many digits."""
    return expression.evalf(int(digits))


@operations.add("prime_factors")
def factorint(n: Integer) -> Any:
    """The prime factors and their powers."""
    import sympy

    return sympy.factorint(n)


@operations.add("is_prime")
def isprime(n: Integer) -> Any:
    """Whether n is prime."""
    import sympy

    return sympy.isprime(n)


@operations.add("next_prime")
def nextprime(n: Integer) -> Any:
    """The smallest prime above n."""
    import sympy

    return sympy.nextprime(n)


@operations.add()
def divisors(n: Integer) -> Any:
    """All divisors, in order."""
    import sympy

    return sympy.divisors(n)


@operations.add("phi")
def totient(n: Integer) -> Any:
    """How many of 1 … n share no divisor with n."""
    import sympy

    return sympy.totient(n)


@operations.add()
def gcd(*numbers: Expression) -> Any:
    """The greatest common divisor of numbers or polynomials."""
    import sympy

    return sympy.gcd_list(list(numbers))


@operations.add()
def lcm(*numbers: Expression) -> Any:
    """The least common multiple of numbers or polynomials."""
    import sympy

    return sympy.lcm_list(list(numbers))


@operations.add("powmod", "pow")
def mod_power(base: Integer, exponent: Integer, modulus: Integer) -> Any:
    """base**exponent modulo modulus; the exponent may be negative where base has an inverse."""
    return pow(int(base), int(exponent), int(modulus))


@operations.add()
def mod_inverse(n: Integer, modulus: Integer) -> Any:
    """The number that n times is 1 modulo modulus."""
    return pow(int(n), -1, int(modulus))


@operations.add()
def crt(moduli: Items, residues: Items) -> Any:
    """The smallest number with these residues, and the modulus that it is unique to (Chinese remainders)."""
    from sympy.ntheory.modular import crt as solve_congruences

    answer = solve_congruences(list(map(int, moduli)), list(map(int, residues)))
    return "no solution" if answer is None else tuple(map(int, answer))


# --- matrices ---------------------------------------------------------------------------------------------------
@operations.add("determinant")
def det(matrix: Matrix) -> Any:
    """The determinant."""
    return matrix.det()


@operations.add("inv")
def inverse(matrix: Matrix) -> Any:
    """The inverse, by rows."""
    return matrix.inv().tolist()


@operations.add("eigenvals")
def eigenvalues(matrix: Matrix) -> Any:
    """Each eigenvalue with its multiplicity."""
    return matrix.eigenvals()


@operations.add()
def rank(matrix: Matrix) -> Any:
    """The rank."""
    return matrix.rank()


@operations.add()
def rref(matrix: Matrix) -> Any:
    """The reduced row echelon form, by rows."""
    return matrix.rref()[0].tolist()


@operations.add()
def matrix_power(matrix: Matrix, exponent: Integer) -> Any:
    """The matrix to that power, by rows."""
    return (matrix ** int(exponent)).tolist()
