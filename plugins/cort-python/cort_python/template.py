"""The owner's side of a template process: start it, ask it for kernels, hear how they end.

Works from any thread and any event loop (what it promises are ``concurrent.futures``), so the tool and a stock
Jupyter client use it alike.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from cort_framework import InfrastructureError
from cort_framework.machine.scratch import remove_scratch
from cort_python.folders import clean_environment, new_root
from cort_python.isolation.policy import Layer, Limits, Policy, State


class ForkedKernel:
    """A kernel process that the template forked."""

    def __init__(self, template: Template, number: int) -> None:
        self.template = template
        self.number = number
        self.ready: Future[int] = Future()
        """The process id, once the kernel answers."""
        self.exited: Future[int] = Future()
        """The exit code, negative for a signal, once the process is reaped."""

    def send_signal(self, number: int) -> None:
        """To the kernel alone; what it started ends with it. Does nothing once it has ended."""
        if not self.exited.done():
            self.template.request(op="signal", id=self.number, signal=int(number))


class Template:
    """A warm process that kernels and calls are forked from. ``preload``: modules that it imports; ``kernels``: whether it
    builds one to fork, or serves calls alone.

    The thread that reads from it has started it as well and lives as long as it does: a parent-death signal follows
    the thread that started the process.
    """

    def __init__(self, preload: list[str], *, kernels: bool = True, policy: Policy | None = None) -> None:
        self.preload = preload
        self.policy = policy or Policy()
        self.layers: dict[Layer, State] = {}
        """What isolates the processes that are forked from it, and what does not; there once it is warm."""
        self.kernels = kernels
        self.folder = new_root()
        self.warm: Future[int] = Future()
        """The template's process id, once it can fork; ``InfrastructureError`` where it cannot start."""
        self._kernels: dict[int, ForkedKernel] = {}
        self._numbers = count(1)
        self._channel, self._far_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        self._error: InfrastructureError | None = None
        """Why there is no template any more."""
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="cort-template", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._error is None and not self._closed

    def fork(
        self, connection: dict[str, Any], folder: Path, *, limits: Limits | None = None, **options: Any
    ) -> ForkedKernel:
        """Ask for a kernel that listens at ``connection`` and works in ``folder``. Options: ``seed``, ``output_limit``
        (characters), ``environment`` (variables to set). Raises
        ``InfrastructureError`` where the template has ended."""
        kernel = self._new_child()
        limits = limits or Limits(memory_mb=options.pop("memory_mb", None))
        where: dict[str, Any] = {"connection": connection, "folder": str(folder), "limits": limits.to_json()}
        self.request(op="start", id=kernel.number, **where, **options)
        return kernel

    def call(self, channel: socket.socket, **options: Any) -> ForkedKernel:
        """Ask for a process that answers one call over ``channel``; options as ``callee.serve`` reads them. Raises
        ``InfrastructureError`` where the template has ended."""
        child = self._new_child()
        self.request(channel, op="call", id=child.number, **options)
        return child

    def _new_child(self) -> ForkedKernel:
        child = ForkedKernel(self, next(self._numbers))
        with self._lock:
            if self._error is not None:
                raise self._error
            self._kernels[child.number] = child
        return child

    def request(self, channel: socket.socket | None = None, **request: Any) -> None:
        with self._lock:
            if self._error is None:
                with suppress(
                    BrokenPipeError, ConnectionError
                ):  # it has just gone: the kernels' futures will say so
                    ends = [] if channel is None else [channel.fileno()]
                    socket.send_fds(self._channel, [json.dumps(request).encode()], ends)

    def close(self) -> None:
        """End the template and every kernel of it; returns when they are gone."""
        self._closed = True
        with suppress(OSError):  # closed already: it ended before
            self._channel.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=10)

    # --- the reading thread -----------------------------------------------------------------------------------
    def _run(self) -> None:
        options = {"socket": self._far_end.fileno(), "folder": str(self.folder), "preload": self.preload}
        options |= {"kernels": self.kernels, "policy": self.policy.to_json()}
        process = None
        error = "the template process ended"
        with tempfile.TemporaryFile() as log:
            try:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "cort_python.forkserver", json.dumps(options)],
                    env=clean_environment(self.folder),
                    pass_fds=[self._far_end.fileno()],
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
                self._far_end.close()
                while message := self._channel.recv(1 << 16):
                    event = json.loads(message)
                    if event["event"] == "failed" and "id" not in event:
                        error = event["error"]
                    else:
                        self._handle(event)
            except OSError as failure:
                error = str(failure)
            finally:
                self._far_end.close()
                if process is not None:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(timeout=5)
                    if process.poll() is None:
                        process.kill()
                        process.wait()
                log.seek(0)
                printed = log.read()[-2000:].decode(errors="replace").strip()
                self._fail(error if not printed or self._closed else f"{error}; it printed: {printed}")
                remove_scratch(self.folder)

    def _handle(self, event: dict[str, Any]) -> None:
        if event["event"] == "warm":
            self.layers = {layer: State(**state) for layer, state in event["layers"].items()}
            self.warm.set_result(event["pid"])
            return
        kernel = self._kernels.get(event["id"])
        if kernel is None:
            return
        if event["event"] == "ready":
            settle(kernel.ready, event["pid"])
        elif event["event"] == "failed":
            settle(kernel.ready, InfrastructureError(f"a kernel could not start: {event['error']}"))
        elif event["event"] == "exited":
            del self._kernels[kernel.number]
            why = event.get("error", f"exit code {event['status']}")
            settle(kernel.ready, InfrastructureError(f"a kernel ended before it was ready ({why})"))
            failed = InfrastructureError(why) if "error" in event else None
            settle(kernel.exited, failed or event["status"])

    def _fail(self, why: str) -> None:
        error = InfrastructureError(
            f"the Python template does not run: {why}",
            'see whether `preload` names a module that cannot be imported; backend = "local" does without a template',
        )
        with self._lock:
            self._error = error
            self._channel.close()
        settle(self.warm, error)
        for kernel in self._kernels.values():
            settle(kernel.ready, error)
            settle(kernel.exited, error)
        self._kernels.clear()


def settle(future: Future[int], outcome: int | Exception) -> None:
    """Give a future its outcome unless it has one (or nobody waits any more)."""
    with suppress(Exception):
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def can_fork() -> bool:
    """Whether this system has what the template needs: Linux."""
    return sys.platform == "linux" and hasattr(os, "fork")


def layers_here(policy: Policy) -> dict[Layer, State]:
    """What isolates processes that are forked on this machine. Starts a template to find out; raises
    ``InfrastructureError`` where it does not start."""
    template = Template([], kernels=False, policy=policy)
    try:
        template.warm.result()
        return template.layers
    finally:
        template.close()
