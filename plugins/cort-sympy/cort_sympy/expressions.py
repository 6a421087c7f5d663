"""Reads SymPy expressions from text without running it: SymPy's own parser evaluates Python.

The text is Python's syntax for numbers, names, arithmetic, comparisons, calls of mathematical functions, lists and
tuples; ``^`` means power. Everything else (attributes, strings, other calls) is refused.
"""

from __future__ import annotations

import ast
import difflib
import operator
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from cort_python.operations import Lazy

sympy: Any = Lazy("sympy")

CONSTANTS = ("pi", "E", "I", "oo", "zoo", "nan", "GoldenRatio", "EulerGamma", "Catalan", "true", "false")
FUNCTIONS = {
    "Abs", "Add", "And", "Derivative", "Eq", "FiniteSet", "Ge", "Gt", "Integral", "Interval", "Le", "Limit",
    "Lt", "Matrix", "Max", "Min", "Mod", "Mul", "Ne", "Not", "Or", "Piecewise", "Pow", "Product", "Rational",
    "Sum", "Union", "cbrt", "diff", "expand", "factor", "gcd", "integrate", "lcm", "limit", "product",
    "real_root", "root", "simplify", "sqrt", "summation", "together",
}  # fmt: skip
"""Callable names besides SymPy's own function classes (``sin``, ``binomial``, ``fibonacci`` …)."""

OTHER_NAMES = {
    "abs": "Abs", "arccos": "acos", "arccosh": "acosh", "arcsin": "asin", "arcsinh": "asinh", "arctan": "atan",
    "arctanh": "atanh", "ceil": "ceiling", "comb": "binomial", "max": "Max", "min": "Min", "mod": "Mod", "nCr": "binomial",
    "sgn": "sign",
}  # fmt: skip
"""What other languages call them."""

WITH_BOUNDS = ("integrate", "summation", "product", "Integral", "Sum", "Product")
"""Their second to fourth argument may be a variable and its bounds, as in the operations of these names."""

UNKNOWN = frozenset("fghuvwyz")
"""Names that are functions nobody has defined where they are called: ``y(x)`` in a differential equation."""

BINARY: dict[type[ast.operator], Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.MatMult: operator.matmul,
}
UNARY: dict[type[ast.unaryop], Any] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
COMPARE = {ast.Eq: "Eq", ast.NotEq: "Ne", ast.Lt: "Lt", ast.LtE: "Le", ast.Gt: "Gt", ast.GtE: "Ge"}


def read(text: str) -> Any:
    """The SymPy object that the text writes. Raises ``ValueError`` that says what it cannot read."""
    source = text.strip().replace("^", "**")
    try:
        return _Reader(source).read(ast.parse(source, mode="eval").body)
    except SyntaxError as error:
        raise ValueError(f"{shortened(text)} is no expression: {advice(source, error)}") from None
    except RecursionError:
        raise ValueError(f"{shortened(text)} is nested too deeply") from None


def shortened(text: str) -> str:
    """The text in quotes, its middle left out where it is long."""
    return repr(text if len(text) <= 80 else f"{text[:40]} … {text[-30:]}")


def advice(source: str, error: SyntaxError) -> str:
    """What to write instead, for the ways in which mathematics is usually written and Python is not."""
    if "=" in source.replace("==", "").replace("<=", "").replace(">=", "").replace("!=", ""):
        return "an equation is written with =="
    if "!" in source.replace("!=", ""):
        return "a factorial is written factorial(n)"
    if "\\" in source:
        return "it is written in LaTeX; write it as in Python, sqrt(2)/3"
    if "invalid decimal literal" in (error.msg or "") or "invalid syntax" in (error.msg or ""):
        return f"{error.msg}; products are written with *, as in 2*x"
    return error.msg or "it cannot be read"


class _Reader:
    def __init__(self, source: str) -> None:
        self.source = source

    def read(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=bool() as value):
                return sympy.true if value else sympy.false
            case ast.Constant(value=int() as value):
                return sympy.Integer(value)
            case ast.Constant(value=float()):
                return sympy.Float(ast.get_source_segment(self.source, node))
            case ast.Name(id=name):
                return getattr(sympy, name) if name in CONSTANTS else sympy.Symbol(name)
            case ast.BinOp(op=op) if type(op) in BINARY:
                return BINARY[type(op)](self.read(node.left), self.read(node.right))
            case ast.UnaryOp(op=op) if type(op) in UNARY:
                return UNARY[type(op)](self.read(node.operand))
            case ast.Compare(ops=[op], comparators=[right]) if type(op) in COMPARE:
                return getattr(sympy, COMPARE[type(op)])(self.read(node.left), self.read(right))
            case ast.List(elts=items):
                return [self.read(item) for item in items]
            case ast.Tuple(elts=items):
                return tuple(self.read(item) for item in items)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                values = [self.read(argument) for argument in arguments]
                if name in WITH_BOUNDS and len(values) == 4:
                    values = [values[0], tuple(values[1:])]
                return self.function(name)(*values)
        raise ValueError(f"{ast.get_source_segment(self.source, node)!r} is not understood in an expression")

    def function(self, name: str) -> Any:
        name = OTHER_NAMES.get(name, name)
        if name in FUNCTIONS:
            return getattr(sympy, name)
        function = getattr(sympy, name, None)
        if isinstance(function, type) and issubclass(function, sympy.Function):
            return function
        if name in UNKNOWN:
            return sympy.Function(name)
        near = difflib.get_close_matches(name, [*FUNCTIONS, *OTHER_NAMES, *sympy.functions.__all__], n=1)
        guess = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"there is no function {name!r}{guess}")


# --- argument types ---------------------------------------------------------------------------------------------
def _value(given: object) -> Any:
    """Text is read; of a list in a native call, each element."""
    return [_value(item) for item in given] if isinstance(given, list) else read(str(given))


def _expression(text: object) -> Any:
    value = _value(text)
    if isinstance(value, list | tuple):
        raise ValueError(f"one expression is expected, not {text}")
    return value


def _symbol(text: object) -> Any:
    value = _value(text)
    if not getattr(value, "is_Symbol", False):
        raise ValueError(f"a variable is expected, not {text}")
    return value


def _integer(text: object) -> Any:
    value = _value(text)
    if not getattr(value, "is_Integer", False):
        raise ValueError(f"a whole number is expected, not {text}")
    return value


def _matrix(text: object) -> Any:
    value = _value(text)
    try:
        return value if isinstance(value, sympy.MatrixBase) else sympy.Matrix(value)
    except Exception:
        raise ValueError(f"a matrix is expected as [[1, 2], [3, 4]], not {text}") from None


def _items(text: object) -> Any:
    value = _value(text)
    return list(value) if isinstance(value, list | tuple) else [value]


def _point(text: object) -> Any:
    value = _value(text)
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(f"a point is expected as [x, y], not {text}")
    return sympy.Point(*value)


def _argument(reader: Any, description: str) -> Any:
    return Annotated[
        Any, BeforeValidator(reader), WithJsonSchema({"type": "string", "description": description})
    ]


Expression = _argument(_expression, "an expression: x**2 + sin(x)")
Symbol = _argument(_symbol, "a variable: x")
Integer = _argument(_integer, "a whole number, or an expression that is one: 2**61 - 1")
Matrix = _argument(_matrix, "a matrix by rows: [[1, 2], [3, 4]]")
Point = _argument(_point, "a point: [1, 2/3]")
Items = _argument(_items, "an expression, or a list of them: [x + y - 3, x - y == 1]")
