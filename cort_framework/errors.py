"""One hierarchy for every error that a person sees.

Each error says what is wrong and where (``message``) and how to mend it (``hint``). The command line
prints the two as ``error:`` and ``hint:`` lines and ends with ``exit_code``.
"""

from __future__ import annotations

from typing import Any


class CortError(Exception):
    """The work failed: exit code 1."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"

    def __reduce__(self) -> tuple[Any, ...]:
        """An error that crosses a process says there what it said here, whatever its class is made from."""
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[CortError], arguments: tuple[Any, ...], state: dict[str, Any]) -> CortError:
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    error.__dict__.update(state)
    return error


class RequestError(CortError):
    """What was asked for cannot be done as it was asked: exit code 2. Nothing was started or lost."""

    exit_code = 2


class RecipeError(RequestError):
    """One or more faults in a recipe. ``problems`` lists all of them, one line each."""

    def __init__(self, problems: list[str], hint: str | None = None, where: str | None = None) -> None:
        self.problems = problems
        head = f"{where}: " if where else ""
        body = (
            problems[0]
            if len(problems) == 1
            else "\n".join([f"{len(problems)} problems:", *(f"  {p}" for p in problems)])
        )
        super().__init__(head + body, hint)


class PluginError(RequestError):
    """A plugin that a recipe names is missing, broken, clashing or lacks a dependency."""


class TaskError(RequestError):
    """A task file is empty, malformed, or holds an answer that cannot be read."""


class PluginFault(CortError):
    """A plugin's own code raised; the original exception is ``__cause__`` and its distribution is named."""

    def __init__(self, what: str, distribution: str, cause: BaseException) -> None:
        super().__init__(
            f"{what} (from {distribution}) raised {type(cause).__name__}: {cause}",
            f"the fault is in the plugin {distribution}; --traceback shows where",
        )
        self.__cause__ = cause


class InfrastructureError(CortError):
    """The machinery failed, not the program that the model wrote. A tool raises it; the call is tried again on a
    fresh worker, and the model never sees it."""


class EngineError(CortError):
    """The engine cannot generate, or does not sample from the weights that it was given."""


class StageFailed(CortError):
    """A stage ended without what it should produce, for example because its filters kept nothing."""


class DiskError(CortError):
    """A disk is full, or cannot be written. What was there is there still."""


class DeadlineExceeded(CortError):
    """A wait ran out; the message names the culprit."""
