"""Runs the attacks and the hangs against real sessions and says what held."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from cort_framework import InfrastructureError, OpenContext, Outcome, Task, ToolCall, ToolResult
from cort_python.isolation.attacks import ATTACKS, THROUGH, Attack, Scene
from cort_python.isolation.hangs import HANGS
from cort_python.isolation.policy import LAYERS, Layer, State
from cort_python.tool import PythonSession, PythonTool

SLACK_S = 0.2
"""What a hang may take beyond the limit and the grace."""

_TASK = Task("check", "check")


@dataclass(frozen=True)
class Trial:
    """What became of one attack or hang."""

    name: str
    held: bool
    detail: str
    """What refused it; where it was not refused, the layers that would have."""
    seconds: float


# --- attacks ----------------------------------------------------------------------------------------------------
async def run_attacks(
    config: PythonTool.Config | None = None, attacks: Sequence[Attack] = ATTACKS
) -> tuple[dict[Layer, State], list[Trial]]:
    """The layers in force, and what became of each attack. Raises ``InfrastructureError`` where no kernel starts."""
    async with (
        staged() as scene,
        opened(config or PythonTool.Config(timeout_s=10, memory_mb=256, scratch_mb=128)) as tool,
    ):
        trials = [await _attack(tool, scene, attack) for attack in attacks]
        return layers_of(tool), trials


async def _attack(tool: PythonTool, scene: Scene, attack: Attack) -> Trial:
    scene.set_up()
    begun = time.monotonic()
    said = harm = ""
    try:
        async with session(tool) as sibling, session(tool) as attacker:
            scene.sibling_folder, scene.sibling = await _where(sibling)
            names = [field.name for field in fields(scene) if not field.name.startswith("_")]
            aims = "\n".join(f"{name} = {getattr(scene, name)!r}" for name in names)
            await attacker.call(ToolCall("python", aims))
            result = await attacker.call(ToolCall("python", f"{attack.code}\nprint({THROUGH!r})"))
            await asyncio.sleep(0.02)  # what has been set going outside takes a moment
            harm = scene.harm()
        said = last_line(result)
    except InfrastructureError as error:
        harm = error.message
    if attack.at_end is not None:
        for _ in range(40):
            if not (harm := attack.at_end(scene)):
                break
            await asyncio.sleep(0.05)
        said = said or "ended with its session"
    seconds = time.monotonic() - begun
    if said != THROUGH and not harm:
        return Trial(attack.name, True, said, seconds)
    weak = [f"{layer}: {state}" for layer, state in layers_of(tool).items() if _weak(attack, layer, state)]
    return Trial(attack.name, False, "; ".join([harm or THROUGH, *weak]), seconds)


def _weak(attack: Attack, layer: Layer, state: State) -> bool:
    """Whether it would have stood in the way, and is not there or not whole."""
    return layer in attack.layers.split() and not state.whole


def layers_of(tool: PythonTool) -> dict[Layer, State]:
    absent = State(False, "only kernels that are forked are isolated")
    return {layer: tool.pool.backend.layers.get(layer, absent) for layer in LAYERS}


def last_line(result: ToolResult) -> str:
    return result.text.strip().rpartition("\n")[2]


# --- hangs ------------------------------------------------------------------------------------------------------
async def run_hangs(
    config: PythonTool.Config | None = None, slack_s: float = SLACK_S, hangs: Mapping[str, str] = HANGS
) -> list[Trial]:
    """A trial holds where the call ended in time, and a call after it in the same session is answered."""
    config = config or PythonTool.Config(timeout_s=1, grace_s=0.5)
    most = config.timeout_s + config.grace_s + slack_s
    trials = []
    async with opened(config) as tool:
        for name, code in hangs.items():
            async with session(tool) as stuck:
                await stuck.call(ToolCall("python", "x = 1"))
                begun = time.monotonic()
                result = await stuck.call(ToolCall("python", code))
                seconds = time.monotonic() - begun
                after = await stuck.call(ToolCall("python", "1 + 1"))
            ended = "the session was ended" if result.restarted else "interrupted"
            detail = f"{ended} {seconds - config.timeout_s:+.2f} s after the limit"
            in_time = seconds <= most and result.outcome is Outcome.TIMEOUT
            answered = after.outcome is Outcome.OK and after.text.endswith("2")
            trials.append(Trial(name, in_time and answered, detail, seconds))
    return trials


# --- the scene --------------------------------------------------------------------------------------------------
@asynccontextmanager
async def opened(config: PythonTool.Config) -> AsyncIterator[PythonTool]:
    tool = PythonTool(config)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            await tool.open(OpenContext(scratch=Path(scratch)))
            yield tool
        finally:
            await tool.close()


@asynccontextmanager
async def session(tool: PythonTool) -> AsyncIterator[PythonSession]:
    async with tool.session(_TASK, trajectory_id=secrets.token_hex(4), seed=0) as one:
        yield one


async def _where(sibling: PythonSession) -> tuple[str, int]:
    code = (
        "import os\nprint(os.getcwd().encode().hex(), os.getpid())"  # in hex: its folder's name is not shown
    )
    folder, number = (await sibling.call(ToolCall("python", code))).text.split()
    return bytes.fromhex(folder).decode(), int(number)


class _Ear(asyncio.DatagramProtocol):
    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.scene.heard += 1


@asynccontextmanager
async def staged() -> AsyncIterator[Scene]:
    """A file, a process, sockets and a secret of the owner's."""
    outside = tempfile.mkdtemp(prefix="cort-outside-")
    secret = f"secret-{secrets.token_hex(8)}"
    loop = asyncio.get_running_loop()
    scene = Scene(outside, secret, os.getpid(), f"{outside}/s", f"cort-{secret}")

    def heard(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        scene.heard += 1
        writer.close()

    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind("\0" + scene.abstract)
    datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    datagrams.bind(scene.path)
    server = await asyncio.start_server(heard, "127.0.0.1", 0)
    scene.port = server.sockets[0].getsockname()[1]
    listener = await asyncio.start_unix_server(heard, sock=abstract)
    udp, _ = await loop.create_datagram_endpoint(lambda: _Ear(scene), ("127.0.0.1", scene.port))
    unix, _ = await loop.create_datagram_endpoint(lambda: _Ear(scene), sock=datagrams)
    os.environ["CORT_SECRET"] = secret
    try:
        yield scene
    finally:
        os.environ.pop("CORT_SECRET", None)
        for transport in (udp, unix):
            transport.close()
        for one in (server, listener):
            one.close()
        scene.end_bystander()
        with suppress(OSError):
            shutil.rmtree(outside)
