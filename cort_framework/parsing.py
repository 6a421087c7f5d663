"""Finding tool calls in what a model writes: code fences and native ``<tool_call>`` JSON, behind one parser.

A parser is handed all the text since the last tool output, whoever wrote it (a hint may have opened the fence), each
time that it has grown by what may complete a call. It keeps no state, so that the answer cannot depend on how the text
was cut into tokens.
"""

from __future__ import annotations

import difflib
import json
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cort_framework.interfaces import Tool


@dataclass(frozen=True)
class ParsedCall:
    """A complete call. ``problem`` is set where the model's text is a call but no valid one."""

    tool: str
    end: int
    """Position in the text just after the call's closing fence or tag."""
    code: str | None = None
    arguments: Mapping[str, Any] | None = None
    problem: str | None = None


class ToolCallParser(ABC):
    """Recognises one way of calling tools."""

    stop: tuple[str, ...]
    """Strings at which the engine has to pause: a call may be complete."""
    mark: str
    """What stands in the line that completes a call."""

    @abstractmethod
    def parse(self, text: str, ended: bool = False) -> ParsedCall | None:
        """The first complete call in ``text``. ``ended``: no more text follows, so that a fence which is not yet
        followed by a line break counts too."""

    @abstractmethod
    def render(self, output: str, after: str) -> str:
        """The text to append for a call's output; ``after`` is the text that it is appended to."""


_FENCE = re.compile(r"^[ \t]*```([^\n`]*)(\n|\Z)", re.MULTILINE)


def _fences(text: str) -> Iterator[re.Match[str]]:
    """Every match of ``_FENCE``, at the speed of a search for its mark."""
    at = text.find("```")
    while at >= 0:
        if fence := _FENCE.match(text, text.rfind("\n", 0, at) + 1):
            yield fence
        end = text.find("\n", at)
        at = text.find("```", end) if end >= 0 else -1


class FenceParser(ToolCallParser):
    """```` ```python … ``` ```` answered by ```` ```output … ``` ```` (paper, inference section).

    - Only a fence whose info string is a tool's language opens a block of that tool. It opens one wherever it stands, also
      inside another block that the model left open.
    - A bare fence line closes the block; outside a block it means nothing. A line that merely ends in a backtick is
      no fence.
    - A fence line inside an open triple-quoted Python string is part of the string.
    - An unclosed block is no call, also where another fence, such as an ```` ```output ```` that the model invents, breaks
      it off.
    """

    stop = ("```\n",)
    mark = "```"

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools: dict[str, str] = {}
        for tool in tools:
            for language in (tool.language, *tool.aliases):
                if language:
                    self._tools[language.lower()] = tool.name
        self._python = {language for language in self._tools if language in ("python", "py", "python3")}

    def parse(self, text: str, ended: bool = False) -> ParsedCall | None:
        language: str | None = None
        start = 0
        for fence in _fences(text):
            if not (fence[2] or ended):
                break
            code = text[start : fence.start()]
            if language in self._python and _inside_string(code):
                continue
            info = fence[1].strip().lower()
            if info:
                language, start = info if info in self._tools else None, fence.end()
            elif language is not None:
                return ParsedCall(self._tools[language], fence.end(), code=code)
        return None

    def render(self, output: str, after: str) -> str:
        lead = "" if after.endswith("\n") else "\n"
        return f"{lead}```output\n{output.rstrip()}\n```\n"


def _inside_string(code: str) -> bool:
    """Whether the code ends inside a triple-quoted string."""
    if '"""' not in code and "'''" not in code:
        return False
    try:
        with warnings.catch_warnings(action="ignore"):  # of invalid escapes and the like
            compile(code, "<cell>", "exec", dont_inherit=True)
    except SyntaxError as error:
        return "unterminated triple-quoted" in (error.msg or "")
    except (ValueError, MemoryError, RecursionError):
        return False
    return False


class NativeParser(ToolCallParser):
    """Hermes / Qwen calls: ``<tool_call>{"name": …, "arguments": {…}}</tool_call>``.

    A call of a tool that is not there, or one whose JSON is broken, is a call with a ``problem``: the model is told.
    Two things that models write and strict JSON forbids are understood: line breaks inside strings, and arguments that
    are themselves a string of JSON. Whether the arguments suit the tool is for the tool to say.
    """

    stop = ("</tool_call>",)
    mark = "</tool_call>"
    _call = re.compile(r"<tool_call>((?:(?!<tool_call>).)*?)</tool_call>", re.DOTALL)

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools = sorted(tool.name for tool in tools if tool.parameters is not None)

    def parse(self, text: str, ended: bool = False) -> ParsedCall | None:
        match = self._call.search(text)
        if match is None:
            return None
        try:
            data = _json(match[1])
            name, arguments = data["name"], data.get("arguments")
            if isinstance(arguments, str) and arguments.strip():
                arguments = _json(arguments)
            arguments = arguments or {}
            if not isinstance(name, str) or not isinstance(arguments, dict):
                raise TypeError
        except (ValueError, RecursionError) as error:
            problem = f"the tool call is not valid JSON: {error}\n{_SHAPE}"
            return ParsedCall("", match.end(), problem=problem)
        except (KeyError, TypeError, AttributeError):
            return ParsedCall("", match.end(), problem=_SHAPE)
        unknown = None
        if name not in self._tools:
            near = difflib.get_close_matches(name, self._tools, n=1)
            guess = f"did you mean {near[0]!r}? " if near else ""
            unknown = f"there is no tool {name!r}; {guess}there are: {', '.join(self._tools) or 'none'}"
        return ParsedCall(name, match.end(), arguments=arguments, problem=unknown)

    def render(self, output: str, after: str) -> str:
        lead = "" if after.endswith("\n") else "\n"
        return f"{lead}<tool_response>\n{output.rstrip()}\n</tool_response>\n"


_SHAPE = 'a tool call is {"name": "…", "arguments": {…}}'


def _json(text: str) -> Any:
    """The value. Raises ``ValueError`` also for half of a surrogate pair, which no file could hold."""
    value = json.loads(text, strict=False)
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("an escape such as \\ud83d is half of a character") from None
    return value


class CallParser:
    """All the ways in which a recipe's tools can be called: whichever call is complete first counts."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        tools = list(tools)
        self.parsers: list[ToolCallParser] = []
        if any(tool.language for tool in tools):
            self.parsers.append(FenceParser(tools))
        if any(tool.parameters is not None for tool in tools):
            self.parsers.append(NativeParser(tools))
        self.stop: tuple[str, ...] = tuple(s for parser in self.parsers for s in parser.stop)
        self._marks = tuple(parser.mark for parser in self.parsers)

    def may_end_in(self, text: str, searched: int) -> bool:
        """False where ``text``, which goes on, holds no call if its first ``searched`` characters hold none. Costs what
        is new: a long text that comes in pieces is parsed only where a line may complete a call."""
        line = text.rfind("\n", 0, searched) + 1
        return any(text.find(mark, line) >= 0 for mark in self._marks)

    def parse(self, text: str, ended: bool = False) -> tuple[ParsedCall, ToolCallParser] | None:
        found = [(call, p) for p in self.parsers if (call := p.parse(text, ended)) is not None]
        return min(found, key=lambda pair: pair[0].end, default=None)
