"""Expressions, polynomials, equations."""

from __future__ import annotations

from typing import Any, Literal

from cort_python.operations import Lazy, Operations
from cort_sympy.expressions import Expression, Integer, Items, Symbol

sympy: Any = Lazy("sympy")
algebra = Operations()


# --- forms ------------------------------------------------------------------------------------------------------
@algebra.add("evaluate(binomial(10, 3) + 1/3)", "exact")
def evaluate(expression: Expression) -> Any:
    """The exact value."""
    value = expression.doit()
    return sympy.nsimplify(value, rational=True) if value.has(sympy.Float) else value


@algebra.add("N(sqrt(2) + pi, 30)", "decimal")
def N(expression: Expression, digits: Integer = 15) -> Any:
    """The decimal value, to that many digits."""
    return expression.doit().evalf(int(digits))


@algebra.add("rationalize(1/(sqrt(3) - 1))", "radsimp")
def rationalize(expression: Expression) -> Any:
    """No roots in the denominator."""
    return sympy.radsimp(expression)


@algebra.add("closed_form(0.7071067811865475, [sqrt(2)])", "nsimplify")
def closed_form(value: Expression, constants: Items = ()) -> Any:
    """An exact expression, in terms of the constants, that a decimal value is likely to stand for."""
    return sympy.nsimplify(value, list(constants))


@algebra.add("simplify((x**2 - 1)/(x - 1) + sin(x)**2 + cos(x)**2)")
def simplify(expression: Expression) -> Any:
    """A simpler form."""
    return sympy.simplify(expression)


@algebra.add("expand((x + 2*y)**3)")
def expand(expression: Expression) -> Any:
    """Products and powers multiplied out."""
    return sympy.expand(expression)


@algebra.add("expand_trig(sin(2*x + y))")
def expand_trig(expression: Expression) -> Any:
    """Sines and the like of sums and multiples in terms of those of their parts."""
    return sympy.expand_trig(expression)


@algebra.add("factor(x**4 + 4*y**4)")
def factor(expression: Expression, modulus: Integer = None, extension: Items = None) -> Any:
    """A polynomial's factors: over the rationals, modulo a prime, or with the numbers of ``extension`` as well."""
    if modulus is not None:
        return sympy.factor(expression, modulus=int(modulus))
    return sympy.factor(expression, extension=extension) if extension else sympy.factor(expression)


@algebra.add("apart((3*x + 1)/(x**2 - x - 2), x)", "partial_fractions")
def apart(expression: Expression, variable: Symbol = None) -> Any:
    """Partial fractions."""
    return sympy.apart(expression, variable)


@algebra.add("together(1/x + 1/(x + 1))")
def together(expression: Expression) -> Any:
    """One fraction, in lowest terms."""
    return sympy.cancel(sympy.together(expression))


@algebra.add("collect(x*y + x + x**2*y, x)")
def collect(expression: Expression, variable: Symbol) -> Any:
    """Powers of the variable collected."""
    return sympy.collect(sympy.expand(expression), variable)


@algebra.add("subs(x**2 + y, [x, y], [3, z])", "substitute")
def subs(expression: Expression, variables: Items, values: Items) -> Any:
    """The expression with the values in place of the variables, all at once."""
    if len(variables) != len(values):
        raise ValueError(f"there are {len(variables)} variables but {len(values)} values")
    return expression.subs(list(zip(variables, values, strict=True)), simultaneous=True)


@algebra.add("is_equal(sin(2*x), 2*sin(x)*cos(x))", "equals")
def is_equal(left: Expression, right: Expression) -> Any:
    """Whether two expressions are always equal; None where that cannot be told."""
    return sympy.simplify(left - right).equals(0)


# --- polynomials ------------------------------------------------------------------------------------------------
@algebra.add("degree(3*x**4 - x*y, x)")
def degree(polynomial: Expression, variable: Symbol) -> Any:
    """The degree in the variable."""
    return sympy.degree(polynomial, variable)


@algebra.add("coefficients((x + 2)**3, x)")
def coefficients(polynomial: Expression, variable: Symbol) -> Any:
    """All coefficients, that of the highest power first."""
    return sympy.Poly(polynomial, variable).all_coeffs()


@algebra.add("divide(x**3 - 2*x + 5, x - 1, x)", "div", "polynomial_division")
def divide(dividend: Expression, divisor: Expression, variable: Symbol) -> Any:
    """Quotient and remainder of polynomials."""
    return sympy.div(dividend, divisor, variable)


@algebra.add("discriminant(a*x**2 + b*x + c, x)")
def discriminant(polynomial: Expression, variable: Symbol) -> Any:
    """The discriminant."""
    return sympy.discriminant(polynomial, variable)


@algebra.add("resultant(x**2 - y, x - 3, x)")
def resultant(first: Expression, second: Expression, variable: Symbol) -> Any:
    """The resultant, which is 0 where the polynomials have a common root."""
    return sympy.resultant(first, second, variable)


@algebra.add("roots(x**3 - 3*x + 2, x)")
def roots(polynomial: Expression, variable: Symbol) -> Any:
    """Each root in radicals with its multiplicity; a root that has none is written CRootOf."""
    poly = sympy.Poly(polynomial, variable)
    found = sympy.roots(poly)
    if sum(found.values()) < poly.degree():
        found = {}
        for root in poly.all_roots():
            found[root] = found.get(root, 0) + 1
    return found


@algebra.add("numeric_roots(x**5 - x - 1, x, 10)", "nroots")
def numeric_roots(polynomial: Expression, variable: Symbol, digits: Integer = 15) -> Any:
    """All complex roots as decimals."""
    return sympy.Poly(polynomial, variable).nroots(n=int(digits), maxsteps=200)


@algebra.add("minimal_polynomial(sqrt(2) + sqrt(3), x)")
def minimal_polynomial(number: Expression, variable: Symbol) -> Any:
    """The polynomial of lowest degree with whole coefficients that has this algebraic number as a root."""
    return sympy.minimal_polynomial(number, variable)


@algebra.add("groebner([x**2 + y, x*y - 1], [x, y])")
def groebner(polynomials: Items, variables: Items, order: Literal["lex", "grlex", "grevlex"] = "lex") -> Any:
    """A reduced Gröbner basis."""
    return list(sympy.groebner([difference(p) for p in polynomials], *variables, order=order).exprs)


# --- equations --------------------------------------------------------------------------------------------------
def difference(equation: Any) -> Any:
    """Left side minus right side; an expression stands for itself."""
    return equation.lhs - equation.rhs if isinstance(equation, sympy.Equality) else equation


def names(variables: Any, expressions: Any) -> list[Any]:
    """The variables, or all those that occur."""
    if variables is None:
        variables = sorted(set().union(*(e.free_symbols for e in expressions)), key=str)
    if not all(getattr(v, "is_Symbol", False) for v in variables):
        raise ValueError("the variables must be names")
    return list(variables)


@algebra.add("solve([x + y == 5, x*y == 6], [x, y])")
def solve(equations: Items, variables: Items = None) -> Any:
    """Solutions of one or several equations (an expression means: equals 0), for one or several variables."""
    wanted = names(variables, equations)
    if len(equations) == len(wanted) == 1:
        return sympy.solve(equations[0], wanted[0])
    return sympy.solve(equations, wanted, dict=True)


@algebra.add("solve_over(x**4 - 5*x**2 - 36, x, reals)", "solveset")
def solve_over(
    equation: Expression,
    variable: Symbol,
    domain: Literal["reals", "integers", "naturals", "rationals", "complexes"] = "reals",
) -> Any:
    """The set of solutions of an equation or inequality in one variable among the numbers of the domain."""
    whole = {"reals": sympy.S.Reals, "complexes": sympy.S.Complexes}
    asked = {"integers": sympy.S.Integers, "naturals": sympy.S.Naturals, "rationals": sympy.S.Rationals}
    if domain in whole:
        return sympy.solveset(equation, variable, whole[domain])
    return sympy.solveset(equation, variable, sympy.S.Reals).intersect(asked[domain])


@algebra.add("solve_inequality([x**2 < 9, x > 0], x)", "inequality")
def solve_inequality(inequalities: Items, variable: Symbol) -> Any:
    """The real numbers that satisfy all the inequalities."""
    sets = [sympy.solveset(i, variable, sympy.S.Reals) for i in inequalities]
    return sympy.Intersection(*sets)


@algebra.add("numeric_solve([x**2 + y**2 == 4, x == exp(-y)], [x, y], [1, 1])", "nsolve")
def numeric_solve(equations: Items, variables: Items, start: Items, digits: Integer = 15) -> Any:
    """The solution near the starting values, as decimals."""
    wanted = names(variables, equations)
    sides = [difference(e) for e in equations]
    return [*sympy.nsolve(sides, wanted, list(start), prec=int(digits))]


@algebra.add("dsolve(diff(y(x), x, 2) + y(x), y, x)")
def dsolve(equation: Expression, function: Symbol, variable: Symbol) -> Any:
    """The general solution of a differential equation for the function, which is written with its variable: y(x)."""
    return sympy.dsolve(equation, sympy.Function(function.name)(variable))
