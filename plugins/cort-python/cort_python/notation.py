"""Calls as a model writes them in a fence: ``name(argument, …, key=argument)``, one after another.

An argument is the text up to the next comma outside brackets, or what stands between quotes, as it is: no escapes, for
a backslash means something in a SMILES. So no quotes are needed unless an argument has a comma or a loose bracket in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_BLANK = re.compile(r"(?:[\s;]|^[ \t]*#[^\n]*$)*", re.MULTILINE)
_NAME = re.compile(r"(?:print\s*\(\s*)?([A-Za-z_]\w*)\s*\(")
_KEY = re.compile(r"([A-Za-z_]\w*)\s*=(?!=)\s*(.*)", re.DOTALL)
_OPENING = re.compile(r"\s*(?:[A-Za-z_]\w*\s*=\s*)?")
"""What may stand before a quote that counts: it is the first of its argument."""
_REST = re.compile(r"[ \t;]*(?:#[^\n]*)?(?:\n|\Z)")


class NotationError(ValueError):
    """The text is no call; the message says where and how to write one."""


@dataclass(frozen=True)
class Written:
    """One call."""

    name: str
    arguments: tuple[str, ...]

    def split(self, keys: frozenset[str]) -> tuple[list[str], dict[str, str]]:
        """The arguments, those apart that are given by one of these names."""
        positional: list[str] = []
        named: dict[str, str] = {}
        for argument in self.arguments:
            match = _KEY.fullmatch(argument)
            if match and match[1] in keys:
                named[match[1]] = unquoted(match[2])
            else:
                positional.append(unquoted(argument))
        return positional, named


def unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] in "\"'" and text[0] == text[-1] else text


def read_calls(code: str) -> Iterator[Written]:
    """The calls of a text. Raises ``NotationError`` at the first place where there is none."""
    position = _end(_BLANK, code, 0)
    while position < len(code):
        line = code.count("\n", 0, position) + 1
        name = _NAME.match(code, position)
        if name is None:
            raise NotationError(f"line {line}: write operation(argument, …), one call a line")
        arguments, position = _arguments(code, name.end(), f"line {line}: {name[1]}")
        if name[0].startswith("print") and name[1] != "print":
            position += code.startswith(")", position)
        rest = _REST.match(code, position)
        if rest is None:
            raise NotationError(f"line {line}: after {name[1]}(…) comes nothing more; write one call a line")
        yield Written(name[1], arguments)
        position = _end(_BLANK, code, rest.end())


def _arguments(code: str, start: int, where: str) -> tuple[tuple[str, ...], int]:
    """The arguments that begin at ``start``, and the position behind their closing bracket."""
    arguments: list[str] = []
    depth, position = 0, start
    while position < len(code):
        character = code[position]
        if character in "([{":
            depth += 1
        elif character in ")]}" and depth:
            depth -= 1
        elif character in "\"'" and _OPENING.fullmatch(code, start, position):
            position = code.find(character, position + 1)
            if position < 0:
                raise NotationError(f"{where}: a quote is not closed")
        elif character == ")" or (character == "," and not depth):
            if given := code[start:position].strip():
                arguments.append(given)
            elif character == "," or arguments:
                raise NotationError(f"{where}: an argument is missing")
            start = position + 1
            if character == ")":
                return tuple(arguments), start
        position += 1
    raise NotationError(f"{where}: a bracket is not closed")


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match else position
