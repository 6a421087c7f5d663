"""Tools that are a set of typed operations: one function each, called by name with checked arguments.

A model writes calls, one a line, in a fence: ``integrate(sin(x)**2, x, 0, pi)`` (see ``notation``). The function's
annotations say how an argument's text is read and checked. A native call names the operation and gives the arguments by
name: ``{"operation": "isprime", "n": "91"}``; so does JSON in a fence.

Everything but the JSON schema happens in a process of its own for each call, with a time limit.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import json
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from cort_python.notation import NotationError, Written, read_calls
from cort_python.transcript import Transcript

MAX_CODE = 100_000
"""Characters of a call: more is no calculation that somebody has written down."""


class Lazy:
    """A module that is imported when it is first used: naming a tool's operations must not load its library."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


class OperationError(Exception):
    """A call that cannot be carried out; the message is for the model."""


@dataclass(frozen=True)
class File:
    """A result that is no text. The model reads the caption and the file's name, which is made of its content."""

    data: bytes
    suffix: str
    caption: str

    @property
    def name(self) -> str:
        return f"{hashlib.sha256(self.data).hexdigest()[:16]}{self.suffix}"

    def __str__(self) -> str:
        return f"{self.caption}: {self.name}"


class Operation:
    """A function, the model of its arguments, and a line that says how it is called."""

    def __init__(self, function: Callable[..., Any], example: str) -> None:
        self.function = function
        self.name = function.__name__
        self.help = " ".join((function.__doc__ or "").split())
        self.example = example

    @cached_property
    def signature(self) -> inspect.Signature:
        return inspect.signature(self.function, eval_str=True)

    @cached_property
    def arguments(self) -> type[BaseModel]:
        fields: dict[str, Any] = {}
        for parameter in self.signature.parameters.values():
            if parameter.kind is parameter.VAR_POSITIONAL:
                fields[parameter.name] = (list[parameter.annotation], Field(min_length=1))  # type: ignore[name-defined]
            else:
                default = ... if parameter.default is parameter.empty else parameter.default
                fields[parameter.name] = (parameter.annotation, default)
        config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
        return create_model(self.name, __config__=config, **fields)

    @property
    def usage(self) -> str:
        """``integrate(expression, variable, lower=None, upper=None)``"""
        parameters = (
            f"{'*' if p.kind is p.VAR_POSITIONAL else ''}{p.name}{'' if p.default is p.empty else f'={p.default}'}"
            for p in self.signature.parameters.values()
        )
        return f"{self.name}({', '.join(parameters)})"

    def misuse(self, fault: str) -> OperationError:
        return OperationError(f"{self.name}: {fault}\nusage: {self.usage}\nexample: {self.example}")

    def bind(self, call: Written) -> dict[str, Any]:
        """Arguments by name."""
        positional, named = call.split(frozenset(self.signature.parameters))
        try:
            bound = self.signature.bind_partial(*positional, **named).arguments
        except TypeError as error:
            raise self.misuse(str(error)) from None
        return {name: list(value) if isinstance(value, tuple) else value for name, value in bound.items()}

    def run(self, arguments: Mapping[str, Any]) -> Any:
        try:
            checked = self.arguments(**arguments)
        except ValidationError as error:
            faults = [
                f"{'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}"
                for e in error.errors()
            ]
            raise self.misuse("; ".join(faults)) from None
        positional: list[Any] = []
        for parameter in self.signature.parameters.values():
            value = getattr(checked, parameter.name)
            positional += value if parameter.kind is parameter.VAR_POSITIONAL else [value]
        return self.function(*positional)

    def schema(self) -> dict[str, Any]:
        arguments = self.arguments.model_json_schema()
        properties = {
            name: {key: value for key, value in of.items() if key != "title"}
            for name, of in arguments["properties"].items()
        }
        return {
            "type": "object",
            "description": f"{self.help} Example: {self.example}",
            "properties": {"operation": {"const": self.name}, **properties},
            "required": ["operation", *arguments.get("required", [])],
            "additionalProperties": False,
        }


class Operations:
    """The operations of one tool, its own and those of ``groups``. ``@operations.add`` above a function makes it one."""

    def __init__(self, *groups: Operations) -> None:
        self._operations: dict[str, Operation] = {}
        self._aliases: dict[str, str] = {}
        for group in groups:
            self._operations |= group._operations
            self._aliases |= group._aliases

    def add(self, example: str, *aliases: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """``example``: a call of it, which help and errors show and which templates run once to be warm."""

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            self._operations[function.__name__] = Operation(function, example)
            self._aliases.update(dict.fromkeys(aliases, function.__name__))
            return function

        return register

    def only(self, names: Sequence[str]) -> Operations:
        """These alone; all of them where none is named. Raises ``OperationError`` for one that is not there."""
        if not names:
            return self
        chosen = Operations()
        chosen._operations = {operation.name: operation for operation in map(self.__getitem__, names)}
        chosen._aliases = {a: name for a, name in self._aliases.items() if name in chosen._operations}
        return chosen

    def __iter__(self) -> Iterator[Operation]:
        return iter(self._operations.values())

    def warm(self, *further: str) -> None:
        """Carry out every operation's example, and ``further`` calls, so that their modules and caches are there for
        what is forked from this process. Raises ``OperationError`` where one fails."""
        for call in (*(operation.example for operation in self), *further):
            answer = self.answer({"code": call, "output_limit": 800})
            if answer["error"] is not None:
                raise OperationError(f"the example {call} fails: {answer['error']}")

    def __getitem__(self, name: object) -> Operation:
        operation = self._operations.get(self._aliases.get(str(name), str(name)))
        if operation is None:
            near = difflib.get_close_matches(str(name), [*self._operations, *self._aliases], n=1)
            guess = f"; did you mean {near[0]}?" if near else ""
            raise OperationError(
                f"there is no operation {name!r}{guess}\noperations: {', '.join(self._operations)}"
            )
        return operation

    def schema(self) -> dict[str, Any]:
        """The JSON schema of a native call."""
        return {"type": "object", "anyOf": [operation.schema() for operation in self]}

    def help(self) -> str:
        """One line an operation."""
        return "\n".join(f"{operation.usage}: {operation.help}" for operation in self)

    # --- in the call's process --------------------------------------------------------------------------------
    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The results of ``{"code": …, "output_limit": …}`` or ``{"arguments": …, …}``, one a line: ``text``,
        ``dropped`` characters, ``files`` (name to base64), and the ``error`` that stopped it, or ``None``. ``only``: the
        operations that may be called."""
        transcript = Transcript(request["output_limit"])
        error = None
        files: dict[str, str] = {}
        try:
            for operation, arguments in self.only(request.get("only", ()))._calls(request):
                result = operation.run(arguments)
                if isinstance(result, File):
                    files[result.name] = b64encode(result.data).decode()
                transcript.line(str(result))
        except OperationError as fault:
            transcript.line(f"error: {fault}")
            error = str(fault).splitlines()[0]
        except Exception as fault:
            error = f"{type(fault).__name__}: {fault}".removesuffix(": ")
            transcript.line(f"error: {error}")
        text, dropped = transcript.render()
        return {"text": text, "dropped": dropped, "files": files, "error": error and error[:500]}

    def _calls(self, request: Mapping[str, Any]) -> list[tuple[Operation, Mapping[str, Any]]]:
        arguments = request.get("arguments")
        code = (request.get("code") or "").strip()
        if len(code) > MAX_CODE:
            raise OperationError(f"a call has at most {MAX_CODE:,} characters; this one has {len(code):,}")
        if arguments is None and code.startswith("{"):
            try:
                arguments = json.loads(code)
            except ValueError as error:
                raise OperationError(f"this is no JSON object: {error}") from None
        if arguments is not None:
            if not isinstance(arguments, Mapping) or "operation" not in arguments:
                raise OperationError('the arguments must be an object with the key "operation"')
            operation = self[arguments["operation"]]
            given = {k: v for k, v in arguments.items() if k != "operation" and v is not None}
            return [(operation, given)]
        try:
            calls = list(read_calls(code))
        except NotationError as error:
            raise OperationError(str(error)) from None
        if not calls:
            raise OperationError(f"there is no call\noperations: {', '.join(self._operations)}")
        return [(self[call.name], self[call.name].bind(call)) for call in calls]
