"""The kernel: ipykernel's own, with one bounded transcript a cell and plain tracebacks.

A template process calls ``build`` once, forks, and calls ``serve`` in the child (``cold`` starts an ordinary kernel of
the same class). It answers any Jupyter client. What our own client wants of a cell travels in the metadata of its
``execute_reply``, under ``cort``, so that one message holds all of it, in order: ``text``, ``dropped`` (characters),
``error`` (``None``, or the exception's class and message).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq
from IPython.core.compilerop import CachingCompiler
from IPython.core.error import UsageError

sys.modules.setdefault("debugpy", None)  # type: ignore[arg-type]  # no debugger: it would start threads
import ipykernel.debugger  # noqa: E402,F401

if sys.modules["debugpy"] is None:
    del sys.modules["debugpy"]

from ipykernel.displayhook import ZMQShellDisplayHook  # noqa: E402
from ipykernel.iostream import IOPubThread, OutStream  # noqa: E402
from ipykernel.ipkernel import IPythonKernel  # noqa: E402
from ipykernel.zmqshell import ZMQDisplayPublisher, ZMQInteractiveShell  # noqa: E402
from jupyter_client.session import Session  # noqa: E402
from tornado.ioloop import IOLoop  # noqa: E402
from traitlets import Type  # noqa: E402
from traitlets.config import Config  # noqa: E402
from zmq.eventloop.zmqstream import ZMQStream  # noqa: E402

from cort_python.folders import WORK  # noqa: E402
from cort_python.outcomes import NO_INSTALL  # noqa: E402
from cort_python.seeding import seed  # noqa: E402
from cort_python.tracebacks import describe, format_traceback, headline  # noqa: E402
from cort_python.transcript import Capture, Transcript, clip  # noqa: E402

MAX_DISPLAY = 1_000_000
"""Characters of a cell's displays, together, that go to other clients."""

MAX_DISPLAYS = 1_000
"""How many of a cell's displays do."""


# --- what the user sees of an exception -------------------------------------------------------------------------
class CellCompiler(CachingCompiler):
    """Names cells ``<cell 1>``, ``<cell 2>``, … where IPython names them after a hash or the process."""

    def get_code_name(self, raw_code: str, transformed_code: str, number: int) -> str:
        return f"<cell {number}>"


# --- the iopub channel --------------------------------------------------------------------------------------------
class Publisher(IOPubThread):
    """ipykernel's thread for the iopub channel, which knows whether anybody listens there. Our own client does not."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.listeners = 0 if hasattr(IOPubThread, "_handle_subscription") else 1  # else nobody counts them
        super().__init__(*args, **kwargs)

    def _handle_subscription(self, frames: list[bytes]) -> None:
        self.listeners += sum(1 if frame[0] else -1 for frame in frames)
        super()._handle_subscription(frames)


class ThriftySession(Session):
    """Makes no messages for a channel that nobody listens to: they are two thirds of a short call."""

    publisher: Publisher | None = None

    def send(self, stream: Any, *args: Any, **kwargs: Any) -> Any:
        publisher = self.publisher
        if (
            publisher
            and not publisher.listeners
            and any(stream is channel for channel in (publisher, publisher.background_socket))
        ):
            return None
        return super().send(stream, *args, **kwargs)


# --- output -----------------------------------------------------------------------------------------------------
class CellStream(OutStream):
    """``sys.stdout`` and ``sys.stderr``: all of it goes to the transcript, the first part to other clients."""

    kernel: CortKernel | None = None

    @property
    def heard(self) -> bool:
        return bool(getattr(self.pub_thread, "listeners", True))

    def flush(self) -> None:
        if self.heard:
            super().flush()

    def write(self, string: str) -> int:
        if not isinstance(string, str):
            raise TypeError(f"write() argument must be str, not {type(string).__name__}")
        if os.getpid() != self._master_pid:  # a process that the cell forked: the capture file is shared
            os.write(1, string.encode(errors="backslashreplace"))
            return len(string)
        if self.kernel is not None and self.kernel.running:
            room = self.kernel.transcript.limit - self.kernel.transcript.total
            self.kernel.transcript.write(string)
            if room > 0 and self.heard:
                super().write(string[:room].encode(errors="backslashreplace").decode())
        return len(string)

    def fileno(self) -> int:
        """For ``subprocess`` and the like: what is written there comes into the transcript, too."""
        return 1 if self.name == "stdout" else 2


def bounded(kernel: CortKernel, data: dict[str, Any]) -> dict[str, Any]:
    """Put a representation's text into the transcript; give back what other clients get of it."""
    kernel.read_captured()
    if "text/plain" in data:
        kernel.transcript.line(data["text/plain"])
        data = {**data, "text/plain": clip(data["text/plain"], kernel.transcript.limit)}
    kernel.displays += 1
    kernel.displayed += sum(len(str(v)) for v in data.values())
    return data if kernel.displayed <= MAX_DISPLAY and kernel.displays <= MAX_DISPLAYS else {}


class CellDisplayHook(ZMQShellDisplayHook):
    """The echo of a cell's last expression."""

    def write_format_data(self, format_dict: dict[str, Any], md_dict: Any = None) -> None:
        super().write_format_data(bounded(self.shell.kernel, format_dict), md_dict)

    def log_output(self, format_dict: dict[str, Any]) -> None:
        """Keep no copy of the text for a history that nobody reads."""


class CellDisplayPublisher(ZMQDisplayPublisher):
    """``display(...)``."""

    def publish(self, data: dict[str, Any], metadata: Any = None, **kwargs: Any) -> None:
        if data := bounded(self.shell.kernel, data):
            super().publish(data, metadata, **kwargs)


def leave(code: object = None) -> None:
    """``exit()`` and ``quit()``: end the cell, keep the session."""
    raise SystemExit(code)


def refuse_install(line: str = "") -> None:
    """``%pip`` and its like: there is no network to install from."""
    raise UsageError(NO_INSTALL)


class CortShell(ZMQInteractiveShell):
    """IPython's shell with plain tracebacks, and where ``exit()`` ends the cell and not the session."""

    displayhook_class = Type(CellDisplayHook)
    display_pub_class = Type(CellDisplayPublisher)

    def init_environment(self) -> None:
        """Leave the environment as the template set it: no colours."""

    def init_magics(self) -> None:
        super().init_magics()
        for name in ("pip", "conda", "mamba", "micromamba", "uv"):
            self.register_magic_function(refuse_install, "line", name)

    def init_user_ns(self) -> None:
        super().init_user_ns()
        self.user_ns["exit"] = self.user_ns["quit"] = leave

    def system(self, cmd: str) -> None:
        """``!command``: without a terminal, which isolation would refuse, and its output in its place."""
        self.system_raw(cmd)
        self.kernel.read_captured()

    @contextmanager
    def _tee(self, channel: str) -> Iterator[None]:
        """Keep no copy of the output for a history that nobody reads: it would grow without bound."""
        yield

    def showtraceback(self, exc_tuple: Any = None, *args: Any, **kwargs: Any) -> None:
        kind, value, trace = self._get_exc_info(exc_tuple)
        self._showtraceback(kind, value, format_traceback(kind, value, trace, self.kernel.folder))

    def showsyntaxerror(self, *args: Any, **kwargs: Any) -> None:
        self.showtraceback()

    def _format_exception_for_storage(
        self, exception: BaseException, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        # IPython would format it a second time for its history, with the source of every frame: some 50 ms
        return {"ename": type(exception).__name__, "evalue": "", "traceback": self._last_traceback or []}

    def _showtraceback(self, etype: type[BaseException], evalue: BaseException, stb: list[str]) -> None:
        self._last_traceback = stb
        kernel, limit, message = self.kernel, self.kernel.transcript.limit, describe(evalue)
        if isinstance(evalue, SystemExit):
            if evalue.code in (None, 0):
                return
            stb = stb[-1:]
        if isinstance(evalue, UsageError):
            stb = [f"UsageError: {message}"]
        kernel.error = headline(etype, clip(message, limit), kernel.folder)
        kernel.read_captured()
        kernel.transcript.line("\n".join(stb))
        content = {
            "ename": etype.__name__,
            "evalue": clip(message, limit),
            "traceback": clip("\n".join(stb), limit).split("\n"),
        }
        hook = self.displayhook
        hook.session.send(hook.pub_socket, "error", content, hook.parent_header, ident=hook.topic)


# --- the kernel -------------------------------------------------------------------------------------------------
class NoSubshells:
    """In place of the thread that serves subshells. ipykernel asks it for its parent when a cell awaits."""

    parent_thread = threading.main_thread()

    def __bool__(self) -> bool:
        return False


class CortKernel(IPythonKernel):
    """ipykernel's kernel with a bounded transcript. See the module's docstring."""

    shell_class = CortShell
    compiler_class = CellCompiler

    def __init__(self, **kwargs: Any) -> None:
        self.running = False
        self.displays = self.displayed = 0
        self.error: str | None = None
        """Class and message of the exception that the cell showed."""
        super().__init__(**{"shell_channel_thread": NoSubshells(), **kwargs})

    @property
    def folder(self) -> str:
        return self.transcript.folder

    @property
    def _supports_kernel_subshells(self) -> bool:
        return bool(self.shell_channel_thread)

    def settle_in(self, output_limit: int) -> None:
        """Once this process, its folder and its file descriptors are the session's own."""
        self.transcript = Transcript(output_limit, os.getcwd())
        self.capture = Capture(self.transcript)

    def read_captured(self) -> None:
        """What subprocesses and C libraries wrote, for the transcript and for other clients."""
        if text := self.capture.read():
            OutStream.write(self._stdout, text[: self.transcript.limit])

    async def do_execute(
        self, code: str, *args: Any, cell_meta: dict[str, Any] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """One cell. Metadata ``{"cort": {"seed": n}}`` seeds the generators first."""
        self.transcript.reset()
        self.capture.discard()
        self.displays, self.displayed, self.error = 0, 0, None
        if ours := (cell_meta or {}).get("cort"):
            seed(ours["seed"])
        self.running = True
        try:
            reply: dict[str, Any] = await super().do_execute(code, *args, cell_meta=cell_meta, **kwargs)
        except Exception as error:  # an exception that cannot even be printed must not cost the reply
            reply = {"status": "error", "ename": type(error).__name__, "evalue": describe(error)}
            reply["execution_count"] = self.execution_count
        self.read_captured()
        if reply["status"] == "error":
            reply["evalue"] = clip(reply["evalue"], self.transcript.limit)
            lines = "\n".join(reply.get("traceback") or [])
            reply["traceback"] = clip(lines, self.transcript.limit).split("\n")
        return reply

    @contextmanager
    def _cancel_on_sigint(self, future: asyncio.Future[Any]) -> Iterator[None]:
        # ipykernel's own does not wake a loop that waits, so a cell that awaits what never comes is not interrupted
        loop = asyncio.get_running_loop()
        before = signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(future.cancel))
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def finish_metadata(self, parent: Any, metadata: dict[str, Any], reply_content: Any) -> dict[str, Any]:
        metadata = super().finish_metadata(parent, metadata, reply_content)
        text, dropped = self.transcript.render()
        metadata["cort"] = {"text": text, "dropped": dropped, "error": self.error}
        self.running = False
        return metadata


def shell_config() -> Config:
    """IPython's settings: nothing on disk, no colours."""
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    config.Completer.use_jedi = False  # it keeps a cache in the owner's home, which a session cannot reach
    return config


def quiet_logger() -> logging.Logger:
    """The kernel's own log must not reach a cell's stderr."""
    logger = logging.getLogger("cort_python.kernel")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


# --- a kernel that was built before a fork ------------------------------------------------------------------------
def build() -> CortKernel:
    """A complete kernel without sockets or threads; ``serve`` gives it those after the fork. Whatever is made or imported
    when it is first needed is needed here, so that it is made once."""
    warnings.filterwarnings("ignore", message="To exit: use")
    session = ThriftySession(key=b"", username="kernel")
    kernel = CortKernel.instance(session=session, config=shell_config(), log=quiet_logger())
    kernel.shell.run_cell("1", store_history=False, silent=True)
    kernel.shell.display_formatter.format(1)
    kernel.shell.logger  # noqa: B018
    IOLoop(make_current=False).close()
    return kernel


def serve(
    kernel: CortKernel, connection: dict[str, Any], options: dict[str, Any], ready: Callable[[], None]
) -> None:
    """Bind a built kernel to ``connection`` (a Jupyter connection file's content) and run it until it is told to stop."""
    context = zmq.Context(io_threads=1)

    def bind(kind: int, channel: str) -> zmq.Socket[bytes]:
        socket = context.socket(kind)
        socket.linger = 1000
        separator = "-" if connection["transport"] == "ipc" else ":"
        socket.bind(
            f"{connection['transport']}://{connection['ip']}{separator}{connection[channel + '_port']}"
        )
        return socket

    session, shell = kernel.session, kernel.shell
    assert isinstance(session, ThriftySession) and shell is not None
    session.key, session.session, session.pid = connection["key"].encode(), uuid.uuid4().hex, os.getpid()
    iopub = session.publisher = Publisher(bind(zmq.XPUB, "iopub"), session=session)
    beat = ZMQStream(bind(zmq.ROUTER, "hb"), iopub.io_loop)
    beat.on_recv(beat.send_multipart, copy=False)

    shell.displayhook.session = shell.display_pub.session = session
    kernel.iopub_thread = iopub
    kernel.iopub_socket = shell.displayhook.pub_socket = shell.display_pub.pub_socket = (
        iopub.background_socket
    )
    kernel.shell_stream = ZMQStream(bind(zmq.ROUTER, "shell"))
    kernel.stdin_socket = bind(zmq.ROUTER, "stdin")
    kernel.control_thread = (
        iopub.thread
    )  # one thread for all three channels that a busy shell must not hold up
    kernel.control_stream = ZMQStream(bind(zmq.ROUTER, "control"), iopub.io_loop)
    if options.get("work"):
        os.makedirs(WORK, exist_ok=True)
        os.chdir(WORK)
    kernel.settle_in(options["output_limit"])
    for name in ("stdout", "stderr"):
        stream = CellStream(session, iopub, name, watchfd=False)
        stream.kernel = kernel
        setattr(sys, name, stream)
        setattr(kernel, f"_{name}", stream)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the kernel listens for it while a cell runs
    iopub.start()
    kernel.start()
    await_threads()
    ready()
    IOLoop.current().start()


def await_threads() -> None:
    """Wait until the threads of libzmq (one for I/O, one reaper) are past their beginning. They set their own scheduling
    there, and abort the process where isolation refuses it; they take their names after that."""
    tasks = Path("/proc/self/task")
    while sum((task / "comm").read_text().startswith("ZMQbg") for task in tasks.iterdir()) < 2:
        time.sleep(0.0005)
