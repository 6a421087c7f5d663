"""What a cell shows of an exception: Python's own layout, without a frame that is not the user's."""

from __future__ import annotations

import traceback
from types import TracebackType

from cort_python.transcript import scrub


def format_traceback(
    kind: type[BaseException], value: BaseException, trace: TracebackType | None, folder: str
) -> list[str]:
    """The lines, with the frames of the user's code alone: cells, strings, modules in the scratch ``folder``."""

    def trim(error: traceback.TracebackException, depth: int = 0) -> None:
        error.stack = traceback.StackSummary.from_list(
            traceback.FrameSummary(f.filename, f.lineno, f.name, lookup_line=False, line=f.line)
            for f in error.stack
            if f.filename.startswith(("<cell ", "<string>", folder))
        )
        if depth < 10:
            for other in (error.__cause__, error.__context__):
                if other is not None:
                    trim(other, depth + 1)

    error = traceback.TracebackException(kind, value, trace, lookup_lines=False)  # of ours, no line is read
    trim(error)
    lines = error.format() if error.stack else error.format_exception_only()
    return scrub("".join(lines), folder).rstrip("\n").split("\n")


def describe(error: BaseException) -> str:
    """``str(error)``, also where that raises."""
    try:
        return str(error)
    except Exception:
        return "<exception str() failed>"


def headline(kind: type[BaseException], message: str, folder: str) -> str:
    """``ZeroDivisionError: division by zero``"""
    return scrub(f"{kind.__name__}: {message}" if message else kind.__name__, folder)
