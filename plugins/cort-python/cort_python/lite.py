"""A Python session without Jupyter, for tests and for very many sessions at once: a sixth of the memory, a tenth of the
time a call.

What differs from a real kernel: a last expression is echoed by ``repr`` (long containers are not wrapped), there are no
magics, no ``!commands``, no ``In`` and ``Out``, ``display`` prints, and no other Jupyter client can connect. State,
``await``, tracebacks, limits, seeds and the bounded transcript are the same.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import io
import json
import linecache
import os
import signal
import socket
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from cort_python.folders import WORK
from cort_python.seeding import seed
from cort_python.tracebacks import describe, format_traceback, headline
from cort_python.transcript import Capture, Transcript, clip


class LiteStream(io.TextIOBase):
    """``sys.stdout`` and ``sys.stderr``."""

    encoding = "utf-8"

    def __init__(self, session: LiteSession, number: int) -> None:
        self.session = session
        self.number = number

    def write(self, string: str) -> int:
        if not isinstance(string, str):
            raise TypeError(f"write() argument must be str, not {type(string).__name__}")
        if os.getpid() != self.session.pid:  # a process that the cell forked: the capture file is shared
            os.write(1, string.encode(errors="backslashreplace"))
        elif self.session.running:
            self.session.transcript.write(string)
        return len(string)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.number


class LiteSession:
    """Runs cells in one module, ``__main__``."""

    def __init__(self, output_limit: int) -> None:
        self.transcript = Transcript(output_limit, os.getcwd())
        self.capture = Capture(self.transcript)
        self.running = False
        self.pid = os.getpid()
        self.cells = 0
        self.loop: asyncio.AbstractEventLoop | None = None
        self.module = sys.modules["__main__"] = ModuleType("__main__")
        self.module.__dict__.update(display=self.display, exit=leave, quit=leave)
        sys.stdout, sys.stderr = LiteStream(self, 1), LiteStream(self, 2)
        sys.displayhook = self.echo

    def run(self, code: str) -> dict[str, Any]:
        """One cell: ``text``, ``dropped`` and ``error`` as in ``CellReply``."""
        self.cells += 1
        name = f"<cell {self.cells}>"
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        self.transcript.reset()
        self.capture.discard()
        error, self.running = None, True
        try:
            self.execute(code, name)
        except BaseException as fault:
            error = self.show(fault)
        self.capture.read()
        self.running = False
        text, dropped = self.transcript.render()
        return {"text": text, "dropped": dropped, "error": error}

    def execute(self, code: str, name: str) -> None:
        tree = ast.parse(code, name)
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        last = tree.body[-1:]
        quiet = code.rstrip().endswith(";")
        echoed = [node for node in last if isinstance(node, ast.Expr) and not quiet]
        first = ast.Module(tree.body[: len(tree.body) - len(echoed)], tree.type_ignores)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            self.evaluate(compile(first, name, "exec", flags))
            for node in echoed:
                self.echo(self.evaluate(compile(ast.Expression(node.value), name, "eval", flags)))
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def evaluate(self, code: Any) -> Any:
        value = eval(code, self.module.__dict__)
        if code.co_flags & inspect.CO_COROUTINE:
            self.loop = self.loop or asyncio.new_event_loop()
            value = self.loop.run_until_complete(value)
        return value

    def echo(self, value: object) -> None:
        if value is not None:
            self.module._ = value  # type: ignore[attr-defined]
            self.display(value)

    def display(self, *values: object) -> None:
        for value in values:
            text = repr(value)
            self.capture.read()
            self.transcript.line(text)

    def show(self, fault: BaseException) -> str | None:
        """The traceback in the transcript; class and message."""
        folder, limit = self.transcript.folder, self.transcript.limit
        trace = format_traceback(type(fault), fault, fault.__traceback__, folder)
        if isinstance(fault, SystemExit):
            if fault.code in (None, 0):
                return None
            trace = trace[-1:]
        self.capture.read()
        self.transcript.line("\n".join(trace))
        return headline(type(fault), clip(describe(fault), limit), folder)


def leave(code: object = None) -> None:
    """``exit()`` and ``quit()``: end the cell, keep the session."""
    raise SystemExit(code)


def serve(path: str, options: dict[str, Any], ready: Callable[[], None]) -> None:
    """Answer the one client that connects to the Unix socket at ``path``, until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.makedirs(WORK, exist_ok=True)
    os.chdir(WORK)
    session = LiteSession(options["output_limit"])
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        ready()
        channel, _ = listener.accept()
    with channel, channel.makefile("rb") as requests:
        for line in requests:
            request = json.loads(line)
            if request["seed"] is not None:
                seed(request["seed"])
            channel.sendall(json.dumps(session.run(request["code"])).encode() + b"\n")
