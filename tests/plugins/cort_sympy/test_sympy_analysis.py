"""Algebra, calculus, matrices and geometry against numerical work (mpmath, numpy) and values worked by hand."""

from __future__ import annotations

import math

import mpmath
import numpy
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy_answers import answer, number, value


@pytest.mark.parametrize(
    ("code", "text"),
    [
        # identities and forms worked by hand
        ("rationalize(1/(sqrt(3) - 1))", "(1 + sqrt(3))/2"),
        ("closed_form(1.6180339887498949, [sqrt(5)])", "1/2 + sqrt(5)/2"),
        ("factor(x**4 + 4*y**4)", "(x**2 - 2*x*y + 2*y**2)*(x**2 + 2*x*y + 2*y**2)"),  # Sophie Germain
        ("factor(x**2 + 1, modulus=5)", "(x - 2)*(x + 2)"),
        ("factor(x**2 - 2, extension=[sqrt(2)])", "(x - sqrt(2))*(x + sqrt(2))"),
        ("together(1/x + 1/(x + 1))", "(2*x + 1)/(x**2 + x)"),
        ("collect(x*y + x + x**2*y, x)", "x**2*y + x*(y + 1)"),
        ("subs(x + y, [x, y], [y, x])", "x + y"),
        ("degree((x + 1)**5 - x**5, x)", "4"),
        ("coefficients((x + 2)**3, x)", "[1, 6, 12, 8]"),
        ("divide(x**3 - 2*x + 5, x - 1, x)", "(x**2 + x - 1, 4)"),  # the remainder is p(1)
        ("discriminant(a*x**2 + b*x + c, x)", "-4*a*c + b**2"),
        ("resultant(x**2 - y, x - 3, x)", "9 - y"),
        ("roots((x - 1)**2*(x + 2), x)", "{-2: 1, 1: 2}"),
        ("minimal_polynomial(sqrt(2) + sqrt(3), x)", "x**4 - 10*x**2 + 1"),
        ("solve_over(x**4 - 5*x**2 - 36, x)", "{-3, 3}"),
        ("solve_over(2*x**2 - 7*x + 3, x, integers)", "{3}"),
        ("solve_inequality([x**2 < 9, x > 0], x)", "Interval.open(0, 3)"),
        ("expand_trig(cos(2*x))", "2*cos(x)**2 - 1"),
        # calculus
        ("gradient(x**2*y + z, [x, y, z])", "[2*x*y, x**2, 1]"),
        ("hessian(x**3 + x*y**2, [x, y])", "[[6*x, 2*y], [2*y, 2*x]]"),
        ("implicit_diff(x**2 + y**2 == 25, y, x)", "-x/y"),
        ("limit(abs(x)/x, x, 0, above)", "1"),
        ("limit(abs(x)/x, x, 0, below)", "-1"),
        ("coefficient(1/((1 - x)*(1 - x**2)), x, 10)", "6"),  # 10 as 1s and 2s: 0 to 5 twos
        ("coefficient((1 + x)**20, x, 7)", "77520"),
        ("summation(k**2, k, 1, n)", "n**3/3 + n**2/2 + n/6"),
        ("product(1 - 1/k**2, k, 2, n)", "(n + 1)/(2*n)"),
        ("converges(1/n, n)", "False"),
        ("stationary_points(x**3 - 3*x, x)", "{-1, 1}"),
        ("maximum(x*(10 - x), x, 0, 10)", "25"),
        ("minimum(x + 4/x, x, 1, 10)", "4"),
        ("range_of(x/(x**2 + 1), x)", "Interval(-1/2, 1/2)"),
        ("domain_of(log(x - 1), x)", "Interval.open(1, oo)"),
        ("laplace(exp(-2*t)*sin(3*t), t, s)", "3/((s + 2)**2 + 9)"),
        ("inverse_laplace(1/(s*(s + 1)), s, t)", "1 - exp(-t)"),
        # geometry of the triangle with the sides 3, 4 and 5
        ("distance([0, 0], [3, 4])", "5"),
        ("polygon_area([[0, 0], [4, 0], [4, 3]])", "6"),
        ("polygon_area([[0, 0], [0, 2], [2, 2], [2, 0]])", "4"),
        ("angle([1, 0], [0, 0], [1, 1])", "pi/4"),
        ("circumcircle([0, 0], [4, 0], [0, 3])", "centre [2, 3/2], radius 5/2"),
        ("incircle([0, 0], [4, 0], [0, 3])", "centre [1, 1], radius 1"),
        ("orthocenter([0, 0], [4, 0], [0, 3])", "[0, 0]"),  # the right angle's corner
        ("centroid([0, 0], [4, 0], [0, 3])", "[4/3, 1]"),
        ("line_intersection([0, 0], [2, 2], [0, 2], [2, 0])", "[1, 1]"),
        ("line_intersection([0, 0], [1, 1], [0, 1], [1, 2])", "the lines are parallel"),
        ("foot([3, 4], [0, 0], [1, 0])", "[3, 0]"),
    ],
)
def test_operations_give_what_is_known(code: str, text: str) -> None:
    assert answer(code) == (text, None)


X = sympy.Symbol("x")
INTEGRALS = [
    ("x**2*sin(x)", "0", "pi"),
    ("exp(-x**2)", "-oo", "oo"),
    ("1/(1 + x**4)", "0", "oo"),
    ("log(x)", "0", "1"),
    ("sqrt(4 - x**2)", "0", "2"),
]


@pytest.mark.parametrize(("expression", "lower", "upper"), INTEGRALS)
def test_integrals_are_those_of_numerical_quadrature(expression: str, lower: str, upper: str) -> None:
    function = sympy.lambdify(X, sympy.sympify(expression), "mpmath")
    bounds = [mpmath.mpf(float(sympy.sympify(b))) for b in (lower, upper)]
    expected = float(mpmath.quad(function, bounds))
    assert number("integrate", expression, "x", lower, upper) == pytest.approx(expected, rel=1e-9)
    assert number("numeric_integral", expression, "x", lower, upper) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("expression", ["x**3*log(x)", "sin(x**2)/x", "exp(x)/(1 + x)", "atan(sqrt(x))"])
def test_derivatives_and_series_are_those_of_difference_quotients(expression: str) -> None:
    function = sympy.lambdify(X, sympy.sympify(expression), "mpmath")
    text, _ = answer(f"diff({expression}, x, 2)")
    got = float(sympy.sympify(text).subs(X, sympy.Rational(7, 5)).evalf())
    assert got == pytest.approx(float(mpmath.diff(function, 1.4, 2)), rel=1e-6)
    terms, _ = answer(f"series({expression}, x, 1, 4)")
    polynomial = sympy.sympify(terms).removeO()
    for n in range(4):
        expected = float(mpmath.diff(function, 1, n)) / math.factorial(n)
        assert float(polynomial.diff(X, n).subs(X, 1)) / math.factorial(n) == pytest.approx(
            expected, abs=1e-6
        )


def test_limits_and_sums_are_those_that_numbers_tend_to() -> None:
    assert number("limit", "(1 + 2/n)**n", "n", "oo") == pytest.approx(float(mpmath.exp(2)))
    assert number("limit", "(1 - cos(x))/x**2", "x", "0") == pytest.approx(0.5)
    assert number("summation", "1/k**4", "k", 1, "oo") == pytest.approx(
        float(mpmath.nsum(lambda k: 1 / k**4, [1, mpmath.inf]))
    )
    assert number("product", "k**2", "k", 1, 6) == math.prod(k * k for k in range(1, 7))


@given(st.lists(st.integers(-6, 6), min_size=3, max_size=5).filter(lambda c: c[0] and any(c[1:])))
@settings(max_examples=15, deadline=None)
def test_roots_are_numpys(coefficients: list[int]) -> None:
    degree = len(coefficients) - 1
    polynomial = " + ".join(f"({c})*x**{degree - i}" for i, c in enumerate(coefficients))
    text, error = answer(f"numeric_roots({polynomial}, x)")
    assert error is None
    got = [complex(root) for root in sympy.sympify(text)]
    for root in numpy.roots(coefficients):
        nearest = min(got, key=lambda z: abs(z - root))
        got.remove(nearest)
        assert abs(nearest - root) < 1e-3  # a double root is known to half the digits


SYSTEMS = [
    (["x + y == 5", "x*y == 6"], ["x", "y"]),
    (["x**2 + y**2 == 25", "x - y == 1"], ["x", "y"]),
    (["a + b + c == 6", "a*b*c == 6", "a - c == 2"], ["a", "b", "c"]),
]


@pytest.mark.parametrize(("equations", "variables"), SYSTEMS)
def test_solutions_of_systems_solve_them(equations: list[str], variables: list[str]) -> None:
    text, error = answer(f"solve([{', '.join(equations)}], [{', '.join(variables)}])")
    assert error is None
    solutions = eval(text, {v: v for v in variables} | {"sqrt": math.sqrt, "I": 1j})
    assert solutions
    for solution in solutions:
        for equation in equations:
            left, right = equation.split("==")
            assert abs(eval(left, dict(solution)) - eval(right)) < 1e-9


def test_numerical_solutions_solve_their_equations() -> None:
    x, y = value("numeric_solve", "[x**2 + y**2 == 4, x == exp(-y)]", "[x, y]", "[1, 1]")
    assert x * x + y * y == pytest.approx(4) and x == pytest.approx(math.exp(-y))


def test_a_differential_equation_s_solution_satisfies_it() -> None:
    text, error = answer("dsolve(diff(y(x), x, 2) - 3*diff(y(x), x) + 2*y(x) == exp(3*x), y, x)")
    assert error is None
    right = sympy.sympify(text).rhs
    assert sympy.simplify(right.diff(X, 2) - 3 * right.diff(X) + 2 * right - sympy.exp(3 * X)) == 0
    assert {str(s) for s in right.free_symbols} == {"x", "C1", "C2"}


def test_a_groebner_basis_vanishes_where_the_polynomials_do() -> None:
    text, error = answer("groebner([x**2 + y**2 - 25, x - y - 1], [x, y])")
    assert error is None
    for x, y in ((4, 3), (-3, -4)):
        assert all(p.subs({"x": x, "y": y}) == 0 for p in sympy.sympify(text))


# --- matrices ---------------------------------------------------------------------------------------------------
ENTRIES = st.lists(st.lists(st.integers(-5, 5), min_size=3, max_size=3), min_size=3, max_size=3)


@given(ENTRIES)
@settings(max_examples=12, deadline=None)
def test_matrices_are_numpys(rows: list[list[int]]) -> None:
    matrix = numpy.array(rows, dtype=float)
    determinant = value("det", rows)
    assert determinant == round(numpy.linalg.det(matrix))
    assert value("rank", rows) == numpy.linalg.matrix_rank(matrix)
    assert value("trace", rows) == matrix.trace()
    assert value("transpose", rows) == matrix.T.tolist()
    assert value("matrix_power", rows, 3) == (matrix @ matrix @ matrix).tolist()
    assert value("multiply", rows, rows) == (matrix @ matrix).tolist()
    assert (matrix @ numpy.array(value("adjugate", rows))).round(6).tolist() == (
        determinant * numpy.eye(3)
    ).tolist()
    assert numpy.allclose(
        numpy.poly(matrix), [float(c) for c in sympy.Poly(answer(f"charpoly({rows}, t)")[0]).all_coeffs()]
    )
    for vector in value("nullspace", rows):
        assert numpy.allclose(matrix @ numpy.array(vector, dtype=float), 0)
    if determinant:
        inverse = numpy.array(value("inverse", rows), dtype=float)
        assert numpy.allclose(matrix @ inverse, numpy.eye(3))
        solution = numpy.array(value("linear_solve", rows, [1, 2, 3]), dtype=float)
        assert numpy.allclose(matrix @ solution, [1, 2, 3])
        assert value("rref", rows) == numpy.eye(3).tolist()
    u, v = rows[0], rows[1]
    assert value("dot", u, v) == numpy.dot(u, v)
    assert value("cross", u, v) == numpy.cross(u, v).tolist()
    assert number("norm", u) == pytest.approx(numpy.linalg.norm(u))


def test_eigenvalues_eigenvectors_and_forms_are_those_of_the_matrix() -> None:
    rows = [[4, 1], [2, 3]]
    assert value("eigenvalues", rows) == {5: 1, 2: 1}
    for eigenvalue, _, basis in value("eigenvectors", rows):
        for vector in basis:
            assert numpy.allclose(numpy.array(rows) @ vector, eigenvalue * numpy.array(vector, dtype=float))
    change, diagonal = (numpy.array(part, dtype=float) for part in value("diagonalize", rows))
    assert numpy.allclose(change @ diagonal @ numpy.linalg.inv(change), rows)
    assert value("jordan", [[5, 4], [-1, 1]]) == [[3, 1], [0, 3]]
    assert answer("matrix_exp([[0, 1], [-1, 0]])")[0] == "[[cos(1), sin(1)], [-sin(1), cos(1)]]"
