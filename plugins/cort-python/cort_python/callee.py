"""The child's side of a call: read a value, run a function on it under limits, write the answer, end.

The answer is one line of JSON: ``{"value": …}``, ``{"raised": …}``, or ``{"failed": …}`` where the process could not be
put under its limits. A line that is not there says that the process died. ``serve`` is what a fork of the template does; ``python -m cort_python.callee OPTIONS`` is an ordinary process
that does the same.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
from operator import attrgetter
from typing import Any, NoReturn

from cort_python.isolation import Confinement, Limits
from cort_python.limits import die_with_parent, limit_memory


def serve(channel: socket.socket, options: dict[str, Any], confinement: Confinement) -> NoReturn:
    """Answer the one call that comes over ``channel``; before it comes, try ``rehearsal``, which takes the pages of memory
    that such a call writes to (a copy of each costs microseconds, and there are thousands). Everything else that the template had open is closed first, and
    there is nowhere to write and nothing to execute."""
    status = 1
    try:
        try:
            limits = Limits(memory_mb=options["memory_mb"], file_mb=0, alone=True)
            null = os.open(os.devnull, os.O_RDWR)
            confinement.enter(limits, None)
            for number in range(3):
                os.dup2(null, number)  # what a library prints goes nowhere
            os.dup2(channel.fileno(), 3)
            os.closerange(4, os.sysconf("SC_OPEN_MAX"))
            channel = socket.socket(fileno=3)
            confinement.seal(limits)
            limit(options)
            if "rehearsal" in options:
                answer(options["target"], options["rehearsal"].encode())
        except Exception as error:  # nobody's call is to blame
            channel.sendall(line("failed", error))
            os._exit(1)
        with channel.makefile("rb") as request:
            channel.sendall(answer(options["target"], request.read()))
        status = 0
    finally:
        os._exit(status)


def limit(options: dict[str, Any]) -> None:
    """Put this process under the call's limits of time. No text of a model has been read yet."""
    sys.set_int_max_str_digits(0)  # the time limit bounds long numbers
    if options["cpu_s"] is not None:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, options["cpu_s"])


def function(target: str) -> Any:
    """What ``module:path`` names."""
    module, _, path = target.partition(":")
    return attrgetter(path)(importlib.import_module(module))


def answer(target: str, request: bytes) -> bytes:
    try:
        return line("value", function(target)(json.loads(request)))
    except BaseException as error:  # exit() included
        return line("raised", error)


def line(kind: str, value: Any) -> bytes:
    """One line of JSON; an exception as its class and text."""
    if isinstance(value, BaseException):
        value = f"{type(value).__name__}: {value}".removesuffix(": ")
    return json.dumps({kind: value}).encode() + b"\n"


def main() -> None:
    options = json.loads(sys.argv[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(signal.SIGKILL)
    if os.getppid() != options["parent"]:
        return
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get into the answer
    try:
        for name in options["preload"]:
            importlib.import_module(name)
        function(options["target"])
        limit_memory(options["memory_mb"])
        limit(options)
    except Exception as error:
        answers.write(f"{type(error).__name__}: {error}\n".encode())
        return
    answers.write(b"ready\n")
    answers.flush()
    answers.write(answer(options["target"], sys.stdin.buffer.read()))


if __name__ == "__main__":
    main()
