"""Tools that are a set of typed operations: one function each, called by name with checked arguments.

A model writes calls, one a line, in a fence: ``integrate(sin(x)**2, x, 0, pi)``. An argument is the text between the
commas (or a quoted string's content); the function's annotations say how it is read and checked. A native call names
the operation and gives the arguments by name: ``{"operation": "isprime", "n": "91"}``; so does JSON in a fence.

Everything but the JSON schema happens in a process of its own for each call, with a time limit.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from cort_framework import OpenContext, Outcome, PluginConfig, Task, Tool, ToolCall, ToolResult
from cort_python.calls import CallDied, Caller
from cort_python.transcript import Transcript

TIMED_OUT = "[no result within {seconds:g} s]"
DIED = "[the calculation ended its process ({how})]"


class OperationError(Exception):
    """A call that cannot be carried out; the message is for the model."""


class Operation:
    """A function, the model of its arguments, and a line that says how it is called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.name = function.__name__
        self.help = " ".join((function.__doc__ or "").split())

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

    def bind(self, positional: list[str], named: Mapping[str, str]) -> dict[str, Any]:
        """Arguments by name."""
        try:
            bound = self.signature.bind_partial(*positional, **named).arguments
        except TypeError as error:
            raise OperationError(f"{self.name}: {error}\nusage: {self.usage}") from None
        return {name: list(value) if isinstance(value, tuple) else value for name, value in bound.items()}

    def run(self, arguments: Mapping[str, Any]) -> str:
        try:
            checked = self.arguments(**arguments)
        except ValidationError as error:
            faults = [
                f"{'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}"
                for e in error.errors()
            ]
            raise OperationError(f"{self.name}: {'; '.join(faults)}\nusage: {self.usage}") from None
        positional: list[Any] = []
        for parameter in self.signature.parameters.values():
            value = getattr(checked, parameter.name)
            positional += value if parameter.kind is parameter.VAR_POSITIONAL else [value]
        return str(self.function(*positional))

    def schema(self) -> dict[str, Any]:
        arguments = self.arguments.model_json_schema()
        return {
            "type": "object",
            "description": self.help,
            "properties": {"operation": {"const": self.name}, **arguments["properties"]},
            "required": ["operation", *arguments.get("required", [])],
            "additionalProperties": False,
        }


class Operations:
    """The operations of one tool. ``@operations.add`` above a function makes it one."""

    def __init__(self) -> None:
        self._operations: dict[str, Operation] = {}
        self._aliases: dict[str, str] = {}

    def add(self, *aliases: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            self._operations[function.__name__] = Operation(function)
            self._aliases.update(dict.fromkeys(aliases, function.__name__))
            return function

        return register

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
        return {"type": "object", "anyOf": [operation.schema() for operation in self._operations.values()]}

    def help(self) -> str:
        """One line an operation."""
        return "\n".join(f"{operation.usage}: {operation.help}" for operation in self._operations.values())

    # --- in the call's process --------------------------------------------------------------------------------
    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The results of ``{"code": …, "output_limit": …}`` or ``{"arguments": …, …}``, one a line: ``text``,
        ``dropped`` characters, and the ``error`` that stopped it, or ``None``."""
        transcript = Transcript(request["output_limit"])
        error = None
        try:
            for operation, arguments in self._calls(request):
                transcript.line(operation.run(arguments))
        except OperationError as fault:
            transcript.line(f"error: {fault}")
            error = str(fault).splitlines()[0]
        except Exception as fault:
            error = f"{type(fault).__name__}: {fault}".removesuffix(": ")
            transcript.line(f"error: {error}")
        text, dropped = transcript.render()
        return {"text": text, "dropped": dropped, "error": error and error[:500]}

    def _calls(self, request: Mapping[str, Any]) -> list[tuple[Operation, Mapping[str, Any]]]:
        arguments = request.get("arguments")
        code = (request.get("code") or "").strip()
        if arguments is None and code.startswith("{"):
            try:
                arguments = json.loads(code)
            except ValueError as error:
                raise OperationError(f"this is no JSON object: {error}") from None
        if arguments is not None:
            if not isinstance(arguments, Mapping) or "operation" not in arguments:
                raise OperationError('the arguments must be an object with the key "operation"')
            operation = self[arguments["operation"]]
            return [(operation, {k: v for k, v in arguments.items() if k != "operation"})]
        try:
            statements = ast.parse(code).body
        except SyntaxError as error:
            raise OperationError(
                f"line {error.lineno}: {error.msg}; write operation(argument, …), with quotes around an argument that"
                " is no expression"
            ) from None
        if not statements:
            raise OperationError(f"there is no call\noperations: {', '.join(self._operations)}")
        return [self._call(code, statement) for statement in statements]

    def _call(self, code: str, statement: ast.stmt) -> tuple[Operation, Mapping[str, Any]]:
        call = statement.value if isinstance(statement, ast.Expr) else None
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
            raise OperationError(f"line {statement.lineno}: write operation(argument, …), one call a line")

        def text(node: ast.expr) -> str:
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                return node.value
            return ast.get_source_segment(code, node) or ""

        operation = self[call.func.id]
        named = {keyword.arg: text(keyword.value) for keyword in call.keywords if keyword.arg}
        return operation, operation.bind([text(argument) for argument in call.args], named)


# --- the tool ---------------------------------------------------------------------------------------------------
class FromOperations:
    """A class attribute that is made of the tool's operations when it is first read: listing plugins stays quick."""

    def __init__(self, make: Callable[[Operations], Any]) -> None:
        self.make = make

    def __get__(self, instance: object, owner: type[OperationTool]) -> Any:
        module, _, name = owner.operations.partition(":")
        return self.make(getattr(importlib.import_module(module), name))


class OperationTool(Tool):
    """Base of a tool whose ``operations`` (``"module:object"``, an ``Operations``) run a process a call. No state."""

    operations: ClassVar[str]
    parameters = FromOperations(lambda operations: operations.schema())  # type: ignore[assignment]

    class Config(PluginConfig):
        timeout_s: float = Field(default=10.0, gt=0)
        """Seconds that a call may take."""
        output_limit: int = Field(default=800, ge=2)
        """Characters of a result: of a longer one the first and last half are shown."""
        concurrency: int = Field(default=2, gt=0)
        """Calls that calculate at the same time; more wait for their turn."""
        memory_mb: int | None = Field(default=2048, gt=0)
        """Address space that a call may take for itself. Linux."""

    config: Config

    async def open(self, context: OpenContext) -> None:
        self.caller = Caller(
            f"{self.operations}.answer",
            folder=context.scratch,
            preload=self.preload,
            timeout_s=self.config.timeout_s,
            concurrency=self.config.concurrency,
            memory_mb=self.config.memory_mb,
        )
        await self.caller.open()

    async def close(self) -> None:
        await self.caller.close()

    @asynccontextmanager
    async def session(self, task: Task, *, trajectory_id: str, seed: int) -> AsyncIterator[OperationTool]:
        yield self

    async def call(self, call: ToolCall) -> ToolResult:
        """One or more operations, in a process of their own."""
        started = time.monotonic()
        limit = self.config.output_limit
        request = {"code": call.code, "arguments": call.arguments, "output_limit": limit}
        outcome, text, dropped, error = await self._answer(request)
        return ToolResult(outcome, text, time.monotonic() - started, dropped, error=error)

    async def _answer(self, request: dict[str, Any]) -> tuple[Outcome, str, int, str | None]:
        try:
            answer = await self.caller.call(request)
        except TimeoutError:
            return Outcome.TIMEOUT, TIMED_OUT.format(seconds=self.config.timeout_s), 0, "timeout"
        except CallDied as death:
            return Outcome.RESOURCE_LIMIT, DIED.format(how=death), 0, str(death)
        error = answer["error"]
        outcome = Outcome.OK if error is None else Outcome.PROGRAM_ERROR
        if error is not None and error.startswith("MemoryError"):
            outcome = Outcome.RESOURCE_LIMIT
        return outcome, answer["text"], answer["dropped"], error
