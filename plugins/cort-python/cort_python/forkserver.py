"""The template process: imports everything once, builds a kernel, and forks it on request.

Run as ``python -m cort_python.forkserver OPTIONS`` (JSON: ``socket``, the file descriptor of a SEQPACKET socket;
``folder``; ``preload``; ``kernels``, whether to build one; ``policy``, see ``isolation``), with a clean environment. Over the socket come ``start``,
``call`` (with a socket of its own, see ``callee``) and ``signal`` requests, and go ``warm``, ``ready`` (by the child itself,
once its sockets are bound), ``exited`` and ``failed``.

It is the janitor as well: when its owner goes away, however that happens, it ends every process that the kernels
have started, removes the folder and exits.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from cort_python import callee, lite
from cort_python.isolation import Confinement, Layer, Limits, Policy, State, leave, surround, through_bwrap
from cort_python.limits import become_subreaper, die_with_parent


class ForkServer:
    """Serves one owner from one thread until the owner closes the socket."""

    def __init__(
        self,
        channel: socket.socket,
        folder: str,
        preload: list[str],
        kernels: bool,
        policy: Policy,
        around: dict[Layer, State],
    ) -> None:
        self.channel = channel
        self.folder = folder
        self.kernels: dict[int, int] = {}
        """Process id to the owner's id of the kernel."""
        self.own_descriptors: list[int] = []
        """What a child has to close."""
        for name in preload:
            importlib.import_module(name)
        if kernels:
            from cort_python import kernel

            self.serve = kernel.serve
            self.kernel = kernel.build()
        if (threads := len(os.listdir("/proc/self/task"))) > 1:
            raise RuntimeError(
                f"{threads} threads run after the imports ({', '.join(preload)}); a process with threads cannot be"
                " forked safely: take the module that starts them out of preload"
            )
        self.confinement = Confinement(policy, around, folder)
        gc.collect()
        gc.freeze()  # a collection in a child must not touch, and so copy, the template's pages

    def send(self, **event: Any) -> None:
        self.channel.send(json.dumps(event).encode())

    def run(self) -> None:
        wake, wake_end = os.pipe()
        for end in (wake, wake_end):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake_end)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)  # they only wake the loop
        layers = {layer: asdict(state) for layer, state in self.confinement.layers.items()}
        self.send(event="warm", pid=os.getpid(), layers=layers)
        with selectors.EpollSelector() as selector:
            selector.register(self.channel, selectors.EVENT_READ)
            selector.register(wake, selectors.EVENT_READ)
            self.own_descriptors = [wake, wake_end, selector.fileno()]
            while True:
                for key, _ in selector.select():
                    if key.fileobj == wake:
                        if signal.SIGTERM in os.read(wake, 4096):
                            return
                        self.reap()
                        continue
                    message, ends, _, _ = socket.recv_fds(self.channel, 1 << 18, 1)
                    if not message:
                        return
                    self.handle(json.loads(message), [socket.socket(fileno=end) for end in ends])

    def handle(self, request: dict[str, Any], ends: list[socket.socket]) -> None:
        if request["op"] == "signal":
            for pid, kernel in self.kernels.items():
                if kernel == request["id"]:  # not reaped yet, so the process id is still its own
                    os.kill(pid, request["signal"])  # what it started ends with it: see reap
            return
        try:
            pid = os.fork()
        except OSError as error:
            self.send(event="exited", id=request["id"], status=-1, error=f"fork failed: {error}")
            return
        if pid == 0:
            self.child(request, ends)
        self.kernels[pid] = request["id"]
        for end in ends:
            end.close()

    def child(self, request: dict[str, Any], ends: list[socket.socket]) -> NoReturn:
        """The forked process: become a kernel or answer a call, and never return."""
        status = 1
        try:
            die_with_parent(signal.SIGKILL)
            if os.getppid() == 1:
                os._exit(1)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            for (
                descriptor
            ) in self.own_descriptors:  # a cell could end the template through them, or make it deaf
                os.close(descriptor)
            os.setsid()
            if request["op"] == "call":
                callee.serve(ends[0], request, self.confinement)
            folder, limits = request["folder"], Limits(**request["limits"])
            made_here = not os.path.exists(folder)
            os.makedirs(folder, mode=0o700, exist_ok=True)
            os.chdir(folder)
            os.environ.update(request["environment"])
            tempfile.tempdir = None  # an import of the template's may have asked for it
            sys.path.insert(0, "")
            self.confinement.enter(limits, folder, made_here=made_here)

            def ready() -> None:
                self.confinement.seal(limits)
                self.send(event="ready", id=request["id"], pid=os.getpid())
                self.channel.close()  # no cell may reach the template

            connection = request["connection"]
            if path := connection.get("lite"):
                lite.serve(path, request, ready)
            else:
                self.serve(self.kernel, connection, request, ready)
            status = 0
        except BaseException as error:
            with suppress(OSError):
                self.send(event="failed", id=request["id"], error=f"{type(error).__name__}: {error}")
        finally:
            os._exit(status)

    def reap(self) -> None:
        """Collect the dead, and end what dead kernels have left running (it becomes our child: we are its subreaper)."""
        ended = False
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                if (kernel := self.kernels.pop(pid, None)) is not None:
                    ended = True
                    with suppress(ProcessLookupError):  # the group of a kernel that led one
                        os.killpg(pid, signal.SIGKILL)
                    self.send(event="exited", id=kernel, status=os.waitstatus_to_exitcode(status))
        if ended:
            self.end_orphans()

    def end_orphans(self) -> None:
        pid = os.getpid()
        with suppress(OSError):
            for child in map(int, Path(f"/proc/self/task/{pid}/children").read_text().split()):
                if child not in self.kernels:
                    os.kill(child, signal.SIGKILL)

    def shut_down(self) -> None:
        """End every kernel and all that they started. A second reason to stop must not interrupt it."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        self.kernels.clear()  # so that they count as orphans
        with suppress(ChildProcessError):
            while True:
                self.end_orphans()
                os.waitpid(-1, 0)


def main() -> None:
    options = json.loads(sys.argv[1])
    policy = Policy.from_json(options["policy"])
    inside = options.get("inside_bwrap", False)
    if not inside and (command := through_bwrap(policy)):
        again = [sys.executable, "-P", "-m", "cort_python.forkserver"]
        os.execv(command[0], [*command, *again, json.dumps({**options, "inside_bwrap": True})])
    channel = socket.socket(fileno=options["socket"])
    channel.set_inheritable(False)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the owner, who then closes the socket
    die_with_parent(signal.SIGTERM)
    become_subreaper()
    os.chmod(options["folder"], 0o711)  # a kernel that has a user of its own passes through it
    server = None
    try:
        around = surround(policy, options["folder"], inside_bwrap=inside)
        server = ForkServer(
            channel, options["folder"], options["preload"], options["kernels"], policy, around
        )
        server.run()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the owner is gone
    except Exception as error:
        with suppress(OSError):
            channel.send(
                json.dumps({"event": "failed", "error": f"{type(error).__name__}: {error}"}).encode()
            )
    finally:
        if server is not None:
            server.shut_down()
        leave(options["folder"])
        shutil.rmtree(options["folder"], ignore_errors=True)


if __name__ == "__main__":
    main()
