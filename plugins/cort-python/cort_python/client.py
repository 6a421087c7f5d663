"""The owner's end of a kernel: thin asynchronous clients, one socket a kernel, no threads, no heartbeat, no iopub.

Everything that a cell showed comes in the one message that ends it (see ``kernel``), so a call is over when that has
come, and no output can be lost or arrive late on another channel.
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq
import zmq.asyncio
from jupyter_client.session import Session


@dataclass(frozen=True)
class CellReply:
    """What a cell showed: ``text`` without ``dropped`` characters; ``error`` is ``None`` or class and message."""

    text: str
    dropped: int
    error: str | None


class Client(ABC):
    """Talks to one kernel. One call at a time."""

    async def touch(self) -> None:  # noqa: B027 - only where it makes a difference
        """Have what a first cell has to do behind it. The kernel that comes out is in the same state."""

    @abstractmethod
    async def run(self, code: str, seed: int | None = None) -> CellReply:
        """Run a cell to its end; ``seed`` seeds the kernel's generators first. Cancelled, the kernel is of no more use."""

    @abstractmethod
    def close(self) -> None: ...


# --- Jupyter's protocol -------------------------------------------------------------------------------------------
def new_context(kernels: int) -> zmq.asyncio.Context:
    """One context serves that many kernels: a context of its own costs a kernel 12 descriptors and 2 threads."""
    allow_open_files(open_files(kernels))
    context = zmq.asyncio.Context(io_threads=1 + kernels // 500)
    context.max_sockets = 65_000
    return context


def open_files(kernels: int) -> int:
    """What a process may have open that has so many kernels."""
    return 4 * kernels + 200


def allow_open_files(count: int) -> None:
    """Let this process have that many open, or as many as it may. Where systems limit them to 256 or 1,024, they let a
    process ask for more."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if resource.RLIM_INFINITY != soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def ipc_connection(folder: Path) -> dict[str, Any]:
    """The content of a connection file for sockets in ``folder``, which only this kernel uses: kernels that share a
    path connect to each other."""
    channels = ("shell", "iopub", "stdin", "control", "hb")
    return {
        "transport": "ipc",
        "ip": str(folder / "k"),
        "key": uuid.uuid4().hex,
        "signature_scheme": "hmac-sha256",
        **{f"{channel}_port": number for number, channel in enumerate(channels, start=1)},
    }


class KernelClient(Client):
    """Of a kernel of ``cort_python.kernel``."""

    def __init__(self, context: zmq.asyncio.Context, connection: dict[str, Any]) -> None:
        key = connection["key"]
        self._session = Session(key=key if isinstance(key, bytes) else key.encode(), username="cort")
        self._socket = context.socket(zmq.DEALER)
        self._socket.linger = 0
        separator = "-" if connection["transport"] == "ipc" else ":"
        self._socket.connect(
            f"{connection['transport']}://{connection['ip']}{separator}{connection['shell_port']}"
        )

    async def touch(self) -> None:
        """Wait for the answer to a cell that nobody sees: a first one takes three times as long as the next."""
        await self._execute("1", {}, silent=True)

    async def run(self, code: str, seed: int | None = None) -> CellReply:
        metadata = {} if seed is None else {"cort": {"seed": seed}}
        return CellReply(**(await self._execute(code, metadata))["metadata"]["cort"])

    async def _execute(self, code: str, metadata: dict[str, Any], silent: bool = False) -> dict[str, Any]:
        content = {
            "code": code,
            "silent": silent,
            "store_history": not silent,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": False,
        }
        message = self._session.msg("execute_request", content, metadata=metadata)
        await self._socket.send_multipart(self._session.serialize(message))
        return await self._answer(message["header"]["msg_id"])

    async def _answer(self, message_id: str) -> dict[str, Any]:
        while True:
            _, frames = self._session.feed_identities(await self._socket.recv_multipart())
            message: dict[str, Any] = self._session.deserialize(frames)
            if message["parent_header"].get("msg_id") == message_id:
                return message

    def close(self) -> None:
        self._socket.close()


# --- without Jupyter ----------------------------------------------------------------------------------------------
class LiteClient(Client):
    """Of a ``cort_python.lite`` session: a line of JSON there, a line of JSON back, over a Unix socket."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self, code: str, seed: int | None = None) -> CellReply:
        if self._streams is None:
            self._streams = await asyncio.open_unix_connection(self._path, limit=2**26)
        reader, writer = self._streams
        with suppress(ConnectionError):  # a process that ended is found out by its exit
            writer.write(json.dumps({"code": code, "seed": seed}).encode() + b"\n")
            await writer.drain()
            if (line := await reader.readline()).endswith(b"\n"):
                return CellReply(**json.loads(line))
        never: asyncio.Future[CellReply] = asyncio.get_running_loop().create_future()
        return await never  # whoever waits watches the process, too

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
