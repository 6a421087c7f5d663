"""Reads SymPy expressions from text without running it: SymPy's own parser evaluates Python.

The text is Python's syntax for numbers, names, arithmetic, comparisons, calls of mathematical functions, lists and
tuples; ``^`` means power. Everything else (attributes, strings, other calls) is refused.
"""

from __future__ import annotations

import ast
import operator
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

CONSTANTS = ("pi", "E", "I", "oo", "zoo", "nan", "GoldenRatio", "EulerGamma", "Catalan", "true", "false")
FUNCTIONS = [
    "Abs",
    "Add",
    "And",
    "Derivative",
    "Eq",
    "FiniteSet",
    "Ge",
    "Gt",
    "Integral",
    "Interval",
    "Le",
    "Limit",
    "Lt",
    "Matrix",
    "Max",
    "Min",
    "Mod",
    "Mul",
    "Ne",
    "Not",
    "Or",
    "Piecewise",
    "Pow",
    "Product",
    "Rational",
    "Sum",
    "Union",
    "cbrt",
    "diff",
    "expand",
    "factor",
    "gcd",
    "integrate",
    "lcm",
    "limit",
    "root",
    "simplify",
    "sqrt",
    "summation",
]
"""Callable names besides SymPy's own function classes (``sin``, ``binomial``, ``totient`` …)."""

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
        raise ValueError(f"{text!r} is no expression: {error.msg}") from None


class _Reader:
    def __init__(self, source: str) -> None:
        self.source = source

    def read(self, node: ast.expr) -> Any:
        import sympy

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
                return self.function(name)(*(self.read(argument) for argument in arguments))
        raise ValueError(f"{ast.get_source_segment(self.source, node)!r} is not understood in an expression")

    def function(self, name: str) -> Any:
        import sympy

        function = getattr(sympy, "Abs" if name == "abs" else name, None)
        known = name in FUNCTIONS or (isinstance(function, type) and issubclass(function, sympy.Function))
        if name != "abs" and not known:
            raise ValueError(f"there is no function {name!r}")
        return function


# --- argument types ---------------------------------------------------------------------------------------------
def _value(text: object) -> Any:
    return read(str(text))


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
    import sympy

    value = _value(text)
    try:
        return value if isinstance(value, sympy.MatrixBase) else sympy.Matrix(value)
    except Exception:
        raise ValueError(f"a matrix is expected as [[1, 2], [3, 4]], not {text}") from None


def _items(text: object) -> Any:
    value = _value(text)
    return list(value) if isinstance(value, list | tuple) else [value]


def _argument(reader: Any, description: str) -> Any:
    return Annotated[
        Any, BeforeValidator(reader), WithJsonSchema({"type": "string", "description": description})
    ]


Expression = _argument(_expression, "an expression: x**2 + sin(x)")
Symbol = _argument(_symbol, "a variable: x")
Integer = _argument(_integer, "a whole number, or an expression that is one: 2**61 - 1")
Matrix = _argument(_matrix, "a matrix by rows: [[1, 2], [3, 4]]")
Items = _argument(_items, "an expression, or a list of them: [x + y - 3, x - y == 1]")
