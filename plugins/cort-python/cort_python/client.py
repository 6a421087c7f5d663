"""A thin asynchronous Jupyter client: one DEALER socket a kernel, no threads, no heartbeat, no iopub.

Everything that a cell showed comes in its ``execute_reply`` (see ``kernel``), so a call is over when that has come,
and no output can be lost or arrive late on another channel.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq
import zmq.asyncio
from jupyter_client.session import Session


def new_context() -> zmq.asyncio.Context:
    """One context serves every kernel: a context of its own costs a kernel 12 descriptors and 2 threads."""
    context = zmq.asyncio.Context()
    context.max_sockets = 65_000
    return context


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


@dataclass(frozen=True)
class CellReply:
    """What a cell showed: ``text`` without ``dropped`` characters; ``error`` is ``None`` or class and message."""

    text: str
    dropped: int
    error: str | None


class KernelClient:
    """Talks to one kernel of ``cort_python.kernel``. One call at a time."""

    def __init__(self, context: zmq.asyncio.Context, connection: dict[str, Any]) -> None:
        key = connection["key"]
        self._session = Session(key=key if isinstance(key, bytes) else key.encode(), username="cort")
        self._socket = context.socket(zmq.DEALER)
        self._socket.linger = 0
        separator = "-" if connection["transport"] == "ipc" else ":"
        self._socket.connect(
            f"{connection['transport']}://{connection['ip']}{separator}{connection['shell_port']}"
        )

    async def ready(self) -> None:
        """Wait until the kernel answers at all."""
        message = self._session.msg("kernel_info_request", {})
        await self._socket.send_multipart(self._session.serialize(message))
        await self._answer(message["header"]["msg_id"])

    async def send(self, code: str) -> str:
        """Start a cell; gives the id that ``reply`` waits for."""
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": False,
        }
        message = self._session.msg("execute_request", content)
        await self._socket.send_multipart(self._session.serialize(message))
        return str(message["header"]["msg_id"])

    async def reply(self, message_id: str) -> CellReply:
        """Wait for the end of that cell."""
        return CellReply(**(await self._answer(message_id))["metadata"]["cort"])

    async def _answer(self, message_id: str) -> dict[str, Any]:
        while True:
            _, frames = self._session.feed_identities(await self._socket.recv_multipart())
            message: dict[str, Any] = self._session.deserialize(frames)
            if message["parent_header"].get("msg_id") == message_id:
                return message

    def close(self) -> None:
        self._socket.close()
