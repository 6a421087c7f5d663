"""Answers of the operations in this process, for what needs no limit."""

from __future__ import annotations

from typing import Any

from cort_sympy.operations import operations


def answer(code: str) -> tuple[str, str | None]:
    """The text and the error of a fence."""
    result = operations.answer({"code": code, "output_limit": 5000})
    return result["text"], result["error"]


def value(name: str, *arguments: object) -> Any:
    """What an operation's result is to Python: numbers, lists, dictionaries and tuples of them."""
    text, error = answer(f"{name}({', '.join(map(str, arguments))})")
    assert error is None, text
    return eval(text, {"__builtins__": {}}, {"True": True, "False": False, "None": None})


def number(name: str, *arguments: object) -> float:
    """A symbolic result as a float."""
    import sympy

    text, error = answer(f"{name}({', '.join(map(str, arguments))})")
    assert error is None, text
    return float(sympy.sympify(text))
