"""Derivatives, integrals, limits, series, extrema."""

from __future__ import annotations

from typing import Any, Literal

from cort_python.operations import Lazy, Operations
from cort_sympy.expressions import Expression, Integer, Items, Symbol

sympy: Any = Lazy("sympy")
util: Any = Lazy("sympy.calculus.util")
calculus = Operations()


def over(variable: Any, lower: Any, upper: Any) -> Any:
    """What SymPy integrates over: the variable, or the variable and its bounds."""
    if (lower is None) != (upper is None):
        raise ValueError("give both bounds or none")
    return variable if lower is None else (variable, lower, upper)


def interval(lower: Any, upper: Any) -> Any:
    """The real numbers from lower to upper, which may be oo and may be left out."""
    return sympy.Interval(-sympy.oo if lower is None else lower, sympy.oo if upper is None else upper)


@calculus.add("diff(x**3*log(x), x, 2)", "differentiate", "derivative")
def diff(expression: Expression, variable: Symbol, order: Integer = 1) -> Any:
    """The derivative of that order."""
    return sympy.diff(expression, variable, order)


@calculus.add("gradient(x**2*y + z, [x, y, z])")
def gradient(expression: Expression, variables: Items) -> Any:
    """The partial derivatives, in the order of the variables."""
    return [sympy.diff(expression, v) for v in variables]


@calculus.add("hessian(x**3 + x*y**2, [x, y])")
def hessian(expression: Expression, variables: Items) -> Any:
    """The second partial derivatives, by rows."""
    return sympy.hessian(expression, list(variables)).tolist()


@calculus.add("jacobian([r*cos(t), r*sin(t)], [r, t])")
def jacobian(expressions: Items, variables: Items) -> Any:
    """The partial derivatives of several expressions, a row each."""
    return sympy.Matrix(expressions).jacobian(list(variables)).tolist()


@calculus.add("implicit_diff(x**2 + y**2 == 25, y, x)", "idiff")
def implicit_diff(equation: Expression, dependent: Symbol, variable: Symbol, order: Integer = 1) -> Any:
    """The derivative of a variable that the equation makes a function of the other."""
    side = equation.lhs - equation.rhs if isinstance(equation, sympy.Equality) else equation
    return sympy.simplify(sympy.idiff(side, dependent, variable, int(order)))


@calculus.add("integrate(x*exp(-x), x, 0, oo)", "integral")
def integrate(
    expression: Expression, variable: Symbol, lower: Expression = None, upper: Expression = None
) -> Any:
    """The antiderivative, or the integral from lower to upper."""
    return sympy.integrate(expression, over(variable, lower, upper))


@calculus.add("numeric_integral(exp(-x**2), x, 0, 1)", "nintegrate")
def numeric_integral(
    expression: Expression, variable: Symbol, lower: Expression, upper: Expression, digits: Integer = 15
) -> Any:
    """The integral from lower to upper as a decimal."""
    return sympy.Integral(expression, (variable, lower, upper)).evalf(int(digits))


@calculus.add("limit((1 - cos(x))/x**2, x, 0)")
def limit(
    expression: Expression,
    variable: Symbol,
    point: Expression,
    side: Literal["both", "above", "below"] = "both",
) -> Any:
    """The limit at the point, which may be oo or -oo, from both sides, from above or from below."""
    direction = {"both": "+-" if point.is_finite else "+", "above": "+", "below": "-"}[side]
    return sympy.limit(expression, variable, point, direction)


@calculus.add("series(exp(x)*cos(x), x, 0, 5)", "taylor")
def series(expression: Expression, variable: Symbol, point: Expression = 0, order: Integer = 6) -> Any:
    """The series around the point, up to that order."""
    return sympy.series(expression, variable, point, int(order))


@calculus.add("coefficient(1/((1 - x)*(1 - x**2)), x, 10)")
def coefficient(expression: Expression, variable: Symbol, power: Integer) -> Any:
    """The coefficient of that power in the polynomial, or in the power series around 0."""
    if expression.is_polynomial(variable):
        return sympy.Poly(expression, variable).coeff_monomial(variable ** int(power))
    terms = sympy.series(expression, variable, 0, int(power) + 1).removeO()
    return sympy.expand(terms).coeff(variable, int(power))


@calculus.add("summation(k**2, k, 1, n)", "sum")
def summation(expression: Expression, variable: Symbol, lower: Expression, upper: Expression) -> Any:
    """The sum over whole numbers from lower to upper, which may be oo."""
    return sympy.summation(expression, (variable, lower, upper))


@calculus.add("product(1 - 1/k**2, k, 2, n)")
def product(expression: Expression, variable: Symbol, lower: Expression, upper: Expression) -> Any:
    """The product over whole numbers from lower to upper."""
    return sympy.gammasimp(sympy.product(expression, (variable, lower, upper)))


@calculus.add("converges(1/n**2, n)", "is_convergent")
def converges(term: Expression, variable: Symbol, lower: Expression = 1) -> Any:
    """Whether the infinite sum of the term converges."""
    return sympy.Sum(term, (variable, lower, sympy.oo)).is_convergent()


@calculus.add("stationary_points(x**3 - 3*x, x)")
def stationary_points(
    expression: Expression, variable: Symbol, lower: Expression = None, upper: Expression = None
) -> Any:
    """Where the derivative is 0, among the real numbers."""
    return sympy.stationary_points(expression, variable, interval(lower, upper))


@calculus.add("maximum(x*(10 - x), x, 0, 10)")
def maximum(
    expression: Expression, variable: Symbol, lower: Expression = None, upper: Expression = None
) -> Any:
    """The largest value among the real numbers, or from lower to upper."""
    return sympy.maximum(expression, variable, interval(lower, upper))


@calculus.add("minimum(x + 4/x, x, 1, 10)")
def minimum(
    expression: Expression, variable: Symbol, lower: Expression = None, upper: Expression = None
) -> Any:
    """The smallest value among the real numbers, or from lower to upper."""
    return sympy.minimum(expression, variable, interval(lower, upper))


@calculus.add("range_of(x/(x**2 + 1), x)", "function_range")
def range_of(
    expression: Expression, variable: Symbol, lower: Expression = None, upper: Expression = None
) -> Any:
    """All values that a real function takes."""
    return util.function_range(expression, variable, interval(lower, upper))


@calculus.add("domain_of(sqrt(4 - x**2)/x, x)")
def domain_of(expression: Expression, variable: Symbol) -> Any:
    """The real numbers at which a function is defined and continuous."""
    return util.continuous_domain(expression, variable, sympy.S.Reals)


@calculus.add("laplace(exp(-2*t)*sin(3*t), t, s)", "laplace_transform")
def laplace(expression: Expression, time: Symbol, frequency: Symbol) -> Any:
    """The Laplace transform."""
    return sympy.laplace_transform(expression, time, frequency, noconds=True)


@calculus.add("inverse_laplace(1/(s*(s + 1)), s, t)", "inverse_laplace_transform")
def inverse_laplace(expression: Expression, frequency: Symbol, time: Symbol) -> Any:
    """The inverse Laplace transform, for positive times."""
    positive = sympy.Symbol(time.name, positive=True)
    return sympy.inverse_laplace_transform(expression, frequency, positive)
